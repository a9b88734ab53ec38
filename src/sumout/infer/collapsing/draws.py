"""Joint posterior samples of collapsed sites."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.conjugacy import INVERSE
from sumout.distributions.families import innermost
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.common_matrix import CommonMatrix, first_entry
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
        return _of_matrix(integral, solution, count, states)
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
    value = _sampled(fn)
    return value, fn.log_prob(value).reshape(count, -1).sum(1)


def _sampled(fn: Any) -> Tensor:
    """One sample; that of a Wishart distribution by the decomposition of Bartlett (1933), as torch's warns always."""
    found: Tensor
    if not isinstance(fn, dist.Wishart):
        found = fn.sample()
        return found
    root = fn.scale_tril.detach()
    size = root.shape[-1]
    freedom = fn.df.detach().unsqueeze(-1) - torch.arange(size, dtype=root.dtype, device=root.device)
    diagonal = dist.Chi2(freedom).sample().sqrt()
    factor = root @ (torch.randn_like(root).tril(-1) + diagonal.diag_embed())
    found = factor @ factor.mT
    return found


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


def _of_matrix(integral: Integral, solution: CommonMatrix, count: int, states: Mapping[str, States]) -> Draws:
    """Samples of the matrix ``W``, and of vectors given it.

    Entry by entry, deviations from the vectors' means are independent given ``W = I``; times a root of its inverse they
    are what they are given ``W``.
    """
    latent = solution.factor.latent
    matrix, log_prob = _of_star(solution.factor, count, states)
    root = torch.linalg.inv(torch.linalg.cholesky(matrix)).mT  # of the inverse
    means: dict[str, list[Tensor]] = {}
    noises: dict[str, list[Tensor]] = {}
    for each in solution.entries:
        chosen = each.in_states(count, states)
        drawn = chosen.draws()
        homes = {name: names for name, (names, _) in drawn.items()}
        density = chosen.log_density(homes, {name: value for name, (_, value) in drawn.items()})
        log_prob = log_prob + (density - chosen.log_evidence()).reshape(count, -1).sum(1)
        for name, (names, mean, _) in chosen.moments().items():
            site = first_entry(integral.latents[name])
            center = in_shape(site, names[1:], mean.detach(), chosen.written, lead=1)[1][..., 0]
            value = in_shape(site, homes[name][1:], drawn[name][1], chosen.written, lead=1)[1][..., 0]
            means.setdefault(name, []).append(center)
            noises.setdefault(name, []).append(value - center)
    values = {latent.name: matrix}
    for name, parts in noises.items():
        noise = torch.stack(parts, -1)
        batch = noise.shape[1:-1]
        shape = [count, *[1] * (len(batch) - (root.dim() - 3)), *root.shape[1:]]
        spread = root.reshape(shape)
        values[name] = torch.stack(means[name], -1) + (spread @ noise.unsqueeze(-1)).squeeze(-1)
        widths = spread.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_prob = log_prob - widths.expand([count, *batch]).reshape(count, -1).sum(1)
    return Draws(values, log_prob)


def means_by_entry(
    integral: Integral, solution: CommonMatrix, count: int, states: Mapping[str, States]
) -> dict[str, Tensor]:
    """The posterior means of vectors with an unknown precision matrix, in each sample."""
    found: dict[str, list[Tensor]] = {}
    for each in solution.entries:
        chosen = each.in_states(count, states)
        for name, (names, mean, _) in chosen.moments().items():
            site = first_entry(integral.latents[name])
            entry = in_shape(site, names[1:], mean.detach(), chosen.written, lead=1)[1][..., 0]
            found.setdefault(name, []).append(entry)
    return {name: torch.stack(parts, -1) for name, parts in found.items()}


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
