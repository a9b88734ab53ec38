"""From the engine's numbers to what a user of a site or a network expects: distributions and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import innermost
from sumout.effects import Message, Trace
from sumout.effects.steps import is_lookback, names_in_loop, without_steps
from sumout.effects.trace import sample_sites, tensor_plates
from sumout.errors import PlanError
from sumout.execute import Choice, Marginal
from sumout.factors import FactorGraph
from sumout.infer.answers.joint import Joint
from sumout.plan.structure import Readout


def latent_sites(trace: Trace) -> dict[str, Message]:
    """The enumerated sites by the names of their variables; one of a vectorized chain stands for all its steps."""
    return {
        name: single
        for site in sample_sites(trace)
        if site.enum_dim is not None and not is_lookback(site)
        for single in (without_steps(site),)
        for name in names_in_loop(site)
    }


def check_shared_shape(sites: Mapping[str, Message], each: Readout) -> None:
    """Raises ``PlanError`` for a group of a program's sites in two plates that take the same tensor dimension.

    A joint table has a dimension for each plate of the group, in the place that the program gives it.
    """
    names = (each,) if isinstance(each, str) else each
    homes = {name: _frames(sites[name]) for name in names if name in sites}
    free = min([dim for frames in homes.values() for dim in frames], default=0) - 1
    found: dict[int, tuple[str, str]] = {}
    for name, frames in homes.items():
        for dim, (plate, _) in frames.items():
            other, before = found.setdefault(dim, (name, plate))
            if before != plate:
                raise PlanError(
                    f"{name!r} lives in the plate {plate!r} and {other!r} in {before!r}, both at dim {dim}: a joint "
                    "table of them has no room for the elements of both. Give one of the plates another dim, e.g. "
                    f"plate({plate!r}, ..., dim={free})."
                )


def table_of(sites: Mapping[str, Message], each: Readout, marginal: Marginal) -> Tensor:
    """The probabilities of a variable or a group, with the batch shape that a program's sites have."""
    names = (each,) if isinstance(each, str) else each
    if not all(name in sites for name in names):
        return marginal.probs
    frames = {dim: frame for name in names for dim, frame in _frames(sites[name]).items()}
    return _spread(marginal.probs, marginal.plates, frames)


def distribution_of(graph: FactorGraph, sites: Mapping[str, Message], each: Readout, probs: Tensor) -> Any:
    """What a user of a site or a network expects: a distribution for a name, a ``Joint`` for a group.

    A variable of a graph has a ``Categorical`` whose batch dimensions are its plates in alphabetical order.
    """
    if not isinstance(each, str):
        return joint_of(graph, sites, each, probs)
    if each in sites:
        return site_distribution(sites[each], probs)
    return dist.Categorical(probs=probs, validate_args=False)


def joint(
    graph: FactorGraph, sites: Mapping[str, Message], names: tuple[str, ...], marginal: Marginal
) -> Joint:
    """The joint table of several variables; a program's with the batch shape of its sites."""
    return joint_of(graph, sites, names, table_of(sites, names, marginal))


def joint_of(
    graph: FactorGraph, sites: Mapping[str, Message], names: tuple[str, ...], probs: Tensor
) -> Joint:
    """A table of probabilities, which has the batch shape of the sites already, with names and values."""
    states = {name: graph.states[name] for name in names if name in graph.states}
    supports = {
        name: _support(sites[name]) if name in sites else torch.arange(graph.variables[name].size)
        for name in names
    }
    return Joint(names, probs, supports, states)


def site_distribution(site: Message, probs: Tensor) -> Any:
    """The marginal of an enumerated site, of the site's own family where that family can express it.

    Bernoulli, Categorical and OneHotCategorical stay what they are; a support ``0, 1, ..., n`` gives a
    ``Categorical``; any other finite support an ``Empirical`` over the support.
    """
    family = innermost(site.fn)
    if isinstance(family, dist.Bernoulli):
        return dist.Bernoulli(probs=probs[..., 1].clamp(max=1.0), validate_args=False)
    if isinstance(family, dist.OneHotCategorical):
        return dist.OneHotCategorical(probs=probs, validate_args=False)
    support = _support(site)
    if support.ndim == 1 and support.tolist() == list(range(len(support))):
        return dist.Categorical(probs=probs, validate_args=False)
    samples = support.expand(*probs.shape, *support.shape[1:])
    return dist.Empirical(samples, probs.log())


def site_value(site: Message, choice: Choice) -> Tensor:
    """Values of an enumerated site at the chosen states, with the plates' batch shape."""
    index = _spread(choice.states.unsqueeze(-1), choice.plates, _frames(site)).squeeze(-1)
    return _support(site)[index]


def site_values(site: Message, choice: Choice) -> Tensor:
    """The same where the states have an assignment for each index of their first dimension."""
    index = _spread(choice.states.movedim(0, -1), choice.plates, _frames(site)).movedim(-1, 0)
    return _support(site)[index]


def spread_over_plates(site: Message, x: Tensor, plates: tuple[str, ...]) -> Tensor:
    """Moves the named plates, the first dimensions of ``x``, to where the site has them."""
    return _spread(x, plates, _frames(site))


def _frames(site: Message) -> dict[int, tuple[str, int]]:
    """Names and sizes of a site's plates by tensor dimension."""
    return {dim: (frame.name, frame.size) for dim, frame in tensor_plates(site).items()}


def _support(site: Message) -> Tensor:
    """All values of a site, shape ``(states, *event_shape)``."""
    support: Tensor = site.fn.enumerate_support(expand=False)
    return support.reshape(support.shape[0], *site.fn.event_shape)


def _spread(x: Tensor, plates: tuple[str, ...], frames: dict[int, tuple[str, int]]) -> Tensor:
    """Moves named plates to their tensor dimensions; ``x`` has one dimension a plate, then others."""
    if not frames:
        return x
    by_dim = sorted(frames)
    rest = range(len(plates), x.ndim)
    x = x.permute([*(plates.index(frames[dim][0]) for dim in by_dim), *rest])
    shape = [frames[dim][1] if dim in frames else 1 for dim in range(by_dim[0], 0)]
    return x.reshape(*shape, *x.shape[len(plates) :])
