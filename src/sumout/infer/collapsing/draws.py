"""Joint posterior samples of collapsed sites."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from sumout.distributions.conjugacy import INVERSE
from sumout.distributions.families import innermost
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.component import Component, States
from sumout.lower.collapse.conjugate import Star
from sumout.lower.collapse.layout import extents, in_shape


def draws(
    integral: Integral, count: int, states: Mapping[str, States] = MappingProxyType({})
) -> dict[str, Tensor]:
    """Joint samples of all sites of a group.

    Args:
        integral: the group.
        count: how many.
        states: the states of the discrete variables that the integral depends on, in each sample.

    Returns:
        For each site values of shape ``(count, *batch, *event)``, batch and event those of its value in the program.
    """
    solution = integral.solution
    if isinstance(solution, Star):
        return {solution.latent.name: _of_star(solution, count, states)}
    if isinstance(solution, Component):
        return _of_component(integral, solution, count, states)
    latent = solution.factor.latent
    factor = _of_star(solution.factor, count, states)
    width = factor.sqrt() if type(innermost(latent.fn)) in INVERSE else factor.rsqrt()
    plates = extents(latent)
    # Without the dimensions of size one between the plates.
    width = width.reshape([count, *[size for _, size in plates.values()]])
    found = _of_component(integral, solution.gaussian, count, states, States(width, tuple(plates)))
    return {**found, latent.name: factor}


def _of_star(star: Star, count: int, states: Mapping[str, States]) -> Tensor:
    """Samples of the conjugate family, with natural coordinates chosen by the states."""
    parts = []
    batch = star.latent.value.dim() - star.family.event_dim
    plates = extents(star.latent)
    extra = len(star.latent.fn.event_shape) - star.family.event_dim
    for part in star.posterior:
        index: list[Tensor] = []
        for name in star.names:
            chosen, of = states[name]
            shape = [1] * batch
            for plate in of:
                if plate in plates:
                    shape[batch - extra + plates[plate][0]] = plates[plate][1]
            order = sorted(of, key=lambda plate: plates[plate][0])
            index.append(
                chosen.permute([0, *[1 + of.index(plate) for plate in order]]).reshape([count, *shape])
            )
        if index:
            for place in range(batch):
                size = part.shape[len(star.names) + place]
                index.append(
                    torch.arange(size).reshape([-1 if each == place + 1 else 1 for each in range(batch + 1)])
                )
            part = part[tuple(index)]
        parts.append(part if index else part.expand([count, *part.shape]))
    value: Tensor = star.family.distribution(tuple(parts)).sample()
    return value


def _of_component(
    integral: Integral,
    component: Component,
    count: int,
    states: Mapping[str, States],
    width: States | None = None,
) -> dict[str, Tensor]:
    found = {}
    for name, (names, values) in component.draws(count, states, width).items():
        site = integral.latents[name]
        _, values = in_shape(site, names, values, component.written, lead=1)
        found[name] = values.reshape([*values.shape[:-1], *site.fn.event_shape])
    return found
