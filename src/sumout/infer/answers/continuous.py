"""Continuous distributions as rows of a table: their families, means and standard deviations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import sumout.distributions as dist

_ROWS = 12
_ENTRIES = 6
_MOST_CORRELATED = 4


def moments_of(marginal: Any) -> Iterator[tuple[str, str]]:
    """For each element of a batch its index, and the family with mean and standard deviation.

    >>> list(moments_of(dist.Gamma(torch.tensor([2.0, 8.0]), 4.0)))
    [('0', 'Gamma  mean 0.5000  sd 0.3536'), ('1', 'Gamma  mean 2.0000  sd 0.7071')]
    """
    family = _family(marginal)
    mean, variance, correlations = mean_of(marginal), variance_of(marginal), correlations_of(marginal)
    batch = marginal.batch_shape
    for number in range(min(batch.numel(), _ROWS)):
        index = tuple(
            [int(each) for each in torch.unravel_index(torch.tensor(number), batch)] if batch else []
        )
        text = family
        if mean is not None and variance is not None:
            text += f"  mean {_listed(mean[index])}  sd {_listed(variance[index].sqrt())}"
        if correlations is not None:
            text += f"  corr {_listed(correlations[index])}"
        yield ", ".join(map(str, index)), text
    if batch.numel() > _ROWS:
        yield "...", f"({batch.numel() - _ROWS} more)"


def mean_of(fn: Any) -> Tensor | None:
    """The mean, also where the distribution does not know it; ``None`` if it has no closed form here."""
    if isinstance(fn, dist.InverseGamma):
        shape = fn.concentration
        return torch.where(shape > 1, fn.rate / (shape - 1), math.inf)
    if isinstance(fn, dist.MixtureSameFamily):
        weights, mean = _weights(fn), mean_of(fn.component_distribution)
        return None if mean is None else (weights * mean).sum(-1 - len(fn.event_shape))
    return _known(fn, "mean")


def variance_of(fn: Any) -> Tensor | None:
    """The variance, likewise."""
    if isinstance(fn, dist.InverseGamma):
        shape = fn.concentration
        known = fn.rate**2 / ((shape - 1) ** 2 * (shape - 2))
        return torch.where(shape > 2, known, math.inf)
    if isinstance(fn, dist.MixtureSameFamily):
        mean, each = mean_of(fn.component_distribution), variance_of(fn.component_distribution)
        if mean is None or each is None:
            return None
        place = -1 - len(fn.event_shape)
        weights = _weights(fn)
        center = (weights * mean).sum(place, keepdim=True)
        return (weights * (each + (mean - center) ** 2)).sum(place)
    return _known(fn, "variance")


def covariance_of(fn: Any) -> Tensor | None:
    """The covariance of a normal vector, of one of Student's, or of a mixture of these; ``None`` for others."""
    if isinstance(fn, dist.MixtureSameFamily):
        mean, each = mean_of(fn.component_distribution), covariance_of(fn.component_distribution)
        if mean is None or each is None:
            return None
        weights = _weights(fn)
        off = mean - (weights * mean).sum(-2, keepdim=True)
        return (weights.unsqueeze(-1) * (each + off.unsqueeze(-1) * off.unsqueeze(-2))).sum(-3)
    if isinstance(fn, (dist.MultivariateNormal, dist.MultivariateStudentT)):
        found: Tensor = fn.covariance_matrix.detach()
        return found
    return None


def correlations_of(fn: Any) -> Tensor | None:
    """The correlations of each entry with those behind it, of vectors of few entries; ``None`` for others."""
    covariance = covariance_of(fn)
    if covariance is None or not 1 < covariance.shape[-1] <= _MOST_CORRELATED:
        return None
    first, second = torch.triu_indices(covariance.shape[-1], covariance.shape[-1], 1)
    spread = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    found: Tensor = covariance[..., first, second] / (spread[..., first] * spread[..., second])
    return found if found.shape[-1] > 1 else found.squeeze(-1)


def states_of(fn: Any) -> Tensor | None:
    """The probabilities of few states, last; ``None`` for what is better told by its mean."""
    if isinstance(fn, dist.MixtureSameFamily):
        each = states_of(fn.component_distribution)
        probs: Tensor = fn.mixture_distribution.probs.detach()
        return None if each is None else (probs.unsqueeze(-1) * each).sum(-2)
    if isinstance(fn, dist.Bernoulli):
        return torch.stack([1 - fn.probs.detach(), fn.probs.detach()], -1)
    return fn.probs.detach() if isinstance(fn, (dist.Categorical, dist.OneHotCategorical)) else None


def _known(fn: Any, what: str) -> Tensor | None:
    try:
        found: Tensor = getattr(fn, what).detach()
    except (NotImplementedError, AttributeError):
        return None
    return found


def _weights(fn: Any) -> Tensor:
    probs: Tensor = fn.mixture_distribution.probs.detach()
    return probs.reshape(*probs.shape, *[1] * len(fn.event_shape))


def _family(fn: Any) -> str:
    if isinstance(fn, dist.MixtureSameFamily):
        return f"mixture of {fn.mixture_distribution.probs.shape[-1]} {_family(fn.component_distribution)}"
    if type(fn).__name__ == "TransformedDistribution":
        return f"transformed {_family(fn.base_dist)}"
    return type(fn).__name__


def _listed(numbers: Tensor) -> str:
    flat = numbers.reshape(-1).tolist()
    if not numbers.shape:
        return f"{flat[0]:.4f}"
    more = ", ..." if len(flat) > _ENTRIES else ""
    return "[" + ", ".join(f"{each:.4f}" for each in flat[:_ENTRIES]) + more + "]"
