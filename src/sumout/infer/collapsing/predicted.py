"""Samples and most probable values of sites on which nothing observed depends, given those of what they depend on."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.conjugacy import GAUSSIAN
from sumout.distributions.families import innermost
from sumout.effects import Message
from sumout.effects.delayed import Delayed
from sumout.execute import Choice
from sumout.infer.collapsing.chosen import rank_of_plates
from sumout.lower.collapse.normal import normal_form
from sumout.lower.collapse.parameters import delayed_parameters, with_numbers
from sumout.lower.collapse.sites import CollapsedSite

_NO_PARAMETERS = frozenset(["self", "validate_args", "is_sparse", "args", "kwargs"])


class Predictions(NamedTuple):
    """Samples of predictions.

    Attributes:
        values: for each site shape ``(count, *batch, *event)``.
        log_prob: the logarithm of their joint density given what they depend on, shape ``(count,)``; 0.0 for none.
        left: the sites that depend on others in ways that are not kept.
    """

    values: dict[str, Tensor]
    log_prob: Tensor | float
    left: tuple[str, ...]


def predictions(
    sites: Iterable[CollapsedSite], count: int, values: Mapping[str, Tensor], choices: Mapping[str, Choice]
) -> Predictions:
    """Samples of predictions, all at once.

    Args:
        sites: in the order of the program.
        count: how many samples.
        values: samples of all collapsed sites.
        choices: the states of the discrete sites in each sample.
    """
    found: dict[str, Tensor] = {}
    log_prob: Tensor | float = 0.0
    left: list[str] = []
    for site in sites:
        fn = _given(site, count, {**values, **found}, choices)
        if fn is None:
            left.append(site.name)
            continue
        found[site.name] = value = fn.sample()
        log_prob = log_prob + fn.log_prob(value).reshape(count, -1).sum(1)
    return Predictions(found, log_prob, tuple(left))


def peak(site: CollapsedSite) -> Message | None:
    """A prediction as if it were observed where its density is largest, whatever it depends on.

    Returns:
        ``None`` where what it depends on changes how large its density is there.
    """
    form = normal_form(site.fn, torch.zeros_like(site.value.probe))
    if type(innermost(site.fn)) not in GAUSSIAN or form is None or form.unit is not None:
        return None
    found = site.message.copy()
    if "_chain" in found.infer:
        return None
    found.infer = {key: each for key, each in found.infer.items() if not key.startswith("_")}
    found.plain_fn, found._fn = with_numbers(site.fn, lambda value: value.probe), None
    found.value, found.is_observed, found.enum_dim = found.fn.mean, True, None
    return found


def at_peaks(
    sites: Iterable[CollapsedSite], values: Mapping[str, Tensor], choices: Mapping[str, Choice]
) -> dict[str, Tensor]:
    """The most probable values of predictions given those of all that they depend on, where ``peak`` is known.

    Args:
        sites: in the order of the program.
        values: of all collapsed sites.
        choices: the states of the discrete sites.
    """
    found: dict[str, Tensor] = {}
    known = {name: value.unsqueeze(0) for name, value in values.items()}
    single = {name: Choice(each.states.unsqueeze(0), each.plates) for name, each in choices.items()}
    for site in sites:
        fn = _given(site, 1, {**known, **found}, single)
        assert fn is not None
        found[site.name] = fn.mean
    return {name: value[0] for name, value in found.items()}


def _given(
    site: CollapsedSite, count: int, values: Mapping[str, Tensor], choices: Mapping[str, Choice]
) -> Any | None:
    """A site's distribution in each sample; ``None`` where it cannot be made anew from its parameters."""
    delayed = delayed_parameters(site.fn)
    if any(name not in values for each in delayed for name in each.sites):
        return None
    base = innermost(site.fn)
    if isinstance(base, dist.Delta):
        return None
    extra = len(site.fn.event_shape) - len(base.event_shape)
    batch = (*site.message.batch_shape, *site.fn.event_shape[:extra])
    parameters: dict[str, Any] = {}
    for name in _given_parameters(base):
        value = getattr(base, name, None)
        if isinstance(value, Delayed):
            if value.unknown is not None:
                return None
            value = _at(value, count, values)
        elif isinstance(value, Tensor):
            value = value.unsqueeze(0)
        elif isinstance(value, (bool, int, float)):
            parameters[name] = value
            continue
        if not isinstance(value, Tensor) or name not in base.arg_constraints:
            return None
        events = base.arg_constraints[name].event_dim
        rank = value.dim() - 1 - events
        value = value.reshape([len(value), *[1] * (len(batch) - rank), *value.shape[1:]])
        value = value.expand([count, *batch, *value.shape[value.dim() - events :]])
        parameters[name] = _chosen(site, value, choices, extra)
    fn = type(base)(**parameters)
    return fn.to_event(extra) if extra else fn


def _given_parameters(base: Any) -> list[str]:
    """The arguments of a distribution's constructor, where there are several ways to give one the one that was used."""
    known = [each for each in inspect.signature(type(base).__init__).parameters if each not in _NO_PARAMETERS]
    for several in (("probs", "logits"), ("precision_matrix", "covariance_matrix", "scale_tril")):
        there = [name for name in several if name in known]
        given = [name for name in there if name in vars(base)] or there
        delayed = [name for name in given if isinstance(getattr(base, name), Delayed)]
        known = [name for name in known if name not in there or name == (delayed or given)[0]]
    return known


def _at(value: Delayed, count: int, values: Mapping[str, Tensor]) -> Tensor:
    """A delayed value in each sample, shape ``(count, *shape)``."""
    found = value.const.expand(count, *value.shape)
    for link in value.links:
        entries = values[link.site].reshape(count, -1)[:, link.where.clamp(min=0)]
        entries = entries if value.power == 1.0 else entries**value.power
        found = found + (link.coef * entries).sum(1)
    return found


def _chosen(site: CollapsedSite, x: Tensor, choices: Mapping[str, Choice], extra: int) -> Tensor:
    """A parameter ``(count, *batch, *rest)`` at the states of the discrete sites that it depends on."""
    batch = site.message.batch_shape
    dims = {frame.name: dim for dim, frame in site.frames.items()}
    for place, name in site.enumerated(batch):
        states, plates = choices[name]
        order = sorted(plates, key=lambda each: dims[each])
        states = states.permute([0, *[1 + plates.index(each) for each in order]])
        shape = [len(states)] + [1] * (x.dim() - 1)
        for each, size in zip(order, states.shape[1:], strict=True):
            shape[1 + len(batch) + dims[each]] = size
        x = x.take_along_dim(states.reshape(shape), 1 + place)
    rank = rank_of_plates(site, batch)
    return x.reshape([len(x), *x.shape[1 + len(batch) - rank :]])
