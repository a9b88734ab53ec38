"""Stable variables as functions of one uniform and one exponential variable.

Both functions are smooth in all arguments. ``u`` is uniform on ``(-pi/2, pi/2)``, ``e`` exponential of rate one;
all arguments broadcast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_PI = math.pi / 2
_NEAR = 1e-2
"""Below it, the first terms of a power series are exact in double precision and quotients of small numbers not."""


def standard_stable(stability: Tensor, skew: Tensor, u: Tensor, e: Tensor) -> Tensor:
    """A variable of the standard stable law ``S0(stability, skew, 1, 0)``, for stability in (0, 2].

    Chambers, Mallows, Stuck (1976), "A Method for Simulating Stable Random Variables", in the parametrization of
    Nolan (1997), "Numerical calculation of stable densities and distribution functions", that is continuous at
    stability 1. With ``d = 1 - stability``, ``b = skew * cot(pi d / 2)``, the method gives::

        (sin((1 - d) u) + b cos((1 - d) u)) / cos(u) * q**(d / stability) - b,
        q = (cos(d u) + b sin(d u)) / (e cos(u))

    where ``b`` grows without bound as ``d`` goes to zero. The terms are ordered here such that ``b`` is only met
    in products that stay finite: ``b sin(d u)``, ``b (q**(d / stability) - 1)``.

    >>> zero = torch.zeros((), dtype=torch.float64)
    >>> one = torch.ones_like(zero)
    >>> cauchy = standard_stable(one, zero, torch.tensor([-0.5, 0.5], dtype=torch.float64), one)
    >>> bool(torch.allclose(cauchy, torch.tensor([-0.5, 0.5], dtype=torch.float64).tan()))
    True
    """
    u, e = _inside(u, e)
    d = 1 - stability
    cos_u, tan_u = u.cos(), u.tan()
    cos_du, sin_du_by_d = (d * u).cos(), u * _sinc(d * u)
    b_times_d = skew * _cot_times(d)
    b_sin_du = b_times_d * sin_du_by_d
    limits = torch.finfo(u.dtype)
    log_q = (cos_du + b_sin_du).clamp(min=limits.tiny).log() - e.log() - cos_u.log()
    # Tails are so heavy that powers overflow; sums of infinite terms would be no numbers.
    power = (d / stability * log_q).clamp(max=math.log(limits.max) / 2)
    # cos((1 - d) u) / cos(u) = cos(d u) + tan(u) sin(d u)
    ratio = cos_du + tan_u * d * sin_du_by_d
    plain = (stability * u).sin() / cos_u * power.exp()
    skewed = b_times_d * log_q / stability * _relative_exp(power) * ratio
    return plain + skewed + b_sin_du * (tan_u - (d * u / 2).tan())


def log_positive_stable(index: Tensor, u: Tensor, e: Tensor) -> Tensor:
    """The logarithm of the positive variable ``s`` with ``E exp(-t s) = exp(-t**index)``, for index in (0, 1].

    Kanter (1975), "Stable Densities Under Change of Scale and Total Variation Inequalities", corollary 4.1. A
    normal of variance ``2 s`` is symmetric stable with stability ``2 * index``.

    >>> one = torch.ones(())
    >>> log_positive_stable(one, torch.tensor(0.3), one).abs().item() < 1e-6  # the constant one
    True
    """
    u, e = _inside(u, e)
    angle, rest = u + HALF_PI, 1 - index
    tiny = torch.finfo(u.dtype).tiny
    tail = (rest * angle).sin().clamp(min=tiny).log() - e.log()
    return (index * angle).sin().log() - u.cos().log() / index + rest / index * tail


def skew_shift(stability: Tensor, skew: Tensor) -> Tensor:
    """``(sign(skew) |skew|**(1 / stability) - skew) * tan(pi stability / 2)``, continued to stability 1.

    >>> at_one = skew_shift(torch.ones(()), torch.tensor(0.5))
    >>> torch.allclose(at_one, torch.tensor(0.5 * math.log(0.5) * 2 / math.pi))
    True
    """
    d = 1 - stability
    log_skew = skew.abs().log()
    return skew * _cot_times(d) * log_skew / stability * _relative_exp(d / stability * log_skew)


def _inside(u: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Without the endpoints, which floating-point draws may hit."""
    limits = torch.finfo(u.dtype)
    return u.clamp(min=2 * limits.eps - HALF_PI, max=HALF_PI - 2 * limits.eps), e.clamp(min=limits.eps)


def _cot_times(d: Tensor) -> Tensor:
    """``d * cot(pi d / 2)``."""
    return (HALF_PI * d).cos() / (HALF_PI * _sinc(HALF_PI * d))


def _sinc(x: Tensor) -> Tensor:
    """``sin(x) / x``."""
    near = x.abs() < _NEAR
    far = x.masked_fill(near, 1.0)
    square = x * x
    series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42))
    return torch.where(near, series, far.sin() / far)


def _relative_exp(x: Tensor) -> Tensor:
    """``(exp(x) - 1) / x``."""
    near = x.abs() < _NEAR
    far = x.masked_fill(near, 1.0)
    series = 1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6))))
    return torch.where(near, series, far.expm1() / far)
