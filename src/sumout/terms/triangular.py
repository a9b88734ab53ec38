"""Orthogonal transformations of rows of residuals, with derivatives that exist where the rows do not tell everything.

Source: Cox and Higham, *Stability of Householder QR factorization for weighted least squares problems* (1998), for the
order of the rows.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from sumout.errors import ModelError

_LOST = 1e-8
"""The relative error of a posterior standard deviation that is too much."""


def triangular(table: Tensor, gone: int) -> Tensor:
    """``R`` of ``table = Q R``, with orthonormal ``Q``: the first ``gone`` columns cleared from all but as many rows.

    Derivatives are those of what does not depend on a rotation of the other rows. So they exist even where these do not
    tell all of the other variables, as it is with conditional distributions.

    Args:
        table: shape ``(*batch, rows, columns)``.
        gone: how many columns are linearly independent; the others may be any.

    Returns:
        Shape ``(*batch, min(rows, columns), columns)``.

    Raises:
        torch.linalg.LinAlgError: if they are not, or nearly so that they have lost their digits.
    """
    found: Tensor = _Triangular.apply(table, gone)  # type: ignore[no-untyped-call]
    return found


class _Triangular(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, gone: int) -> Tensor:
        # Large rows first: then small ones lose nothing to them.
        order = given[..., : max(gone, given.shape[-1] - 1)].abs().sum(-1).argsort(-1, descending=True)
        table = given.take_along_dim(order.unsqueeze(-1), -2)
        packed, tau = torch.geqrf(table)
        _check(table, packed, tau, gone)
        ctx.gone = gone
        ctx.save_for_backward(given, order, packed, tau)
        return packed[..., : min(packed.shape[-2:]), :].triu()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        given, order, packed, tau = ctx.saved_tensors
        gone = ctx.gone
        size, columns = packed.shape[-2:]
        rank = min(size, columns)
        found = packed[..., :rank, :].triu()
        if gone:
            root, cross, left = found[..., :gone, :gone], found[..., :gone, gone:], found[..., gone:, gone:]
            of_root, of_cross, of_left = (
                grad[..., :gone, :gone],
                grad[..., :gone, gone:],
                grad[..., gone:, gone:],
            )
            inner = of_root.triu() @ root.mT
            turned = cross @ of_cross.mT - inner
            inner = inner + (turned - turned.mT).tril(-1)
            first = torch.cat([inner, left @ of_cross.mT - of_left @ cross.mT], -2)
            first = torch.linalg.solve_triangular(root.mT, first, upper=False, left=False)
            grad = torch.cat([first, torch.cat([of_cross, of_left], -2)], -1)
        grad = _rotated(packed, tau, F.pad(grad, (0, 0, 0, size - rank)))
        found = torch.zeros_like(grad).scatter(-2, order.unsqueeze(-1).expand_as(grad), grad)
        return (_Last.apply(found, given) if torch.is_grad_enabled() else found), None  # type: ignore[no-untyped-call]


class _Last(torch.autograd.Function):
    """A derivative that has none itself: it would depend on how rows are rotated."""

    @staticmethod
    def forward(ctx: Any, found: Tensor, given: Tensor) -> Tensor:
        return found.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> NoReturn:
        raise ModelError(
            "Second derivatives were asked for of an integral over Gaussian sites whose deviations differ by orders of "
            "magnitude, and it has first ones only. Give vague priors deviations of at most a thousand times the noise."
        )


def _rotated(packed: Tensor, tau: Tensor, table: Tensor) -> Tensor:
    """``Q`` times a table of as many rows."""
    if not tau.shape[-1] or not table.numel():
        return table
    return torch.ormqr(packed, tau, table)


def _check(table: Tensor, packed: Tensor, tau: Tensor, gone: int) -> None:
    """Raises ``LinAlgError`` if rounding of a table's entries matters for the independence of its first columns."""
    if not gone or not table.numel():
        return
    size = table.shape[-2]
    unit = torch.eye(size, gone, dtype=table.dtype, device=table.device).expand(*table.shape[:-2], size, gone)
    weight = table[..., :gone].norm(dim=-1, keepdim=True)
    error = (_rotated(packed, tau, unit.contiguous()) * weight).norm(dim=-2)
    error = error * torch.finfo(table.dtype).eps
    if bool((error >= _LOST * packed.diagonal(dim1=-2, dim2=-1)[..., :gone].abs()).any()):
        raise torch.linalg.LinAlgError("columns that depend on each other")  # type: ignore[attr-defined]
