"""Scoring many sites of one family as one.

Three cases are known:

- an enumerated Categorical takes all its states in order, so its table is the table of its parameters;
- any other Categorical looks its value up in that table;
- a density that is elementwise in value and parameters can be taken of stacked values and parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions.utils import probs_to_logits

import sumout.distributions as dist
from sumout.distributions.checks import holds, unnormalized
from sumout.distributions.families import elementwise_parameters, linear_form, log_density
from sumout.effects import Message
from sumout.effects.scoring import apply_mask, unscaled_log_prob

Shape = tuple[int, ...]


class Layout(NamedTuple):
    """Where tensors that broadcast together really vary.

    ``dims`` are the negative batch dimensions along which any of them does, ``shapes`` the tensors' shapes
    with no other batch dimensions; event dimensions are kept.
    """

    dims: tuple[int, ...]
    shapes: tuple[Shape, ...]


@lru_cache(maxsize=4096)
def layout_of(shapes: tuple[Shape, ...], events: int) -> Layout:
    """The layout of tensors with ``events`` event dimensions each.

    >>> layout_of(((2, 1, 5), (3, 1)), events=0)
    Layout(dims=(-3, -2, -1), shapes=((2, 1, 5), (1, 3, 1)))
    >>> layout_of(((2, 1, 5), (1, 1)), events=1)
    Layout(dims=(-2,), shapes=((2, 5), (1, 1)))
    """
    width = max(map(len, shapes), default=events)
    padded = [(1,) * (width - len(shape)) + tuple(shape) for shape in shapes]
    rank = width - events
    kept = [place for place in range(rank) if any(shape[place] != 1 for shape in padded)]
    return Layout(
        tuple(place - rank for place in kept),
        tuple(tuple(shape[place] for place in kept) + shape[rank:] for shape in padded),
    )


def stack(tensors: Sequence[Any], shape: Shape) -> Tensor:
    """Tensors along a new first dimension, each in ``shape``, which leaves out dimensions of size one.

    Those of one shape come one after another and are reshaped together.
    """
    parts = []
    for _, run in groupby(tensors, lambda each: each.shape):
        same = list(run)
        part = torch.stack(same) if len(same) > 1 else same[0]
        parts.append(part.reshape(len(same), *shape))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Batch(NamedTuple):
    """Sites that are scored as one: of one case, with what they share; ``shapes`` are those of their layout.

    The result is to be summed over the batch dimensions ``places``.
    """

    sites: Sequence[Message]
    shared: Any
    shapes: tuple[Shape, ...]
    events: int
    places: tuple[int, ...]

    def masks(self) -> Tensor:
        """The masks of all sites, each of which has one."""
        shape = self.shapes[-1][: len(self.shapes[-1]) - self.events]
        return stack([site.mask for site in self.sites], shape)

    def finish(self, log_prob: Tensor, mask: Any) -> Tensor:
        """Masks and sums; ``mask`` is what all sites have, or ``Tensor`` where each has its own."""
        if mask is Tensor:
            mask = self.masks()
        log_prob = apply_mask(log_prob, mask)
        return log_prob.sum(tuple([1 + place for place in self.places])) if self.places else log_prob

    def whole_mask(self, mask: Any) -> tuple[Tensor, Shape] | None:
        """The sites' masks, if each has one that is the same along all that is summed: to be applied after the sum.

        With it comes the shape in which it goes with values.
        """
        if mask is not Tensor:
            return None
        shape = self.shapes[-1][: len(self.shapes[-1]) - self.events]
        if any(shape[place] > 1 for place in self.places):
            return None
        kept = tuple([size for place, size in enumerate(shape) if place not in self.places])
        masks = stack([site.mask for site in self.sites], kept)
        return masks, (len(self.sites), *self.shapes[-1])


class Case(NamedTuple):
    """How a site is scored, and what it must share with others to be scored together with them.

    ``shapes`` are those of its value, its parameters and, if it is a tensor, its mask, all with ``events`` event
    dimensions. The result has the stack's dimension first and the states of an enumerated site last.
    """

    score: Callable[[Batch], Tensor]
    shared: Any
    shapes: tuple[Shape, ...]
    events: int


def own_mask(site: Message) -> bool | Tensor | None:
    """The mask of a site's table: none for an enumerated site (see ``log_prob``)."""
    return None if site.enum_dim is not None else site.mask


def case_of(site: Message) -> Case | None:
    """The case that a site is, if it is a known one."""
    fn = site.plain_fn
    if site.args or site.kwargs or not isinstance(site.value, Tensor):
        return None
    mask = own_mask(site)
    kind: Any = Tensor if isinstance(mask, Tensor) else mask
    if type(fn) is dist.Categorical:
        param = fn._param
        made_of = "probs" if param is fn.__dict__.get("probs") else "logits"
        if site.enum_dim is not None:
            return Case(_all_states, (made_of, param.dtype), (param.shape,), 1)
        shapes = [torch.Size((*site.value.shape, 1)), param.shape]
        shared: Any = made_of, param.dtype, site.value.dtype, kind, fn._validate_args
        events, score = 1, _look_up
    else:
        events, score = 0, _elementwise
        if type(fn) is dist.Independent:
            events, fn = fn.reinterpreted_batch_ndims, fn.base_dist
        names = elementwise_parameters(fn)
        if names is None:
            return None
        tensors = [site.value, *[fn.__dict__[name] for name in names]]
        shapes = [each.shape for each in tensors]
        shared = type(fn), names, kind, fn._validate_args, *[each.dtype for each in tensors]
    if isinstance(mask, Tensor):
        shapes.append(torch.Size((*mask.shape, *[1] * events)))
    return Case(score, shared, tuple(shapes), events)


