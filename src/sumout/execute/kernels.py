"""Numerical kernels in log space, on raw tensors; each forward kernel stands beside its adjoint.

Products are taken as matrix products of exponentials, every fibre shifted by its own maximum. Where the
maxima of two operands do not line up, such a product may underflow although the answer is an ordinary
number; entries below a safe threshold are therefore found and the product is made again by log-sum-exp,
so a result is ``-inf`` only where mathematics says so.

All operations are differentiable torch operations, so that a sweep can be differentiated again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.plan.memory import CHUNK

_CHEAP = 16
"""Multiply-adds for an entry that take no longer than an exponential does."""


def finite_max(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """The maximum along ``dim`` (kept), as a shift: constant for gradients, and finite where all is ``-inf``."""
    if x.requires_grad:
        x = x.detach()
    return x.amax(dim, keepdim=True).clamp_min_(torch.finfo(x.dtype).min)


def _exp(x: Tensor) -> Tensor:
    """The exponential of a table that nobody else has: in place where gradients do not need it."""
    return x.exp() if x.requires_grad else x.exp_()


def _shifted(x: Tensor, shift: Tensor) -> Tensor:
    """``exp(x - shift)`` of a table that nobody else has: in place where gradients do not need it."""
    return (x - shift).exp() if x.requires_grad else x.sub_(shift).exp_()


def times(x: Tensor, y: Tensor) -> Tensor:
    """The product with a table ``x`` that nobody else has: in place where gradients do not need it."""
    return x * y if x.requires_grad or y.requires_grad else x.mul_(y)


def plus(x: Tensor, y: Tensor) -> Tensor:
    """The sum with a table ``x`` that nobody else has: in place where gradients do not need it."""
    return x + y if x.requires_grad or y.requires_grad else x.add_(y)


def safe_log(x: Tensor) -> Tensor:
    """The logarithm, with ``-inf`` and a zero gradient at zero."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return x.log()
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).log(), -torch.inf)


