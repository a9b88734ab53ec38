"""Gaussian factors as quadratic forms: multiplied by adding them, integrated by Schur complements.

A factor over real variables ``x`` (stacked to one vector of ``D`` entries) is

    log f(x) = rest - 1/2 * [1, x] S [1, x]',

``S`` being symmetric, of shape ``(..., 1 + D, 1 + D)``: its first row holds minus the information vector behind a
constant, what is left the precision. The constant that goes with the data, in ``S``, is kept apart from the normalizing
constants, in ``rest``: that makes an unknown common scale of everything one more variable that can be integrated out.
A factor need not be normalizable: a conditional distribution is not.

Source: Koller and Friedman, *Probabilistic Graphical Models* (2009), section 14.2 (canonical forms).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Quadratic(NamedTuple):
    """A Gaussian factor.

    Attributes:
        form: ``S``, shape ``(*batch, 1 + D, 1 + D)``.
        rest: shape ``batch``.
    """

    form: Tensor
    rest: Tensor


def of_residual(design: Tensor, offset: Tensor, scale_tril: Tensor | None, scale: Tensor | None) -> Quadratic:
    """The factor of a normal residual ``design @ x + offset``.

    Args:
        design: shape ``(*batch, rows, D)``.
        offset: shape ``(*batch, rows)``.
        scale_tril: the Cholesky factor of the covariance, ``(*batch, rows, rows)``; or
        scale: standard deviations, ``(*batch, rows)``.
    """
    joint = torch.cat([offset.unsqueeze(-1), design], -1)
    rows = joint.shape[-2]
    if scale_tril is not None:
        white = torch.linalg.solve_triangular(scale_tril, joint, upper=False)
        log_det = scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    else:
        assert scale is not None
        white = joint / scale.unsqueeze(-1)
        log_det = scale.log().expand(joint.shape[:-1]).sum(-1)
    return Quadratic(white.mT @ white, -log_det - 0.5 * rows * math.log(2 * math.pi))


def integrated(form: Tensor, gone: int) -> tuple[Tensor, Tensor]:
    """The last ``gone`` variables integrated out.

    Returns:
        The form of the others, and what the integral adds to ``rest``.

    Raises:
        torch.linalg.LinAlgError: if the integral diverges.
    """
    kept = form.shape[-1] - gone
    root = torch.linalg.cholesky(form[..., kept:, kept:])
    cross = torch.linalg.solve_triangular(root, form[..., kept:, :kept], upper=False)
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return form[..., :kept, :kept] - cross.mT @ cross, 0.5 * gone * math.log(2 * math.pi) - log_det


def shifted(form: Tensor, mean: Tensor) -> Tensor:
    """The form in ``x - mean``: what the factor is to deviations from ``mean``, shape ``(*batch, D)``."""
    size = form.shape[-1]
    change = (
        torch.eye(size, dtype=form.dtype, device=form.device).expand(*mean.shape[:-1], size, size).clone()
    )
    change[..., 1:, 0] = mean
    return change.mT @ form @ change