def _all_states(batch: Batch) -> Tensor:
    table = _logits(batch, batch.shared[0], batch.shapes[0])
    return table if table.shape[-1] > 1 else table.squeeze(-1)


def _logits(batch: Batch, made_of: str, shape: Shape) -> Tensor:
    """Those of Categoricals, stacked; each in ``shape``."""
    fns = [site.plain_fn for site in batch.sites]
    if made_of == "logits":
        return stack([fn._param for fn in fns], shape)
    given = [unnormalized(fn) for fn in fns]
    tensors = [each for each in given if each is not None]
    if len(tensors) < len(fns):
        return probs_to_logits(stack([fn._param for fn in fns], shape))
    probs = stack(tensors, shape)
    return probs_to_logits(probs / probs.sum(-1, keepdim=True))


def _look_up(batch: Batch) -> Tensor:
    made_of, _, _, mask, validate = batch.shared
    of_value, of_param, *_ = batch.shapes
    value = stack([site.value for site in batch.sites], of_value[:-1])
    if validate:
        states = (value >= 0) & (value < of_param[-1]) & (value % 1 == 0)
        _check(bool(states.all()), batch.sites)
    logits = _logits(batch, made_of, of_param)
    return batch.finish(_entries(logits, value.long()), mask)


def _entries(table: Tensor, index: Tensor) -> Tensor:
    """``table[..., index]``, broadcast over the other dimensions, without repeating the table.

    Dimensions along which only the index varies become one dimension of positions to look up.
    """
    rank = index.ndim
    own = [dim for dim in range(rank) if table.shape[dim] == 1 and index.shape[dim] > 1]
    shared = [dim for dim in range(rank) if dim not in own]
    looked_at = [index.shape[dim] for dim in own]
    positions = index.permute(*shared, *own).reshape(*[index.shape[dim] for dim in shared], -1)
    rows = table.reshape([table.shape[dim] for dim in (*shared, -1)])
    shape = [max(sizes) for sizes in zip(rows.shape[:-1], positions.shape[:-1], strict=True)]
    found = rows.expand(*shape, -1).gather(-1, positions.expand(*shape, -1))
    found = found.reshape(*found.shape[:-1], *looked_at)
    order = [*shared, *own]
    return found.permute([order.index(dim) for dim in range(rank)])


_AT_ONCE = 2**17
"""Elements of a table that are scored at once: more do not stay in the processor's cache, fewer are not worth a
call."""


def _elements(shapes: Sequence[Shape]) -> tuple[int, bool]:
    """How many elements a density has, of a value and parameters of these shapes, and whether it may be a product.

    A sum over data is a matrix product where neither data nor parameters have the dimensions of both.
    """
    elements = math.prod(map(max, zip(*shapes, strict=True)))
    return elements, elements > 2 * max(map(math.prod, shapes))


def log_prob_alone(site: Message, case: Case, shapes: Sequence[Shape]) -> Tensor | None:
    """The log-probability of the only site of its kind, where nothing is saved by scoring it as one of many.

    Args:
        case: the site's.
        shapes: those of its layout.
    """
    if case.score is not _elementwise or case.events:
        return None
    _, names, _, validate, *dtypes = case.shared
    elements, product = _elements(shapes[: 1 + len(names)])
    if len(set(dtypes)) > 1 or product or elements >= 2 * _AT_ONCE:
        return None  # (Torch would take the narrower type where the wider one is a single number's.)
    fn = site.plain_fn
    if validate:
        _check(holds(fn.support, site.value), [site])
    return log_density(fn, site.value, bool(validate))