def log_sum_exp(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sums probabilities over ``dims``, which are dropped."""
    shift = finite_max(x, dims)
    return safe_log(_exp(x - shift).sum(dims, keepdim=True)).add_(shift).squeeze(dims)


def log_sum_exp_adjoint(x: Tensor, grad: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The adjoint of ``log_sum_exp``: the incoming weight, spread in proportion to the probabilities.

    They are normalised by their own sum: the rounded logarithm of a large result would cost digits.
    """
    for dim in sorted(dims):
        grad = grad.unsqueeze(dim)
    weights = _exp(x - finite_max(x, dims))
    return times(weights, quotient(grad, weights.sum(dims, keepdim=True)))


def quotient(grad: Tensor, total: Tensor) -> Tensor:
    """``grad / total``, zero where the total is: what is impossible has no weight to hand on."""
    possible = total > 0
    if total.requires_grad and torch.is_grad_enabled():
        # The derivative of the branch not taken must be finite too.
        total = torch.where(possible, total, 1.0)
    return torch.where(possible, grad / total, 0.0)


class Product(NamedTuple):
    """What a product keeps for its adjoint; ``a``, ``b`` and ``r`` depend on how it was made.

    - ``matrix``: shifted exponentials of both operands and their matrix product (``None`` where it is made again);
    - ``positive``: the same where the matrix product is positive throughout;
    - ``vector``: the shifted exponential of the joint table and its sums (``b`` is not used);
    - ``joint``: the same where the sums are positive throughout;
    - ``logs``: both log-tables (``r`` is not used).
    """

    how: str
    a: Tensor
    b: Tensor
    r: Tensor | None


class Trust(IntEnum):
    """How a matrix product is made, from the quickest way, whose result may have to be made again, to one that is
    always right."""

    POSITIVE = 0
    """Right if every entry of the product of exponentials is far above underflow."""
    ZEROS = 1
    """Right if every other entry is exactly zero: impossible, not underflown."""
    LOGS = 2
    """By log-sum-exp over the joint table: slower, and right for all numbers."""


def exponential(side: int, x: Tensor, shift: Tensor) -> Tensor:
    """``exp(x - shift)`` of an operand, the left (0) or the right one (1)."""
    return _exp(x - shift)


def log_matmul(
    x: Tensor, y: Tensor, trust: Trust, exponential: Callable[[int, Tensor, Tensor], Tensor] = exponential
) -> tuple[Tensor, Product, Tensor | None]:
    """The matrix product of probabilities given as logarithms.

    Args:
        x: shape ``(n, left, summed)``.
        y: shape ``(n, summed, right)``.
        trust: how it is made.
        exponential: what makes ``exponential`` of an operand, or knows it already.

    Returns:
        Logarithms of shape ``(n, left, right)``; what the adjoint needs; a boolean scalar, not yet looked at, that
        tells whether the result is *not* right, ``None`` where it is right for certain.
    """
    if x.shape[-2] == 1 or y.shape[-1] == 1:
        # The joint table is no larger than an operand, so no fibre needs a shift of its own.
        joint = x.mT + y if x.shape[-2] == 1 else x + y.mT
        dim = -2 if x.shape[-2] == 1 else -1
        shift = finite_max(joint, dim)
        joint = _shifted(joint, shift)
        total = joint.sum(dim, keepdim=True)
        return safe_log(total).add_(shift), Product("vector", joint, joint[:0], total), None
    if trust is Trust.LOGS:
        return _log_matmul_in_logs(x, y), Product("logs", x, y, y[:0]), None
    shift_x, shift_y = finite_max(x, -1), finite_max(y, -2)
    a, b = exponential(0, x, shift_x), exponential(1, y, shift_y)
    r = a @ b
    if trust is Trust.POSITIVE:
        wrong = r.detach().amin() < _sure(r)
        return r.log().add_(shift_x).add_(shift_y), Product("positive", a, b, _unless_cheap(a, r)), wrong
    wrong = _underflows(x, y, r)
    return safe_log(r).add_(shift_x).add_(shift_y), Product("matrix", a, b, _unless_cheap(a, r)), wrong


def log_matmul_adjoint(
    product: Product, grad: Tensor, sides: Sequence[bool] = (True, True)
) -> tuple[Tensor | None, Tensor | None]:
    """The adjoint of ``log_matmul``; with ``grad`` a table of probabilities, these are the operands' beliefs.

    ``sides`` tells which of the two is wanted; for the other there is ``None``.
    """
    how, a, b, r = product
    left, right = sides
    if how == "logs":
        return _adjoint_in_logs(a, b, grad)
    if r is None:
        r = a @ b
    weight = grad / r if how in ("positive", "joint") else quotient(grad, r)
    if how in ("positive", "matrix"):
        return times(weight @ b.mT, a) if left else None, times(a.mT @ weight, b) if right else None
    belief = a * weight
    if grad.shape[-2] == 1:
        return belief.sum(-1, keepdim=True).mT if left else None, belief if right else None
    return belief if left else None, belief.sum(-2, keepdim=True).mT if right else None


def max_matmul(x: Tensor, y: Tensor) -> Tensor:
    """The matrix product of logarithms with the maximum in place of the sum; shapes as in ``log_matmul``."""
    parts = torch.split(x, _left_chunks(x, y), dim=-2)
    if len(parts) == 1 or len(parts) <= x.shape[-1]:
        found = [(part.unsqueeze(-1) + y.unsqueeze(-3)).amax(-2) for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found, -2)
    result = x[..., :, 0, None] + y[..., None, 0, :]
    for k in range(1, x.shape[-1]):
        result = torch.maximum(result, x[..., :, k, None] + y[..., None, k, :])
    return result


def _unless_cheap(a: Tensor, r: Tensor) -> Tensor | None:
    """A product of matrices to be kept, unless making it again costs no more than keeping it."""
    return r if a.shape[-1] > _CHEAP else None


def _sure(r: Tensor) -> float:
    """A term is lost to underflow only below tiny, so an entry that is not below this has all its digits.

    Where the adjoint will be differentiated, once or twice, which divides by the square or the cube of an entry, that
    must not underflow either.
    """
    info = torch.finfo(r.dtype)
    if torch.is_grad_enabled() and r.requires_grad:
        return max(math.sqrt(info.tiny) / info.eps, math.exp(math.log(info.tiny) / 3))
    return info.tiny / info.eps**2


def _underflows(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Whether an entry of ``r`` that is too small to be sure of has lost digits, or all of itself.

    Such an entry is right only if it is an exact zero: no summand has two finite factors.
    """
    wrong = torch.zeros((), dtype=torch.bool, device=r.device)
    sure = _sure(r)
    with torch.no_grad():
        possible = (y > -torch.inf).to(y.dtype)
        size = max(1, CHUNK // max(1, x.shape[0] * (x.shape[-1] + y.shape[-1])))
        for part, of_part in zip(torch.split(x, size, -2), torch.split(r, size, -2), strict=True):
            summands = (part > -torch.inf).to(x.dtype) @ possible
            wrong = wrong | ((of_part < sure) & (summands > 0)).any()
    return wrong


def _left_chunks(x: Tensor, y: Tensor) -> int:
    """How many entries of the left dimension fit into a part of the joint table that is made at once."""
    count, left, summed = x.shape[-3:]
    right = y.shape[-1]
    most = max(CHUNK, x.numel() + y.numel() + count * left * right)
    return max(1, most // max(1, count * summed * right))


def _log_matmul_in_logs(x: Tensor, y: Tensor) -> Tensor:
    found = []
    for part in torch.split(x, _left_chunks(x, y), dim=-2):
        joint = part.unsqueeze(-1) + y.unsqueeze(-3)
        shift = finite_max(joint, -2)
        found.append(safe_log(_shifted(joint, shift).sum(-2, keepdim=True)).add_(shift).squeeze(-2))
    return torch.cat(found, dim=-2)


def _adjoint_in_logs(x: Tensor, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    size = _left_chunks(x, y)
    grads_x, grad_y = [], torch.zeros_like(y)
    for part, part_grad in zip(torch.split(x, size, -2), torch.split(grad, size, -2), strict=True):
        joint = part.unsqueeze(-1) + y.unsqueeze(-3)
        weights = _shifted(joint, finite_max(joint, -2))
        belief = times(weights, quotient(part_grad.unsqueeze(-2), weights.sum(-2, keepdim=True)))
        grads_x.append(belief.sum(-1))
        grad_y = plus(grad_y, belief.sum(-3))
    return torch.cat(grads_x, -2), grad_y
