"""The guide's part of an evidence lower bound, with gradients through values and through probabilities.

For a guide ``q`` with parameters ``φ`` and an integrand ``f(z) = log p(x, z) - log q(z)``, the gradient of
``E[f]`` has two unbiased forms, site by site: *pathwise*, where the value is a differentiable function of ``φ``;
and the *score function*, ``E[cost · ∇ log q(site)]``, where it is not (Ranganath, Gerrish and Blei, 2014, eq. 2).
A cost may leave out every term that does not depend on the site (eq. 5): here the terms of other elements of the
site's plates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sumout.effects import CondIndepStackFrame, Message
from sumout.infer.objectives.pair import cost, frames

Frames = frozenset[CondIndepStackFrame]


class PlateCosts:
    """A sum of terms that live in different plates.

    >>> data = CondIndepStackFrame("data", -1, 3)
    >>> costs = PlateCosts([(frozenset([data]), torch.tensor([1.0, 2.0, 3.0])), (frozenset(), torch.tensor(10.0))])
    >>> costs.seen_from(frozenset([data])), costs.seen_from(frozenset())
    (tensor([11., 12., 13.]), tensor([16.]))
    """

    def __init__(self, terms: Iterable[tuple[Frames, Tensor]]) -> None:
        self._terms: dict[Frames, Tensor] = {}
        for plates, term in terms:
            self._terms[plates] = self._terms[plates] + term if plates in self._terms else term

    def seen_from(self, plates: Frames) -> Tensor | float:
        """The sum over all plates but the given ones; its shape broadcasts with that of a site in these."""
        total: Tensor | float = 0.0
        for own, term in self._terms.items():
            left = [frame.dim for frame in own - plates if frame.dim is not None and term.dim() >= -frame.dim]
            total = total + (term.sum(left, keepdim=True) if left else term)
        return total


class _WithGradientOf(torch.autograd.Function):
    """The first argument, with the gradients of both: nothing is added to the value, not even ``inf - inf``."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, other: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], grads[0]


def subtract_guide(
    log_model: Tensor, guide: Iterable[Message], model_costs: Callable[[], Iterable[tuple[Frames, Tensor]]]
) -> Tensor:
    """``log_model - log q``, a scalar whose gradient is an unbiased estimate of its expectation's gradient.

    Args:
        log_model: the model's part, a scalar.
        guide: the sample sites of the guide's trace.
        model_costs: gives the terms of ``log_model``; called if there is a site without a pathwise gradient.
    """
    guide = list(guide)
    elbo = log_model
    by_score: list[tuple[Message, Tensor]] = []
    entropies: list[Tensor] = []
    for site in guide:
        log_q, score, entropy = site["score_parts"]
        if _is_zero(score):
            elbo = elbo - log_q.sum()
            continue
        elbo = elbo - log_q.sum().detach()
        by_score.append((site, score))
        if not _is_zero(entropy):
            entropies.append(entropy.sum())
    if not by_score or not torch.is_grad_enabled():
        return elbo
    costs = PlateCosts(
        (plates, term.detach())
        for plates, term in (*model_costs(), *((plates, -term) for plates, term in map(cost, guide)))
    )
    scores = [(score * costs.seen_from(frames(site))).sum() for site, score in by_score]
    surrogate: Tensor = torch.stack(scores).sum() - sum(entropies)
    return _WithGradientOf.apply(elbo, surrogate)  # type: ignore[no-untyped-call, no-any-return]


def _is_zero(term: Tensor | float) -> bool:
    return isinstance(term, (int, float)) and term == 0
