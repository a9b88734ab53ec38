"""Draws with importance weights, and what can be read off them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor

from sumout.errors import ImpossibleEvidenceError
from sumout.infer.sampling.psis import Smoothed, psis


class WeightedSamples(Mapping[str, Tensor]):
    """Draws of a guide with their importance weights: name of site to values, the samples along dimension 0.

    Attributes:
        samples: what the guide drew.
        log_weights: ``log p(x, z) - log q(z)`` of each draw ``z``, shape ``(num_samples,)``.
        auxiliary: the names of sites that the guide has for itself.
    """

    def __init__(
        self, samples: Mapping[str, Tensor], log_weights: Tensor, auxiliary: Collection[str] = ()
    ) -> None:
        self.samples = dict(samples)
        self.log_weights = log_weights
        self.auxiliary = frozenset(auxiliary)

    def __getitem__(self, name: str) -> Tensor:
        return self.samples[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def log_evidence(self) -> Tensor:
        """The logarithm of the mean weight, which estimates the evidence without bias; a scalar with a gradient."""
        return torch.logsumexp(self.log_weights, 0) - math.log(len(self.log_weights))

    @property
    def normalized_log_weights(self) -> Tensor:
        """Log-weights that sum to one as weights, shape ``(num_samples,)``.

        Raises:
            ImpossibleEvidenceError: if all weights are zero.
        """
        total = torch.logsumexp(self.log_weights, 0)
        if total == -math.inf:
            raise ImpossibleEvidenceError(
                f"All {len(self.log_weights)} weights are zero: the guide drew nothing that the model holds possible."
            )
        return self.log_weights - total

    @property
    def ess(self) -> Tensor:
        """The effective sample size, one over the sum of the squared weights: so many posterior draws tell as much.

        Source: Kong, *A note on importance sampling using standardized weights* (1992).
        """
        return (-torch.logsumexp(2 * self.normalized_log_weights, 0)).exp()

    @cached_property
    def psis(self) -> Smoothed:
        """Pareto-smoothed weights and their diagnostic, ``psis.pareto_k``; see ``sumout.infer.psis``."""
        return psis(self.log_weights)

    def expectation(self, function: Callable[..., Tensor], *, smoothed: bool = False) -> Tensor:
        """The weighted mean of a function of the values.

        Args:
            function: takes the values as keyword arguments, samples first, and gives a tensor with samples first.
            smoothed: whether Pareto-smoothed weights are taken.
        """
        logs = self.psis.log_weights if smoothed else self.normalized_log_weights
        found = function(**self.samples)
        mean: Tensor = torch.tensordot(logs.exp().to(found.dtype), found, 1)
        return mean

    def resample(self, num_samples: int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draws with equal weights, taken from these with replacement, without auxiliary sites: for ``Predictive``."""
        places = torch.multinomial(
            self.normalized_log_weights.detach().exp(), num_samples, replacement=True, generator=generator
        )
        return {name: value[places] for name, value in self.samples.items() if name not in self.auxiliary}

    def __repr__(self) -> str:
        evidence = float(self.log_evidence.detach())
        told = (
            f"{len(self.log_weights)} of {', '.join(self.samples) or 'no site'}; log evidence {evidence:.6g}"
        )
        if evidence > -math.inf:
            ess = float(self.ess.detach())
            told += f", effective sample size {ess:.1f}, Pareto k {self.psis.pareto_k:.2f}"
        return f"WeightedSamples({told})"
