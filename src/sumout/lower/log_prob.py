"""The log-probabilities of sites as tables over named dimensions, many sites at a time.

A chain of a thousand steps scores the same family a thousand times on small tensors. Sites that are alike
are therefore stacked and scored as one, which saves the launches and, in training, the autograd nodes. Two
cases are known; any other site is scored by its own distribution:

- an enumerated Categorical takes all its states in order, so its table is the table of its parameters;
- a density that is elementwise in value and parameters can be taken of stacked values and parameters.

All are scored by ``plain_fn``, unexpanded by plates: a table along which nothing varies is not made.

A mask takes a site out of the density. For an enumerated site that means that nothing is learnt from it, as
when it is drawn from its distribution and ignored: its table stays and sums to one. (Without its table, the
sum over its states would count them.) The padding of a masked chain thus leaves the evidence alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


Key = tuple[Any, ...]
Scorer = Callable[[Sequence[Message], Key], list[Table]]


def log_probs(sites: Sequence[Message]) -> list[Table]:
    """One table for each site, in order."""
    alike: dict[Key, list[int]] = {}
    for number, site in enumerate(sites):
        alike.setdefault(_key(site) or (_by_itself, number), []).append(number)
    tables: dict[int, Table] = {}
    for key, numbers in alike.items():
        chosen = [sites[number] for number in numbers]
        tables.update(zip(numbers, key[0](chosen, key), strict=True))
    return [tables[number] for number in range(len(sites))]


def _key(site: Message) -> Key | None:
    """What sites must share to be scored as one, the scorer first; ``None`` for a site of no known case."""
    if site.args or site.kwargs:
        return None
    fn = site.plain_fn
    if type(fn) is dist.Categorical and site.enum_dim is not None:
        param = fn._param
        return _categorical, param is fn.__dict__.get("probs"), param.shape, param.dtype
    events = 0
    if type(fn) is dist.Independent:
        events, fn = fn.reinterpreted_batch_ndims, fn.base_dist
    names = elementwise_parameters(fn)
    if names is None or not isinstance(site.value, Tensor):
        return None
    mask = _mask(site)
    kind = mask.shape if isinstance(mask, Tensor) else mask
    layout: list[Any] = [_elementwise, type(fn), names, events, kind, fn._validate_args]
    for tensor in (site.value, *[fn.__dict__[name] for name in names]):
        layout += (tensor.shape, tensor.dtype)
    return tuple(layout)


def _by_itself(sites: Sequence[Message], key: Key) -> list[Table]:
    (site,) = sites
    log_prob = apply_mask(unscaled_log_prob(site, site.plain_fn), _mask(site))
    return _unstacked(log_prob.unsqueeze(0), tuple(range(-log_prob.ndim, 0)))


def _categorical(sites: Sequence[Message], key: Key) -> list[Table]:
    """Enumerated Categoricals: the states are the parameters' last dimension."""
    of_probs = key[1]
    table = _stack([site.plain_fn._param for site in sites])
    if of_probs:
        table = probs_to_logits(table)
    own = sites[0].enum_dim
    assert own is not None
    tables = _unstacked(table, (*range(2 - table.ndim, 0), own))
    # The states' dimension, the last if there are more than one, is each site's own.
    if table.shape[-1] == 1:
        return tables
    return [
        Table(each.log_prob, (*each.dims[:-1], site.enum_dim or 0))
        for each, site in zip(tables, sites, strict=True)
    ]


def _elementwise(sites: Sequence[Message], key: Key) -> list[Table]:
    """Densities that are elementwise in the value and in the parameters."""
    _, family, names, events, _, validate = key[:6]
    fns = [site.plain_fn for site in sites]
    if type(fns[0]) is dist.Independent:
        fns = [fn.base_dist for fn in fns]
    columns = [[site.value for site in sites], *([fn.__dict__[name] for fn in fns] for name in names)]
    stacked = [_stack(column) for column in columns]
    rank = max(each.ndim for each in stacked)
    value, *parameters = (
        each.reshape(each.shape[0], *(1,) * (rank - each.ndim), *each.shape[1:]) for each in stacked
    )
    try:
        fn = family(**dict(zip(names, parameters, strict=True)), validate_args=False)
        fn._validate_args = validate
        log_prob = elementwise_log_prob(fn, value)
    except ValueError:
        for site in sites:
            unscaled_log_prob(site, site.plain_fn)  # Says which site it is.
        raise
    if events:
        log_prob = log_prob.sum(tuple(range(-events, 0)))
    log_prob = _masked(log_prob, [_mask(site) for site in sites])
    return _unstacked(log_prob, tuple(range(1 - log_prob.ndim, 0)))


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)) if len(tensors) > 1 else tensors[0].unsqueeze(0)


def _mask(site: Message) -> bool | Tensor | None:
    return None if site.enum_dim is not None else site.mask


def _masked(log_prob: Tensor, masks: Sequence[bool | Tensor | None]) -> Tensor:
    """Applies the masks of stacked sites, which are all of one kind."""
    tensors = [mask for mask in masks if isinstance(mask, Tensor)]
    if not tensors:
        return apply_mask(log_prob, masks[0])
    mask = _stack(tensors)
    rank = max(mask.ndim, log_prob.ndim)
    mask, log_prob = (
        each.reshape(each.shape[0], *(1,) * (rank - each.ndim), *each.shape[1:]) for each in (mask, log_prob)
    )
    return apply_mask(log_prob, mask)


def _unstacked(log_prob: Tensor, dims: tuple[int, ...]) -> list[Table]:
    """A table for each row, without the dimensions of size one."""
    single = [place for place, size in enumerate(log_prob.shape) if size == 1 and place > 0]
    if single:
        log_prob = log_prob.squeeze(single)
        dims = tuple(dim for place, dim in enumerate(dims, start=1) if place not in single)
    return [Table(row, dims) for row in log_prob.unbind(0)]
