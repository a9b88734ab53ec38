"""The log-probabilities of sites as tables over named dimensions, many sites at a time.

A chain of a thousand steps scores the same family a thousand times on small tensors. Sites that are alike
are therefore stacked and scored as one, which saves the launches and, in training, the autograd nodes. Three
cases are known; any other site is scored by its own distribution:

- an enumerated Categorical takes all its states in order, so its table is the table of its parameters;
- any other Categorical looks its value up in that table;
- a density that is elementwise in value and parameters can be taken of stacked values and parameters.

All are scored by ``plain_fn``, unexpanded by plates: a table along which nothing varies is not made.

A mask takes a site out of the density. For an enumerated site that means that nothing is learnt from it, as
when it is drawn from its distribution and ignored: its table stays and sums to one. (Without its table, the
sum over its states would count them.) The padding of a masked chain thus leaves the evidence alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions.utils import probs_to_logits

import sumout.distributions as dist
from sumout.distributions.families import elementwise_log_prob, elementwise_parameters
from sumout.effects import Message
from sumout.effects.scoring import apply_mask, unscaled_log_prob


class Table(NamedTuple):
    """A masked but unscaled log-probability.

    ``dims`` tells for each dimension which negative batch dimension of the site it is. Dimensions that are
    missing are ones along which the log-probability is constant.
    """

    log_prob: Tensor
    dims: tuple[int, ...]


class _Layout(NamedTuple):
    """Where tensors that broadcast together really vary.

    ``dims`` are the negative batch dimensions along which any of them does, ``shapes`` the tensors' shapes
    with no other batch dimensions; event dimensions are kept.
    """

    dims: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]


class _Case(NamedTuple):
    """How a site is scored, and what it must share with others to be scored together with them."""

    score: Callable[[Sequence[Message], Sequence[_Layout], Any], list[Table]]
    shared: Any
    shapes: tuple[tuple[int, ...], ...] = ()
    events: int = 0


def log_probs(sites: Sequence[Message]) -> list[Table]:
    """One table for each site, in order."""
    alike: dict[Any, dict[_Layout, list[int]]] = {}
    for number, site in enumerate(sites):
        case = _case(site, number)
        layout = _layout(case.shapes, case.events)
        key = case.score, case.shared, layout.shapes
        alike.setdefault(key, {}).setdefault(layout, []).append(number)
    tables: list[Table | None] = [None] * len(sites)
    for (scorer, shared, _), by_layout in alike.items():
        numbers = [number for each in by_layout.values() for number in each]
        layouts = [layout for layout, each in by_layout.items() for _ in each]
        for number, table in zip(
            numbers, scorer([sites[number] for number in numbers], layouts, shared), strict=True
        ):
            tables[number] = table
    return [table for table in tables if table is not None]


def _case(site: Message, number: int) -> _Case:
    fn = site.plain_fn
    if site.args or site.kwargs:
        return _Case(_by_itself, number)
    mask = _mask(site)
    kind: Any = Tensor if isinstance(mask, Tensor) else mask
    if type(fn) is dist.Categorical:
        param = fn._param
        made_of = "probs" if param is fn.__dict__.get("probs") else "logits"
        if site.enum_dim is not None:
            return _Case(_categorical, (made_of, param.dtype), (param.shape,), 1)
        if isinstance(site.value, Tensor):
            shapes = [torch.Size((*site.value.shape, 1)), param.shape]
            if isinstance(mask, Tensor):
                shapes.append(torch.Size((*mask.shape, 1)))
            shared = made_of, param.dtype, site.value.dtype, kind, fn._validate_args
            return _Case(_categorical_at, shared, tuple(shapes), 1)
    events = 0
    if type(fn) is dist.Independent:
        events, fn = fn.reinterpreted_batch_ndims, fn.base_dist
    names = elementwise_parameters(fn)
    if names is None or not isinstance(site.value, Tensor):
        return _Case(_by_itself, number)
    tensors = [site.value, *[fn.__dict__[name] for name in names]]
    shapes = [each.shape for each in tensors]
    if isinstance(mask, Tensor):
        shapes.append(torch.Size((*mask.shape, *[1] * events)))
    shared = type(fn), names, events, kind, fn._validate_args, *[each.dtype for each in tensors]
    return _Case(_elementwise, shared, tuple(shapes), events)


@lru_cache(maxsize=4096)
def _layout(shapes: tuple[tuple[int, ...], ...], events: int) -> _Layout:
    width = max(map(len, shapes), default=events)
    padded = [(1,) * (width - len(shape)) + tuple(shape) for shape in shapes]
    rank = width - events
    kept = [place for place in range(rank) if any(shape[place] != 1 for shape in padded)]
    return _Layout(
        tuple(place - rank for place in kept),
        tuple(tuple(shape[place] for place in kept) + shape[rank:] for shape in padded),
    )


def _by_itself(sites: Sequence[Message], layouts: Sequence[_Layout], shared: Any) -> list[Table]:
    (site,) = sites
    log_prob = apply_mask(unscaled_log_prob(site, site.plain_fn), _mask(site))
    layout = _layout((log_prob.shape,), 0)
    return [Table(log_prob.reshape(layout.shapes[0]), layout.dims)]


def _categorical(sites: Sequence[Message], layouts: Sequence[_Layout], shared: Any) -> list[Table]:
    """Enumerated Categoricals: the states are the parameters' last dimension."""
    made_of, _ = shared
    table = _stacked([site.plain_fn._param for site in sites], layouts[0].shapes[0])
    if made_of == "probs":
        table = probs_to_logits(table)
    if table.shape[-1] == 1:
        return [Table(row, each.dims) for row, each in zip(table.squeeze(-1).unbind(0), layouts, strict=True)]
    return [
        Table(row, (*each.dims, site.enum_dim or 0))
        for row, each, site in zip(table.unbind(0), layouts, sites, strict=True)
    ]


