"""The joint mode of collapsed sites, for each joint state of the discrete sites that they depend on.

A most probable assignment takes the maximum over continuous sites where evidence takes the integral: for Gaussian
sites that is at the mean of all together, for a conjugate family at its mode. In general neither is where the best
state of the discrete sites is once the others are integrated out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import innermost
from sumout.errors import ModelError
from sumout.infer.collapsing.draws import chosen_parts, in_program, means_by_entry
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.common_matrix import CommonMatrix
from sumout.lower.collapse.common_scale import CommonScale
from sumout.lower.collapse.component import Component, States
from sumout.lower.collapse.conjugate import Star
from sumout.lower.collapse.layout import extents


def log_peak(integral: Integral) -> Tensor:
    """The logarithm of the largest joint density of a group, with the dimensions of ``log_evidence``.

    Raises:
        ModelError: naming a site whose density has no largest value at one point.
    """
    solution = integral.solution
    if isinstance(solution, Component):
        found = solution.moments()
        homes = {name: each.names for name, each in found.items()}
        return solution.log_density(homes, {name: each.mean for name, each in found.items()})
    star = solution if isinstance(solution, Star) else solution.factor
    extra = 0 if isinstance(solution, Star) else _entries(solution.gaussian)
    mode = _mode(star, star.natural, extra)
    density = _log_density(star, mode, extra)
    if isinstance(solution, CommonScale):
        density = density + _in_star(_log_top(solution.gaussian), solution)
    elif isinstance(solution, CommonMatrix):
        density = density + _in_star(sum(map(_log_top, solution.entries), torch.zeros(())), solution)
    return _reduced(integral, star, star.log_evidence() + density)


def at_peak(integral: Integral, states: Mapping[str, States] = MappingProxyType({})) -> dict[str, Tensor]:
    """The values at the joint mode, of the shapes that sites have in the program.

    Args:
        integral: the group.
        states: of the discrete variables, with a first dimension of size one.
    """
    solution = integral.solution
    if isinstance(solution, Component):
        chosen = solution.in_states(1, states)
        means = {name: (each.names, each.mean) for name, each in chosen.moments().items()}
        return {name: value[0] for name, value in in_program(integral, chosen, means).items()}
    if isinstance(solution, Star):
        return {solution.latent.name: _mode(solution, chosen_parts(solution, 1, states))[0]}
    star = solution.factor
    scale = _mode(star, chosen_parts(star, 1, states), _entries(solution.gaussian))
    found = {star.latent.name: scale[0]}
    if isinstance(solution, CommonMatrix):
        return found | {name: each[0] for name, each in means_by_entry(integral, solution, 1, states).items()}
    chosen = solution.gaussian.in_states(1, states)
    means = {name: (each.names, each.mean) for name, each in chosen.moments().items()}
    return found | {name: value[0] for name, value in in_program(integral, chosen, means).items()}


def _entries(gaussian: Component) -> int:
    """How many numbers the Gaussian sites have together, for each element of the batch."""
    sizes = dict(gaussian.structure.sizes)
    homes = dict(gaussian.structure.variables)
    return sum(
        [count * math.prod(sizes[each] for each in homes[name]) for name, count in gaussian.real.items()]
    )


def _log_top(gaussian: Component) -> Tensor:
    """The logarithm of the Gaussian sites' joint density at their means, of the batch's shape."""
    found = gaussian.moments()
    homes = {name: each.names for name, each in found.items()}
    top = gaussian.log_density(homes, {name: each.mean for name, each in found.items()})
    return top - gaussian.log_evidence()


def _in_star(table: Tensor, solution: CommonScale | CommonMatrix) -> Tensor:
    """From the dimensions of the Gaussian sites to those of the scale's elements."""
    star, batch = solution.factor, solution.gaussian.batch
    plates = extents(star.latent)
    own = [name for name in plates if name in batch]
    lead = [name for name in star.names if name in batch]
    table = table.permute([batch.index(name) for name in (*lead, *own)])
    sizes = dict(zip([*lead, *own], table.shape, strict=True))
    rank = star.latent.value.dim() - star.family.event_dim
    extra = len(star.latent.fn.event_shape) - star.family.event_dim
    shape = [1] * rank
    for name in own:
        shape[rank - extra + plates[name][0]] = sizes[name]
    return table.reshape([*[sizes.get(name, 1) for name in star.names], *shape])


