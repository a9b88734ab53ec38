"""Large numbers taken out of quadratic forms before they are squared.

What data say of a mean is a difference of squares: of numbers around ``m`` with noise ``s`` it loses the digits of
``(m / s) ** 2``. The integral is the same over deviations from any point; near the posterior mean these are small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sumout.effects.delayed import Delayed
from sumout.lower.collapse.chains import chains_of
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.layout import in_shape
from sumout.lower.collapse.normal import NormalForm
from sumout.lower.collapse.sites import CollapsedSite

_DIGITS = 1e-10
"""The error that squares may cause, relative to the logarithm of the evidence."""

NormalSite = tuple[CollapsedSite, NormalForm]


def center_of(
    solved: Component, log_evidence: Tensor, latents: Mapping[str, CollapsedSite]
) -> dict[str, Tensor] | None:
    """A point from which deviations are small, one value for each delayed site; ``None`` if that is not needed."""
    with torch.no_grad():
        squares = sum([factor.form[..., 0, 0].abs().sum() for factor in solved.factors], torch.zeros(()))
        error = squares * torch.finfo(log_evidence.dtype).eps
        if not bool(error > _DIGITS * (1 + log_evidence.abs().max())) or chains_of(latents.values()):
            return None
        found = {}
        for name, (names, mean, _) in solved.moments().items():
            site = latents[name]
            chosen, values = in_shape(site, names, mean, solved.written)
            values = values.mean(list(range(len(chosen)))) if chosen else values
            found[name] = values.reshape(site.value.shape)
    return found


def centered(members: Sequence[NormalSite], center: Mapping[str, Tensor]) -> list[NormalSite]:
    """The same sites in terms of deviations from a point."""
    found = []
    for site, form in members:
        residual = form.residual
        if isinstance(residual, Delayed):
            shift = residual.at({name: center[name].double() for name in residual.sites})
            form = form._replace(residual=Delayed.made(residual.probe, residual.links, shift))
        found.append((site, form))
    return found