def _elementwise(batch: Batch) -> Tensor:
    elements, product = _elements(batch.shapes[: 1 + len(batch.shared[1])])
    at_once = max(1, _AT_ONCE // max(1, elements))
    if product or len(batch.sites) <= at_once:
        return _scored(batch, product)
    parts = [batch.sites[start : start + at_once] for start in range(0, len(batch.sites), at_once)]
    return torch.cat([_scored(batch._replace(sites=part), product) for part in parts])


def _scored(batch: Batch, product: bool) -> Tensor:
    family, names, mask, validate = batch.shared[:4]
    fns = [site.plain_fn for site in batch.sites]
    if type(fns[0]) is dist.Independent:
        fns = [fn.base_dist for fn in fns]
    columns = [[site.value for site in batch.sites], *([fn.__dict__[name] for fn in fns] for name in names)]
    value, *parameters = [stack(each, shape) for each, shape in zip(columns, batch.shapes, strict=False)]
    fn = family(**dict(zip(names, parameters, strict=True)), validate_args=False)
    if validate:
        _check(holds(fn.support, value), batch.sites)
    rank = value.ndim - batch.events
    whole = batch.whole_mask(mask)
    linear = linear_form(fn) if product and (mask in (None, True) or whole is not None) else None
    if linear is not None:
        places = [*(1 + place for place in batch.places), *range(rank, value.ndim)]
        if whole is None:
            return _linear(value, *linear, places)
        kept, shape = whole
        if not validate:  # What is masked may be no number.
            value = torch.where(kept.reshape(shape), value, value.new_zeros(()))
        return apply_mask(_linear(value, *linear, places), kept)
    if mask is Tensor:
        mask = batch.masks()
    size, dim = _part([value, *parameters], rank, batch.places)
    if size is None:
        return _finished(fn, value, mask, batch)
    tensors = [value, *parameters, *([mask] if isinstance(mask, Tensor) else [])]
    length = max(each.shape[dim] for each in tensors)
    found = []
    for of_value, *rest in zip(*[_cut(each, dim, size, length) for each in tensors], strict=True):
        part = family(**dict(zip(names, rest, strict=False)), validate_args=False)
        found.append(_finished(part, of_value, rest[-1] if isinstance(mask, Tensor) else mask, batch))
    return torch.cat(found, dim - sum([1 + place < dim for place in batch.places]))


def _finished(fn: Any, value: Tensor, mask: Any, batch: Batch) -> Tensor:
    """The density, masked and summed."""
    log_prob = log_density(fn, value, bool(batch.shared[3]))
    if batch.events:
        log_prob = log_prob.sum(tuple(range(value.ndim - batch.events, value.ndim)))
    return batch.finish(log_prob, mask)


def _part(tensors: Sequence[Tensor], rank: int, places: Collection[int]) -> tuple[int | None, int]:
    """How much of which dimension is scored at once; ``None`` if all of it is.

    What a part leaves is a table of its own, so the dimension is none that is summed over; it is the first that is long
    enough.
    """
    shape = list(map(max, zip(*[each.shape for each in tensors], strict=True)))
    parts = math.prod(shape) / _AT_ONCE
    kept = [dim for dim in range(rank) if dim - 1 not in places]
    if parts < 2.0:
        return None, 0
    dim = next((dim for dim in kept if shape[dim] >= parts), max(kept, key=shape.__getitem__))
    return max(1, int(shape[dim] / parts)) if shape[dim] > 1 else None, dim


def _cut(tensor: Tensor, dim: int, size: int, length: int) -> Sequence[Tensor]:
    """The parts of a tensor along a dimension; all of it for each part if it does not vary along it."""
    if tensor.shape[dim] == 1:
        return [tensor] * -(-length // size)
    return torch.split(tensor, size, dim)


def _linear(value: Tensor, slope: Tensor, offset: Tensor, places: Sequence[int]) -> Tensor:
    """``(value * slope + offset).sum(places)``, as a matrix product where there is something to sum.

    The table before the sum, over all data and all states, is not made.
    """
    if not places:
        return value * slope + offset
    names = range(value.ndim)
    result = [name for name in names if name not in places]
    shape = [max(value.shape[name], slope.shape[name]) for name in result]
    of_value, of_slope = ([name for name in names if each.shape[name] > 1] for each in (value, slope))
    lhs, rhs = (each.reshape([size for size in each.shape if size > 1]) for each in (value, slope))
    out = [name for name in result if max(value.shape[name], slope.shape[name]) > 1]
    product = _contracted(lhs, of_value, rhs, of_slope, out).reshape(shape)
    # Along dimensions of the sum in which the offset does not vary, it counts once for each element.
    times = math.prod([value.shape[name] for name in places if offset.shape[name] == 1])
    offset = offset.sum(tuple(places))
    return product + (offset * float(times) if times != 1 else offset)


def _contracted(lhs: Tensor, of_lhs: list[int], rhs: Tensor, of_rhs: list[int], out: list[int]) -> Tensor:
    """The product with all but the named dimensions ``out`` summed: as one of matrices, where it can be."""
    summed = [name for name in of_rhs if name not in out]
    left, right = ([name for name in each if name in out] for each in (of_lhs, of_rhs))
    if of_lhs != [*left, *summed] or not summed or not set(left).isdisjoint(right):
        return torch.einsum(lhs, of_lhs, rhs, of_rhs, out)
    matrix = (
        rhs
        if of_rhs == [*right, *summed]
        else rhs.permute([of_rhs.index(name) for name in (*right, *summed)])
    )
    count = math.prod(lhs.shape[len(left) :])
    product = F.linear(lhs.reshape(-1, count), matrix.reshape(-1, count))
    product = product.reshape([*lhs.shape[: len(left)], *matrix.shape[: len(right)]])
    made = [*left, *right]
    return product if made == out else product.permute([made.index(name) for name in out])


def _check(valid: bool, sites: Sequence[Message]) -> None:
    """Scores the sites one by one if their stacked values are not all valid: the error then says which it is."""
    if not valid:
        for site in sites:
            unscaled_log_prob(site, site.plain_fn)
