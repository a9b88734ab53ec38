"""Pareto-smoothed importance sampling: how far weights can be trusted, and weights that can be trusted further."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.errors import ModelError


class Smoothed(NamedTuple):
    """Smoothed importance weights.

    Attributes:
        log_weights: normalised to a sum of one, shape of the raw weights ``(samples,)``.
        pareto_k: the shape of the tail. Weights have ``1 / pareto_k`` finite moments.
        threshold: what ``pareto_k`` should not exceed: ``min(1 - 1 / log10(samples), 0.7)``.
    """

    log_weights: Tensor
    pareto_k: float
    threshold: float

    @property
    def reliable(self) -> bool:
        """Whether estimates from these weights can be trusted."""
        return self.pareto_k <= self.threshold

    @property
    def ess(self) -> float:
        """The effective sample size: how many independent draws from the posterior are worth as much."""
        return math.exp(-float(torch.logsumexp(2 * self.log_weights, 0)))


def psis(log_weights: Tensor, r_eff: float = 1.0) -> Smoothed:
    """Replaces the largest importance weights by quantiles of a generalized Pareto distribution fitted to them.

    Args:
        log_weights: of independent draws, not normalised, shape ``(samples,)``.
        r_eff: for draws of MCMC, their effective number over their number.

    Returns:
        ``Smoothed``. With fewer than 5 weights in the tail there is nothing to fit: ``pareto_k`` is infinite. It is
        ``-inf`` where the largest weights are equal, so that there is no tail.

    Raises:
        ModelError: if the weights are no vector, are NaN or infinite, or all zero.

    >>> torch.manual_seed(0); weights = torch.rand(2000, dtype=torch.float64) ** -0.5  # tail of index 2
    <torch._C.Generator object at ...>
    >>> smoothed = psis(weights.log())
    >>> 0.3 < smoothed.pareto_k < 0.7, smoothed.reliable
    (True, True)

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, *Pareto smoothed importance sampling* (2024), sections 2.4 and 3.2;
    the fit is that of Zhang and Stephens, *A new and efficient estimation method for the generalized Pareto
    distribution* (2009), with the prior of the former's appendix C.
    """
    if log_weights.dim() != 1 or not len(log_weights):
        raise ModelError(
            f"psis takes a vector of log-weights and was given shape {tuple(log_weights.shape)}."
        )
    logs = log_weights.detach().cpu().double()
    if bool(logs.isnan().any() | logs.isposinf().any()):
        raise ModelError(
            "psis was given a log-weight that is NaN or infinite: a log-probability is not a number."
        )
    count = len(logs)
    if bool(logs.isneginf().all()):
        raise ModelError("All weights are zero: the guide draws nothing that the model holds possible.")
    logs = logs - logs.amax()
    size = math.ceil(min(0.2 * count, 3 * math.sqrt(count / r_eff)))
    threshold = min(1 - 1 / math.log10(count), 0.7) if count > 1 else -math.inf
    k = math.inf
    if 5 <= size < count:
        order = logs.argsort()
        places = order[count - size :]
        cutoff = max(float(logs[order[count - size - 1]]), math.log(torch.finfo(torch.float64).tiny))
        places = places[logs[places] > cutoff]
        if not len(places):
            k = -math.inf
        elif len(places) >= 5:
            excesses = logs[places].exp() - math.exp(cutoff)
            k, scale = fit_pareto(excesses)
            if math.isfinite(k):
                n = len(places)
                quantiles = (torch.arange(n, dtype=torch.float64) + 0.5) / n
                smooth = pareto_quantile(quantiles, k, scale) + math.exp(cutoff)
                logs[places] = smooth.clamp(max=1.0).log()
    return Smoothed((logs - logs.logsumexp(0)).to(log_weights), k, threshold)


def fit_pareto(excesses: Tensor) -> tuple[float, float]:
    """Shape and scale of a generalized Pareto distribution.

    Args:
        excesses: what exceeds the threshold, ascending, positive; shape ``(number,)``.

    Source: Zhang and Stephens (2009), eqs. 2 to 4: the mean of ``θ = -k / scale`` under its profile likelihood and a
    prior from the data; ``k`` is then drawn a little towards 0.5, by as much as ten further data would.
    """
    n = len(excesses)
    grid = 30 + int(math.sqrt(n))
    steps = torch.arange(1, grid + 1, dtype=excesses.dtype, device=excesses.device)
    quartile = excesses[int(n / 4 + 0.5) - 1]
    theta = 1 / excesses[-1] + (1 - (grid / (steps - 0.5)).sqrt()) / (3 * quartile)
    k = torch.log1p(-theta.unsqueeze(-1) * excesses).mean(-1)
    profile = n * ((-theta / k).log() - k - 1)
    mean = float((torch.softmax(profile, 0) * theta).sum())
    shape = float(torch.log1p(-mean * excesses).mean())
    scale = -shape / mean
    return (n * shape + 10 * 0.5) / (n + 10), scale


def pareto_quantile(probs: Tensor, k: float, scale: float) -> Tensor:
    """Quantiles of the generalized Pareto distribution of shape ``k``.

    >>> pareto_quantile(torch.tensor([0.0, 0.75]), 0.5, 1.0)
    tensor([0., 2.])
    """
    if abs(k) < 1e-12:
        return -scale * torch.log1p(-probs)
    return scale * torch.expm1(-k * torch.log1p(-probs)) / k
