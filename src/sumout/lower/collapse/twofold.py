"""What an affine function is at a point, to twice the digits of what it is computed in.

Near the posterior mean residuals are small differences of what may be large, by many units of a small noise: the sum of
rounded products is off by the digits of the largest. The rounding errors of products and sums are numbers themselves.

Source: Ogita, Rump and Oishi, *Accurate Sum and Dot Product* (2005), algorithm 5.3; Dekker (1971) for the products.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sumout.effects.delayed import Delayed

_SPLIT = 2.0**27 + 1.0
"""Halves the digits of a double."""

_MANY = 2**21
"""Numbers that are looked at together."""


def at_point(value: Delayed, point: Mapping[str, Tensor]) -> Tensor:
    """``value.at(point)``, whose rounding errors are no larger than those of its own last digit; in double precision.

    >>> x = Delayed.of_site("x", torch.zeros(2, dtype=torch.float64))
    >>> y = 0.1 * x[0] - x[1]
    >>> point = {"x": torch.tensor([1e17, 1e16], dtype=torch.float64)}
    >>> y.at(point), at_point(y, point)  # A tenth is no double: it is off by 5.55e-18.
    (tensor(0., dtype=torch.float64), tensor(0.5551, dtype=torch.float64))
    """
    plain = value.at(point)
    with torch.no_grad():
        total, error = value.const.double(), torch.zeros((), dtype=torch.float64, device=plain.device)
        for link in value.links:
            coef, entries = link.coef.double(), point[link.site].double().reshape(-1)
            few = max(1, _MANY // max(1, plain.numel()))
            for start in range(0, link.terms, few):
                chosen = entries[link.where[start : start + few].clamp(min=0)]
                products, rounded = _product(coef[start : start + few], chosen)
                error = error + rounded.sum(0)
                while len(products) > 1:
                    if len(products) % 2:
                        products = torch.cat([products, products.new_zeros(products[:1].shape)])
                    products, rounded = _sum(products[::2], products[1::2])
                    error = error + rounded.sum(0)
                total, rounded = _sum(total, products[0])
                error = error + rounded
        missing = (total - plain) + error
    # Where numbers are too large to be halved nothing is better known.
    return plain + torch.where(missing.isfinite(), missing, 0.0)


def _sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A rounded sum, and what is missing."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A rounded product, and what is missing."""
    product = a * b
    (high, low), (other, rest) = _halves(a), _halves(b)
    return product, low * rest - (((product - high * other) - low * other) - high * rest)


def _halves(a: Tensor) -> tuple[Tensor, Tensor]:
    large = _SPLIT * a
    high = large - (large - a)
    return high, a - high