def _categorical_at(sites: Sequence[Message], layouts: Sequence[_Layout], shared: Any) -> list[Table]:
    """Categoricals with values of their own."""
    made_of, _, _, kind, validate = shared
    of_value, of_param, *_ = shapes = layouts[0].shapes
    value = _stacked([site.value for site in sites], of_value[:-1])
    parameter = _stacked([site.plain_fn._param for site in sites], of_param)
    fn = dist.Categorical(**{made_of: parameter}, validate_args=False)
    log_prob = _scored(fn, value, validate, sites)
    return _masked(log_prob, sites, layouts, kind, shapes[-1][:-1])


def _scored(fn: Any, value: Tensor, validate: bool, sites: Sequence[Message]) -> Tensor:
    """The log-probabilities of stacked values; an error says of which site it is."""
    fn._validate_args = validate
    try:
        return elementwise_log_prob(fn, value)
    except ValueError:
        for site in sites:
            unscaled_log_prob(site, site.plain_fn)
        raise


def _masked(
    log_prob: Tensor, sites: Sequence[Message], layouts: Sequence[_Layout], kind: Any, shape: tuple[int, ...]
) -> list[Table]:
    """The rows of a stack, masked; ``kind`` is the mask of all sites, or ``Tensor`` for tensors of ``shape``."""
    mask = _stacked([site.mask for site in sites], shape) if kind is Tensor else kind
    rows = apply_mask(log_prob, mask).unbind(0)
    return [Table(row, each.dims) for row, each in zip(rows, layouts, strict=True)]


def _elementwise(sites: Sequence[Message], layouts: Sequence[_Layout], shared: Any) -> list[Table]:
    """Densities that are elementwise in the value and in the parameters."""
    family, names, events, kind, validate = shared[:5]
    fns = [site.plain_fn for site in sites]
    if type(fns[0]) is dist.Independent:
        fns = [fn.base_dist for fn in fns]
    columns = [[site.value for site in sites], *([fn.__dict__[name] for fn in fns] for name in names)]
    shapes = layouts[0].shapes
    value, *parameters = [_stacked(each, shape) for each, shape in zip(columns, shapes, strict=False)]
    fn = family(**dict(zip(names, parameters, strict=True)), validate_args=False)
    log_prob = _scored(fn, value, validate, sites)
    if events:
        log_prob = log_prob.sum(tuple(range(-events, 0)))
    return _masked(log_prob, sites, layouts, kind, shapes[-1][: len(shapes[-1]) - events])


def _mask(site: Message) -> bool | Tensor | None:
    return None if site.enum_dim is not None else site.mask


def _stacked(tensors: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
    """Tensors along a new first dimension, each in ``shape``, which leaves out dimensions of size one.

    Those of one shape come one after another and are reshaped together.
    """
    parts = []
    for _, run in groupby(tensors, lambda each: each.shape):
        same = list(run)
        part = torch.stack(same) if len(same) > 1 else same[0].unsqueeze(0)
        parts.append(part.reshape(len(same), *shape))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
