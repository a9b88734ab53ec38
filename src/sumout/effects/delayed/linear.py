"""Products with data, and other linear functions of a whole tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sumout.effects.delayed.arithmetic import mul, total
from sumout.effects.delayed.links import Link, compact, joined, joint_shape, moved, scaled, summed
from sumout.effects.delayed.registry import Rule, const_of, delayed_in, is_affine, probes, rule
from sumout.effects.delayed.value import Delayed

_MOST_ENTRIES = 2**22
"""Of the matrix of a linear function that is found out by applying it to unit vectors."""


@rule("matmul", "__matmul__", "mm", "mv", "bmm", "dot", "linalg_matmul", whole=True)
def matmul(lhs: Any, rhs: Any) -> Any:
    if (isinstance(lhs, Delayed) and isinstance(rhs, Delayed)) or not is_affine(lhs, rhs):
        return None
    if isinstance(lhs, Delayed):
        return _rows_times(lhs, rhs)
    flipped = lhs.mT if lhs.ndim > 1 else lhs
    if rhs.ndim == 1:
        return _rows_times(rhs, flipped)
    found = _rows_times(rhs.mT, flipped)
    return found.mT if lhs.ndim > 1 else found


def _rows_times(value: Delayed, factor: Tensor) -> Any:
    """``value @ factor``."""
    plain = _product(value.probe, factor)
    flat = factor.ndim == 1
    columns = factor.unsqueeze(-1) if flat else factor
    if value.ndim > 1 and columns.ndim > 2:
        columns = columns.unsqueeze(-3)  # One of a batch of matrices for each of a batch of rows.
    shift = None if value.shift is None else torch.matmul(value.shift, factor)
    links = []
    for link in value.links:
        where, coef = link.where.unsqueeze(-1), link.coef.unsqueeze(-1)
        product = scaled(Link(link.site, where, coef, link.simplex, link.positive), columns)
        kept, known = summed(product, product.where.ndim - 3)
        if kept is not None:
            links.append(moved(kept, _without_columns) if flat else kept)
        if known is not None:
            known = known.squeeze(-1) if flat else known
            shift = known if shift is None else shift + known
    return Delayed.made(plain, tuple(links), shift) if links else shift


def _without_columns(x: Tensor) -> Tensor:
    return x.squeeze(-1)


def _product(lhs: Tensor, rhs: Tensor) -> Tensor:
    """Of probes, the large ones of which only repeat themselves."""
    few = [compact(each, range(each.ndim - 2)) for each in (lhs, rhs)]
    if few[0] is lhs and few[1] is rhs:
        return lhs @ rhs
    shape = joint_shape(lhs.shape[:-2], rhs.shape[:-2])
    found = few[0] @ few[1]
    return found.expand([*shape, *found.shape[max(0, found.ndim - (lhs.ndim > 1) - (rhs.ndim > 1)) :]])


@rule("__rmatmul__")
def _rmatmul(value: Any, other: Any) -> Any:
    return matmul(other, value)


@rule("linear")
def _linear(value: Any, weight: Any, bias: Any = None) -> Any:
    found = matmul(value, weight.mT if weight.ndim > 1 else weight)
    return found if bias is None or found is None else found + bias


@rule("addmm", "addmv", "baddbmm")
def _addmm(base: Any, lhs: Any, rhs: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    found = matmul(lhs, rhs) if delayed_in((lhs, rhs)) else lhs @ rhs
    return None if found is None or not is_affine(base) else base * beta + found * alpha


@rule("outer", "ger")
def _outer(lhs: Any, rhs: Any) -> Any:
    return mul(lhs.unsqueeze(-1), rhs.unsqueeze(-2))


@rule("vdot", "inner")
def _inner(lhs: Any, rhs: Any) -> Any:
    return matmul(lhs, rhs.mT if rhs.ndim > 1 else rhs) if lhs.ndim and rhs.ndim else mul(lhs, rhs)


@rule("cumsum")
def _cumsum(value: Any, dim: int) -> Any:
    if not is_affine(value) or not value.ndim:
        return None
    size = value.shape[dim]
    upto = torch.ones(size, size, dtype=value.dtype, device=value.device).tril()
    return matmul(value.movedim(dim, -1).unsqueeze(-2) * upto, upto.new_ones(size)).movedim(-1, dim)


@rule("diff")
def _diff(value: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    parts = [each for each in (prepend, value, append) if each is not None]
    if not is_affine(*parts):
        return None
    found = torch.cat(parts, dim) if len(parts) > 1 else value
    for _ in range(n):
        size = found.shape[dim]
        found = found.narrow(dim, 1, size - 1) - found.narrow(dim, 0, size - 1)
    return found


@rule("trace")
def _trace(value: Any) -> Any:
    return value.diagonal().sum(-1)


@rule("einsum")
def _einsum(equation: Any, *operands: Any) -> Any:
    if len(operands) == 1 and not isinstance(operands[0], Tensor):
        operands = tuple(operands[0])
    values = [each for each in operands if isinstance(each, Delayed)]
    if not isinstance(equation, str) or len(values) != 1 or not is_affine(*values):
        return None
    spec = equation.replace(" ", "")
    inputs, _, output = spec.partition("->")
    scopes = inputs.split(",")
    if "..." in spec or any(len(set(scope)) < len(scope) for scope in scopes):
        return _by_units(torch.einsum, (equation, *operands), {}, [1 + operands.index(values[0])])
    if "->" not in spec:
        output = "".join(sorted(each for each in set(inputs) - {","} if inputs.count(each) == 1))
    gone = [each for each in dict.fromkeys("".join(scopes)) if each not in output]
    order = [*output, *gone]
    found: Any = None
    for scope, operand in sorted(
        zip(scopes, operands, strict=True), key=lambda each: not isinstance(each[1], Delayed)
    ):
        aligned = operand.permute([scope.index(each) for each in order if each in scope])
        for place, each in enumerate(order):
            if each not in scope:
                aligned = aligned.unsqueeze(place)
        found = aligned if found is None else found * aligned
    return total(found, list(range(len(output), len(order)))) if gone else found


_LINEAR_IN: dict[str, tuple[Any, tuple[int, ...]]] = {
    "index_add": (torch.index_add, (0, 3)),
    "index_copy": (torch.index_copy, (0, 3)),
    "scatter_add": (torch.scatter_add, (0, 3)),
    "scatter": (torch.scatter, (0, 3)),
    "select_scatter": (torch.select_scatter, (0, 1)),
    "slice_scatter": (torch.slice_scatter, (0, 1)),
    "diagonal_scatter": (torch.diagonal_scatter, (0, 1)),
    "masked_scatter": (torch.masked_scatter, (0, 2)),
    "masked_fill": (torch.masked_fill, (0, 2)),
    "linalg_solve": (torch.linalg.solve, (1,)),
    "linalg_solve_triangular": (torch.linalg.solve_triangular, (1,)),
    "linalg_lu_solve": (torch.linalg.lu_solve, (2,)),
    "linalg_tensorsolve": (torch.linalg.tensorsolve, (1,)),
    "cholesky_solve": (torch.cholesky_solve, (0,)),
    "lu_solve": (torch.lu_solve, (0,)),
    "conv1d": (torch.conv1d, (0, 2)),
    "conv2d": (torch.conv2d, (0, 2)),
    "avg_pool1d": (torch.avg_pool1d, (0,)),
}
"""Functions that are linear in some of their tensors, together."""
_LINEAR_IN_EACH: dict[str, Any] = {
    "kron": torch.kron,
    "tensordot": torch.tensordot,
    "cross": torch.cross,
    "linalg_cross": torch.linalg.cross,
    "linalg_vecdot": torch.linalg.vecdot,
    "chain_matmul": torch.chain_matmul,
    "linalg_multi_dot": torch.linalg.multi_dot,
}
"""Functions that are linear in each of their tensors."""


def _by_units(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], places: list[int]) -> Any:
    """A function that is linear in some of its arguments, by what it makes of unit vectors."""
    values = delayed_in((args, kwargs))
    inside = [each for each in places if each < len(args)]
    if not is_affine(*values) or len(delayed_in([args[each] for each in inside])) < len(values):
        return None
    plain = func(*probes(args), **kwargs)
    zeros = list(args)
    for place in inside:
        each = args[place]
        zeros[place] = torch.zeros_like(each) if isinstance(each, Tensor) else 0
    links: list[Link] = []
    for place in inside:
        value = args[place]
        if not isinstance(value, Delayed):
            continue
        if value.probe.numel() * plain.numel() > _MOST_ENTRIES:
            return None
        units = torch.eye(value.probe.numel(), dtype=value.dtype, device=value.device)
        made = [
            func(
                *[unit.reshape(value.shape) if at == place else each for at, each in enumerate(zeros)],
                **kwargs,
            )
            for unit in units
        ]
        if not made:
            return None
        matrix = torch.stack(made)  # (entries of the value, *result)
        for link in value.links:
            ones = [1] * plain.ndim
            where = link.where.reshape(link.terms, -1, *ones)
            coef = link.coef.reshape(link.terms, -1, *ones) * matrix
            none = (
                torch.zeros_like(coef, dtype=torch.bool)
                if matrix.requires_grad
                else (matrix == 0).expand(coef.shape)
            )
            links.append(
                link._replace(
                    where=where.expand(coef.shape).masked_fill(none, -1).flatten(0, 1),
                    coef=coef.flatten(0, 1),
                )
            )
    return Delayed.made(plain, joined(links), func(*[const_of(each) for each in args], **kwargs))


def _linear_in(func: Any, places: tuple[int, ...]) -> Rule:
    def made(*args: Any, **kwargs: Any) -> Any:
        return _by_units(func, args, kwargs, list(places))

    return made


def _linear_in_each(func: Any) -> Rule:
    def made(*args: Any, **kwargs: Any) -> Any:
        places = [place for place, each in enumerate(args) if isinstance(each, Delayed)]
        return _by_units(func, args, kwargs, places) if len(places) == 1 else None

    return made


for _name, (_func, _places) in _LINEAR_IN.items():
    rule(_name)(_linear_in(_func, _places))
for _name, _func in _LINEAR_IN_EACH.items():
    rule(_name)(_linear_in_each(_func))
