"""Scoring many sites of one family as one.

Three cases are known:

- an enumerated Categorical takes all its states in order, so its table is the table of its parameters;
- any other Categorical looks its value up in that table;
- a density that is elementwise in value and parameters can be taken of stacked values and parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions.utils import probs_to_logits

import sumout.distributions as dist
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
        part = torch.stack(same) if len(same) > 1 else same[0].unsqueeze(0)
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

    def finish(self, log_prob: Tensor, mask: Any) -> Tensor:
        """Masks and sums; ``mask`` is what all sites have, or ``Tensor`` where each has its own."""
        if mask is Tensor:
            shape = self.shapes[-1][: len(self.shapes[-1]) - self.events]
            mask = stack([site.mask for site in self.sites], shape)
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
    made_of, _ = batch.shared
    table = stack([site.plain_fn._param for site in batch.sites], batch.shapes[0])
    if made_of == "probs":
        table = probs_to_logits(table)
    return table if table.shape[-1] > 1 else table.squeeze(-1)


def _look_up(batch: Batch) -> Tensor:
    made_of, _, _, mask, validate = batch.shared
    of_value, of_param, *_ = batch.shapes
    value = stack([site.value for site in batch.sites], of_value[:-1])
    parameter = stack([site.plain_fn._param for site in batch.sites], of_param)
    if validate:
        states = (value >= 0) & (value < parameter.shape[-1]) & (value % 1 == 0)
        _check(bool(states.all()), batch.sites)
    logits = probs_to_logits(parameter) if made_of == "probs" else parameter
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


_AT_ONCE = 2**19
"""Elements of a table that are scored at once: more do not stay in the processor's cache, fewer are not worth a
call."""


def _elementwise(batch: Batch) -> Tensor:
    rank = 1 + len(batch.shared[1])
    shapes = batch.shapes[:rank]  # of the value and the parameters
    width = max(map(len, shapes))
    elements = math.prod(max(shape[place] for shape in shapes) for place in range(width))
    # A sum over data is a matrix product where neither data nor parameters have the dimensions of both.
    product = elements > 2 * max(map(math.prod, shapes))
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
        _check(bool(fn.support.check(value).all()), batch.sites)
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
    log_prob = log_density(fn, value)
    if batch.events:
        log_prob = log_prob.sum(tuple(range(rank, value.ndim)))
    return batch.finish(log_prob, mask)


def _linear(value: Tensor, slope: Tensor, offset: Tensor, places: Sequence[int]) -> Tensor:
    """``(value * slope + offset).sum(places)``, as a matrix product where there is something to sum.

    The table before the sum, over all data and all states, is not made.
    """
    if not places:
        return value * slope + offset
    names = range(value.ndim)
    result = [name for name in names if name not in places]
    shape = [max(value.shape[name], slope.shape[name]) for name in result]
    operands: list[Any] = []
    for each in (value, slope):
        varies = [name for name in names if each.shape[name] > 1]
        operands += [each.reshape([each.shape[name] for name in varies]), varies]
    out = [name for name in result if max(value.shape[name], slope.shape[name]) > 1]
    product = torch.einsum(*operands, out).reshape(shape)
    # Along dimensions of the sum in which the offset does not vary, it counts once for each element.
    repeated = [value.shape[name] for name in places if offset.shape[name] == 1]
    return product + offset.sum(tuple(places)) * float(torch.Size(repeated).numel())


def _check(valid: bool, sites: Sequence[Message]) -> None:
    """Scores the sites one by one if their stacked values are not all valid: the error then says which it is."""
    if not valid:
        for site in sites:
            unscaled_log_prob(site, site.plain_fn)
