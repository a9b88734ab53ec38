"""Families averaged over a conjugate family of their parameter, where Pyro has no such distribution.

Source: Bernardo and Smith, *Bayesian Theory* (1994), appendix A.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions.utils import broadcast_all


class _Compound(dist.TorchDistribution):  # type: ignore[misc]
    """A distribution of single numbers with parameters of one shape, whose names are those of its constraints."""

    def __init__(self, validate_args: bool | None = None, **parameters: Any) -> None:
        values = broadcast_all(*parameters.values())
        for name, value in zip(parameters, values, strict=True):
            setattr(self, name, value)
        super().__init__(values[0].shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        dist.TorchDistribution.__init__(new, torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new


class BetaNegativeBinomial(_Compound):
    """A negative binomial distribution whose success probability ``p`` has a beta distribution.

    ``value`` successes come before the failure number ``total_count``, in the terms of ``NegativeBinomial(total_count,
    probs=p)``; the failures before one success of ``Geometric(p)`` have the distribution
    ``BetaNegativeBinomial(b, a, 1.0)`` for ``p`` of ``Beta(a, b)``.

    Args:
        concentration1: ``a`` of ``Beta(a, b)``, positive.
        concentration0: ``b``, positive. The mean is infinite up to 1, the variance up to 2.
        total_count: the number of failures, positive; need not be whole.

    >>> fn = BetaNegativeBinomial(torch.tensor(2.0), 3.0, 1.0)
    >>> fn.log_prob(torch.arange(3.0)).exp()
    tensor([0.6000, 0.2000, 0.0857])
    >>> fn.mean
    tensor(1.)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
        "total_count": constraints.positive,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self, concentration1: Any, concentration0: Any, total_count: Any, validate_args: bool | None = None
    ) -> None:
        super().__init__(
            validate_args,
            concentration1=concentration1,
            concentration0=concentration0,
            total_count=total_count,
        )

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            p = dist.Beta(self.concentration1, self.concentration0).sample(torch.Size(sample_shape))
            # Successes before failures at odds p / (1 - p) are Poisson with a gamma rate.
            rate = dist.Gamma(self.total_count, (1 - p) / p.clamp(min=torch.finfo(p.dtype).tiny)).sample()
            found: Tensor = torch.poisson(rate)
            return found

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, b, r = self.concentration1, self.concentration0, self.total_count
        choices = torch.lgamma(value + r) - torch.lgamma(value + 1) - torch.lgamma(r)
        return choices + _log_beta(a + value, b + r) - _log_beta(a, b)

    @property
    def mean(self) -> Tensor:
        b = self.concentration0
        return torch.where(b > 1, self.total_count * self.concentration1 / (b - 1), torch.inf)

    @property
    def variance(self) -> Tensor:
        a, b, r = self.concentration1, self.concentration0, self.total_count
        found = r * a * (r + b - 1) * (a + b - 1) / ((b - 2) * (b - 1) ** 2)
        return torch.where(b > 2, found, torch.inf)


class GammaGamma(_Compound):
    """A gamma distribution of known shape whose rate has a gamma distribution; of shape one, a Lomax distribution.

    Args:
        concentration: the shape of the gamma distribution of values, positive.
        prior_concentration: the shape of that of its rate, positive. The mean is infinite up to 1, the variance up
            to 2.
        prior_rate: the rate of that of its rate, positive; the unit of the values.

    >>> fn = GammaGamma(torch.tensor(1.0), 3.0, 2.0)
    >>> fn.log_prob(torch.tensor([0.0, 2.0])).exp()
    tensor([1.5000, 0.0938])
    >>> fn.mean
    tensor(1.)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "concentration": constraints.positive,
        "prior_concentration": constraints.positive,
        "prior_rate": constraints.positive,
    }
    support = constraints.nonnegative

    def __init__(
        self, concentration: Any, prior_concentration: Any, prior_rate: Any, validate_args: bool | None = None
    ) -> None:
        super().__init__(
            validate_args,
            concentration=concentration,
            prior_concentration=prior_concentration,
            prior_rate=prior_rate,
        )

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            rate = dist.Gamma(self.prior_concentration, self.prior_rate).sample(torch.Size(sample_shape))
            found: Tensor = dist.Gamma(self.concentration, rate).sample()
            return found

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        k, a, b = self.concentration, self.prior_concentration, self.prior_rate
        found: Tensor = torch.xlogy(k - 1, value / b) - (k + a) * torch.log1p(value / b) - b.log()
        return found - _log_beta(k, a)

    @property
    def mean(self) -> Tensor:
        a = self.prior_concentration
        return torch.where(a > 1, self.concentration * self.prior_rate / (a - 1), torch.inf)

    @property
    def variance(self) -> Tensor:
        k, a, b = self.concentration, self.prior_concentration, self.prior_rate
        return torch.where(a > 2, k * (k + a - 1) * b**2 / ((a - 1) ** 2 * (a - 2)), torch.inf)


def _log_beta(x: Tensor, y: Tensor) -> Tensor:
    return torch.lgamma(x) + torch.lgamma(y) - torch.lgamma(x + y)
