"""Whether quadratic forms keep enough digits, where noise is much smaller than what it is noise of.

A form with precisions ``p`` and ``q`` loses the digits of ``p / q`` when a variable is integrated out of it. Residuals
lose half as many; so factors are kept by these where precisions are far apart.

Source: Bierman, *Factorization Methods for Discrete Sequential Estimation* (1977), chapter 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sumout.lower.collapse.gaussian import GaussianFactor, Parts

_LOST = 1e-9
"""The relative error of precisions that is too much."""


def lose_digits(factors: Sequence[Parts | GaussianFactor]) -> bool:
    """Whether the largest precision of factors that tie variables together is too large beside the smallest of all."""
    of_shape: dict[torch.Size, list[Tensor]] = {}  # There may be thousands of them.
    for factor in factors:
        if isinstance(factor, Parts):
            precision = factor.precision.detach()
        else:
            precision = factor.table.table.detach()[..., 1:, 1:]
        of_shape.setdefault(precision.shape, []).append(precision)
    largest, smallest, eps = 0.0, math.inf, 0.0
    for shape, precisions in of_shape.items():
        if 0 in shape:
            continue
        own = torch.stack(precisions).diagonal(dim1=-2, dim2=-1)
        own = own[own > 0]
        if own.numel():
            smallest = min(smallest, float(own.min()))
            eps = torch.finfo(own.dtype).eps
            if shape[-1] > 1:
                largest = max(largest, float(own.max()))
    return largest * eps > _LOST * smallest
