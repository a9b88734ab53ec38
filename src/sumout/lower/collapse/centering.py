"""Large numbers taken out of factors before they are squared.

What data say of a mean is a difference of squares: of numbers around ``m`` with noise ``s`` it loses the digits of
``(m / s) ** 2``. The integral is the same over deviations from any point; near the posterior mean these are small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sumout.effects.delayed import Delayed
from sumout.effects.steps import names_in_loop, unrolled_step
from sumout.lower.collapse.alike import NormalSite, members_of
from sumout.lower.collapse.assembly import component_or_filter
from sumout.lower.collapse.chains import single_steps
from sumout.lower.collapse.component import Center, Component
from sumout.lower.collapse.filters import Filter
from sumout.lower.collapse.layout import extents, in_shape
from sumout.lower.collapse.sites import CollapsedSite
from sumout.lower.collapse.twofold import at_point
from sumout.terms.gaussian import Root

_DIGITS = 1e-10
"""The error that squares may cause, relative to the logarithm of the evidence."""


def integral_of(
    members: Sequence[NormalSite],
    latents: Mapping[str, CollapsedSite],
    discrete: Mapping[str, frozenset[str]],
    dtype: torch.dtype,
) -> tuple[Component | Filter, Tensor]:
    """Gaussian sites integrated, with the logarithm of the integral; over deviations where that matters."""
    solved = component_or_filter(members_of(members, latents, dtype), latents, discrete)
    table = solved.log_evidence()
    center = _center(solved, table, latents)
    if not center:
        return solved, table
    near = centered(members, _of_sites(center, solved, latents))
    solved = component_or_filter(members_of(near, latents, dtype), latents, discrete)
    table = solved.log_evidence()
    return solved.centered(center), table


def center_of(
    solved: Component, log_evidence: Tensor, latents: Mapping[str, CollapsedSite]
) -> dict[str, Tensor] | None:
    """A point from which deviations are small, one value for each delayed site; ``None`` if that is not needed."""
    center = _center(solved, log_evidence, latents)
    return _of_sites(center, solved, latents) if center else None


def _center(
    solved: Component | Filter, log_evidence: Tensor, latents: Mapping[str, CollapsedSite]
) -> dict[str, Center]:
    """A point from which deviations are small; none if that is not needed."""
    with torch.no_grad():
        scale = 1 + log_evidence.abs().max()
        squares = solved.squares()
        if isinstance(solved, Component) and isinstance(solved.factors[0], Root):
            squares = (squares * scale).sqrt()  # What is small is not a difference of squares.
        if not bool(squares * torch.finfo(log_evidence.dtype).eps > _DIGITS * scale):
            return {}
        found = {}
        singles = single_steps(latents)
        whole = solved.component if isinstance(solved, Filter) else solved
        lead = len(whole.batch)
        for name, (names, mean, _) in whole.moments().items():
            plates = tuple([each for each in names[:lead] if each in extents(singles[name])])
            gone = [place for place, each in enumerate(names[:lead]) if each not in plates]
            mean = mean.mean(gone) if gone else mean
            # In the precision that the site's value has in the program.
            found[name] = (*plates, *names[lead:]), mean.to(singles[name].value.dtype).to(mean.dtype)
        return found


def _of_sites(
    center: Mapping[str, Center], solved: Component | Filter, latents: Mapping[str, CollapsedSite]
) -> dict[str, Tensor]:
    """The same in the shapes of the sites' values, of which some have all steps of a chain."""
    written = solved.component.written if isinstance(solved, Filter) else solved.written
    singles = single_steps(latents)
    found = {}
    for name, site in latents.items():
        steps = [
            in_shape(singles[each], home, point, written)[1]
            for each in names_in_loop(site.message)
            for home, point in (center[each],)
        ]
        if len(steps) == 1 and site is singles.get(name):
            found[name] = steps[0].reshape(site.value.shape)
            continue
        step = unrolled_step(site.message)
        assert step is not None
        assert step.dim is not None
        axis = site.value.dim() + step.dim - len(site.fn.event_shape)
        shape = [1 if place == axis else size for place, size in enumerate(site.value.shape)]
        found[name] = torch.cat([each.reshape(shape) for each in steps], axis)
    return found


def centered(members: Sequence[NormalSite], center: Mapping[str, Tensor]) -> list[NormalSite]:
    """The same sites in terms of deviations from a point."""
    found = []
    for site, form in members:
        residual = form.residual
        if isinstance(residual, Delayed):
            shift = at_point(residual, {name: center[name].double() for name in residual.sites})
            form = form._replace(residual=Delayed.made(residual.probe, residual.links, shift))
        found.append((site, form))
    return found
