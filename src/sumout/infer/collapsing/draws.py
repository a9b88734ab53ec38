"""Joint posterior samples of collapsed sites."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.distributions.conjugacy import INVERSE
from sumout.distributions.families import innermost
from sumout.errors import ModelError
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.common_matrix import CommonMatrix
from sumout.lower.collapse.component import Component, States
from sumout.lower.collapse.conjugate import Star
from sumout.lower.collapse.layout import extents, in_shape


class Draws(NamedTuple):
    """Joint samples of the sites of a group.

    Attributes:
        values: for each site values of shape ``(count, *batch, *event)``, batch and event those of its value in the
            program.
        log_prob: the logarithm of the joint posterior density of each sample, given the discrete sites.
    """

    values: dict[str, Tensor]
    log_prob: Tensor


def draws(integral: Integral, count: int, states: Mapping[str, States] = MappingProxyType({})) -> Draws:
    """Joint samples of all sites of a group.

    Args:
        integral: the group.
        count: how many.
        states: the states of the discrete variables that the integral depends on, in each sample.
    """
    solution = integral.solution
    if isinstance(solution, Star):
        value, log_prob = _of_star(solution, count, states)
        return Draws({solution.latent.name: value}, log_prob)
    if isinstance(solution, Component):
        return _of_component(integral, solution.in_states(count, states))
    latent = solution.factor.latent
    if isinstance(solution, CommonMatrix):
        raise ModelError(
            f"There are no joint samples of normal vectors with an unknown precision, site {latent.name!r}. Their "
            "marginal posteriors are known; for samples leave that site out: infer={'collapse': False}."
        )
    factor, log_prob = _of_star(solution.factor, count, states)
    width = factor.sqrt() if type(innermost(latent.fn)) in INVERSE else factor.rsqrt()
    plates = extents(latent)
    # Without the dimensions of size one between the plates.
    width = width.reshape([count, *[size for _, size in plates.values()]])
    chosen = solution.gaussian.in_states(count, states).widened(States(width, tuple(plates)))
    found = _of_component(integral, chosen)
    return Draws({**found.values, latent.name: factor}, found.log_prob + log_prob)


def _of_star(star: Star, count: int, states: Mapping[str, States]) -> tuple[Tensor, Tensor]:
    """Samples of the conjugate family."""
    fn = star.family.distribution(chosen_parts(star, count, states))
    value = fn.sample()
    return value, fn.log_prob(value).reshape(count, -1).sum(1)


def chosen_parts(star: Star, count: int, states: Mapping[str, States]) -> tuple[Tensor, ...]:
    """Natural coordinates of the posterior in each sample, chosen by the states."""
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
    return tuple(parts)


def _of_component(integral: Integral, chosen: Component) -> Draws:
    drawn = chosen.draws()
    log_prob = chosen.log_density(
        {name: names for name, (names, _) in drawn.items()}, {name: each for name, (_, each) in drawn.items()}
    )
    log_prob = log_prob - chosen.log_evidence()
    return Draws(in_program(integral, chosen, drawn), log_prob.reshape(len(log_prob), -1).sum(1))


def in_program(
    integral: Integral, chosen: Component, values: Mapping[str, tuple[tuple[str, ...], Tensor]]
) -> dict[str, Tensor]:
    """Values of a component's variables, with samples first, in the shapes that sites have in the program."""
    found = {}
    for name, (names, each) in values.items():
        site = integral.latents[name]
        _, each = in_shape(site, names[1:], each, chosen.written, lead=1)
        found[name] = each.reshape([*each.shape[:-1], *site.fn.event_shape])
    return found