def _mode(star: Star, parts: tuple[Tensor, ...], extra: int = 0) -> Tensor:
    """Where the density of a conjugate family is largest.

    Args:
        star: the site.
        parts: its natural coordinates.
        extra: how many normal numbers, or vectors, have the site as their precision (or variance), and are at their
            means.

    Source: Bernardo and Smith, *Bayesian Theory* (1994), appendix A.1.
    """
    kind = type(innermost(star.latent.fn))
    if kind is dist.InverseGamma:
        shape, rate = parts
        return rate / (shape + 1 + extra / 2)
    if kind is dist.Gamma:
        shape, rate = parts
        shape = shape + extra / 2
        _require(star, bool((shape >= 1).all()), "a shape below 1, and an infinite density at 0")
        return (shape - 1) / rate
    if kind is dist.Pareto:
        return parts[0].exp()
    if kind is dist.Wishart:
        freedom = parts[0] - parts[1].shape[-1] - 1 + extra
        _require(star, bool((freedom > 0).all()), "df of its size + 1 or less, and no largest density inside")
        inverse: Tensor = torch.linalg.inv(parts[1])
        return freedom * inverse
    counts = (torch.stack(parts, -1) if kind is dist.Beta else parts[0]) - 1
    total = counts.sum(-1, keepdim=True)
    _require(
        star,
        bool((counts >= 0).all() and (total > 0).all()),
        "a concentration below 1, and an infinite density at the edge, or all equal to 1, and the same everywhere",
    )
    mode = counts / total
    return mode[..., 0] if kind is dist.Beta else mode


def _require(star: Star, holds: bool, why: str) -> None:
    if not holds:
        kind = type(innermost(star.latent.fn)).__name__
        raise ModelError(
            f"Site {star.latent.name!r} has no most probable value: its posterior is {kind} with {why}. Ask for its "
            "distribution, infer.marginals, or leave it out of collapse: infer={'collapse': False}."
        )


def _log_density(star: Star, mode: Tensor, extra: int) -> Tensor:
    """The logarithm of the posterior density at its mode, which may be at the edge of the support."""
    kind = type(innermost(star.latent.fn))
    parts = star.natural
    if kind is dist.InverseGamma:
        shape, rate = parts
        found = -(shape + 1 + extra / 2) * mode.log() - rate / mode
    elif kind is dist.Gamma:
        shape, rate = parts
        found = torch.xlogy(shape - 1 + extra / 2, mode) - rate * mode
    elif kind is dist.Pareto:
        found = -(parts[1] + 1) * parts[0]
    elif kind is dist.Wishart:
        freedom = parts[0][..., 0, 0] - parts[1].shape[-1] - 1 + extra
        root = torch.linalg.cholesky(mode).diagonal(dim1=-2, dim2=-1)
        found = freedom * root.log().sum(-1) - 0.5 * (parts[1] * mode).sum((-2, -1))
    elif kind is dist.Beta:
        found = torch.xlogy(parts[0] - 1, mode) + torch.xlogy(parts[1] - 1, 1 - mode)
    else:
        found = torch.xlogy(parts[0] - 1, mode).sum(-1)
    return found - star.family.log_normalizer(parts)


def _reduced(integral: Integral, star: Star, table: Tensor) -> Tensor:
    """From one number for each element of the site to the dimensions of the integral."""
    frames = {frame.name: frame for frame in star.latent.inner}
    own = {dim: name for name, (dim, _) in extents(star.latent).items()}
    lead = len(star.names)
    extra = len(star.latent.fn.event_shape) - star.family.event_dim
    rank = table.dim() - lead - extra
    names = list(star.names)
    gone = [lead + rank + place for place in range(extra)]
    for place in range(rank):
        name = own.get(place - rank)
        if name in integral.names:
            names.append(name)
            continue
        gone.append(lead + place)
        if name is not None:
            table = table * frames[name].scale
    table = table.sum(gone) if gone else table
    return table.permute([names.index(name) for name in integral.names])
