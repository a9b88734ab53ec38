"""The joint posterior of several collapsed sites, where they are Gaussian together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sumout.distributions.families import innermost
from sumout.errors import ModelError
from sumout.execute import Marginal
from sumout.infer.collapsing.elements import batch_rank, own_moments
from sumout.infer.collapsing.mixed import Along, Mixed
from sumout.infer.collapsing.posterior import gaussian, mixture, normal, states_of
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.common_matrix import CommonMatrix
from sumout.lower.collapse.common_scale import CommonScale
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.conjugate import Star


def discrete_of(integrals: Sequence[Integral]) -> tuple[str, ...]:
    """The discrete sites that the joint posterior of some groups depends on."""
    return tuple(dict.fromkeys([name for each in integrals for name in each.discrete]))


def joint_posterior(
    integrals: Mapping[str, Integral], names: tuple[str, ...], marginal: Marginal | None
) -> Mixed:
    """The joint posterior of collapsed sites: normal, or Student t where they share an unknown scale.

    Args:
        integrals: that of each site.
        names: the sites; their entries lie side by side in this order.
        marginal: joint posterior probabilities of ``discrete_of(integrals)``; ``None`` where there are none.

    Raises:
        ModelError: naming a site that is not Gaussian, or that is so only given an unknown scale of its own.
    """
    groups = list({id(integrals[name]): integrals[name] for name in names}.values())
    _check_gaussian(integrals, names, len(groups))
    sites = [integrals[name].latents[name] for name in names]
    if len(groups) == 1:
        (integral,) = groups
        found = _component(integral).joint_moments(names)
        return gaussian(integral, sites, [sum([site.event_size for site in sites])], found, marginal)
    states = {name: size for each in groups for name, size in states_of(each).items()}
    means: list[Tensor] = []
    blocks: list[Tensor] = []
    order: list[str] = []
    for integral in groups:
        own = tuple([name for name in names if integrals[name] is integral])
        of = [integral.latents[name] for name in own]
        component = _component(integral)
        missing = batch_rank(sites) - batch_rank(of)
        both = own_moments(of, component.joint_moments(own), component.written)
        mean, block = [_deepened(each, missing).over(tuple(states), states) for each in both]
        means.append(mean)
        blocks.append(block)
        order += own
    shape = np.broadcast_shapes(*[each.shape[:-1] for each in means])
    mean = torch.cat([each.expand([*shape, -1]) for each in means], -1)
    rows = []
    for block in blocks:
        sides = [
            block if each is block else block.new_zeros(*block.shape[:-1], each.shape[-1]) for each in blocks
        ]
        rows.append(torch.cat(sides, -1).expand([*shape, -1, -1]))
    covariance = torch.cat(rows, -2)
    counts = {name: site.event_size for name, site in zip(names, sites, strict=True)}
    starts = dict(zip(order, itertools.accumulate([0, *[counts[name] for name in order]]), strict=False))
    index = torch.tensor([starts[name] + entry for name in names for entry in range(counts[name])])
    whole = [mean[..., index], covariance[..., index.unsqueeze(-1), index]]
    parts = [Along(tuple(states), each.reshape([*states.values(), *each.shape[1:]])) for each in whole]
    return mixture(states, sites, normal(mean.shape[-1:]), parts, marginal)


def _deepened(found: Along, missing: int) -> Along:
    """With more batch dimensions in front."""
    lead = len(found.names)
    return found._replace(
        data=found.data.reshape([*found.data.shape[:lead], *[1] * missing, *found.data.shape[lead:]])
    )


def _check_gaussian(integrals: Mapping[str, Integral], names: Sequence[str], groups: int) -> None:
    listed = ", ".join(map(repr, names))
    for name in names:
        integral = integrals[name]
        solution = integral.solution
        kind = type(innermost(integral.latents[name].fn)).__name__
        if isinstance(solution, Component):
            continue
        middle = (solution if isinstance(solution, Star) else solution.factor).latent.name
        if name == middle:
            why = f"site {name!r} is {kind}"
        elif isinstance(solution, CommonMatrix):
            why = f"site {name!r} is normal only given the precision matrix {middle!r}"
        elif groups > 1:
            why = f"site {name!r} is normal only given the scale {middle!r}, which the others do not share"
        else:
            continue
        raise ModelError(
            f"The joint posterior of {listed} has no distribution in closed form: {why}. Ask for each site by itself, "
            "or draw them jointly: posterior_samples."
        )


def _component(integral: Integral) -> Component:
    solution = integral.solution
    assert isinstance(solution, (Component, CommonScale))
    return solution if isinstance(solution, Component) else solution.gaussian
