"""Sums, products and powers of delayed values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sumout.effects.delayed.links import broadcast, joined, merged, negated, on_few, scaled, summed
from sumout.effects.delayed.registry import is_affine, is_known, probes, rule
from sumout.effects.delayed.value import Delayed


@rule("add", "__add__", "__radd__", whole=True)
def add(lhs: Any, rhs: Any, *, alpha: Any = 1) -> Any:
    return _combined(torch.add, lhs, rhs, alpha)


def _combined(change: Callable[..., Tensor], lhs: Any, rhs: Any, alpha: Any) -> Any:
    """A sum or a difference."""
    if not is_affine(lhs, rhs):
        return None
    if isinstance(alpha, Tensor) or alpha != 1:
        rhs = rhs * alpha
    plain = on_few(change, *probes((lhs, rhs)))
    if not plain.is_floating_point():
        return None
    links = []
    if isinstance(lhs, Delayed):
        links += [broadcast(link, plain.shape) for link in lhs.links]
    if isinstance(rhs, Delayed):
        own = rhs.links if change is torch.add else map(negated, rhs.links)
        links += [broadcast(link, plain.shape) for link in own]
    left, right = [each.shift if isinstance(each, Delayed) else each for each in (lhs, rhs)]
    shift = left
    if right is not None:
        shift = (right if change is torch.add else -right) if left is None else change(left, right)
    if shift is not None:
        shift = torch.as_tensor(shift, dtype=plain.dtype, device=plain.device).expand(plain.shape)
    return Delayed.made(plain, joined(links), shift)


@rule("neg", "__neg__", "negative")
def _neg(value: Any) -> Any:
    return value * -1.0 if is_known(value) else None


@rule("positive", "__pos__")
def _pos(value: Any) -> Any:
    return value


@rule("sub", "__sub__", "subtract", whole=True)
def sub(lhs: Any, rhs: Any, *, alpha: Any = 1) -> Any:
    return _combined(torch.sub, lhs, rhs, alpha)


@rule("rsub", "__rsub__")
def _rsub(lhs: Any, rhs: Any, *, alpha: Any = 1) -> Any:
    return sub(rhs, lhs, alpha=alpha)


def _operands(lhs: Any, rhs: Any) -> tuple[Delayed, Any] | None:
    """The one delayed value of a product, and its factor."""
    if isinstance(lhs, Delayed) and isinstance(rhs, Delayed):
        return None
    value, factor = (lhs, rhs) if isinstance(lhs, Delayed) else (rhs, lhs)
    return (value, factor) if is_known(value) else None


@rule("mul", "multiply", "__mul__", "__rmul__", whole=True)
def mul(lhs: Any, rhs: Any) -> Any:
    operands = _operands(lhs, rhs)
    if operands is None:
        return None
    value, factor = operands
    plain = on_few(torch.mul, value.probe, factor)
    if not isinstance(plain, Tensor) or not plain.is_floating_point():
        return None
    if not isinstance(factor, Tensor):
        factor = torch.as_tensor(factor, dtype=value.dtype, device=value.device)
    links = tuple([scaled(link, factor) for link in value.links])
    return Delayed.made(plain, links, None if value.shift is None else value.shift * factor, value.power)


@rule("div", "divide", "true_divide", "__truediv__", "__div__")
def _div(lhs: Any, rhs: Any, *, rounding_mode: Any = None) -> Any:
    if rounding_mode is not None or not is_known(lhs, rhs):
        return None
    if isinstance(rhs, Delayed):
        inverse = power_of(rhs, -1.0)
        return None if inverse is None or isinstance(lhs, Delayed) else inverse * lhs
    divisor = rhs if isinstance(rhs, Tensor) else torch.as_tensor(rhs)
    kind = torch.promote_types(divisor.dtype, lhs.dtype)
    return mul(lhs, (rhs.to(kind) if isinstance(rhs, Tensor) else divisor.to(lhs.device, kind)).reciprocal())


@rule("__rdiv__", "__rtruediv__")
def _rdiv(value: Any, numerator: Any) -> Any:
    return _div(numerator, value)


@rule("pow", "__pow__", "float_power")
def power_of(value: Any, exponent: Any) -> Any:
    """A power of single entries; roots of even powers are absolute values, so these need positive sites."""
    if not isinstance(value, Delayed):
        return None
    if isinstance(exponent, Tensor):
        same = exponent.numel() == 1 and exponent.ndim <= value.ndim
        if isinstance(exponent, Delayed) or exponent.requires_grad or not same:
            return None
        exponent = float(exponent)
    if not isinstance(exponent, (int, float)) or not is_known(value):
        return None
    if exponent == 1:
        return value
    if len(value.links) != 1 or value.shift is not None or exponent == 0:
        return None
    link = merged(value.links[0])
    if link.terms > 1 or not link.positive:
        return None
    power = value.power * exponent
    links = (link._replace(coef=link.coef**exponent),)
    return Delayed.made(value.probe**exponent, links, None, 1.0 if power == 1.0 else power)


@rule("sqrt")
def _sqrt(value: Any) -> Any:
    return power_of(value, 0.5)


@rule("rsqrt")
def _rsqrt(value: Any) -> Any:
    return power_of(value, -0.5)


@rule("reciprocal")
def _reciprocal(value: Any) -> Any:
    return power_of(value, -1.0)


@rule("square")
def _square(value: Any) -> Any:
    return power_of(value, 2.0)


@rule("sum")
def total(value: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, dtype: Any = None) -> Any:
    dim = axis if dim is None else dim
    if dtype is not None or not is_affine(value):
        return None
    plain = value.probe
    rank = plain.ndim
    every = dim is None or (not isinstance(dim, int) and len(dim) == 0)
    dims: Sequence[int] = range(rank) if every else [dim] if isinstance(dim, int) else dim
    places = sorted({each % rank for each in dims} if rank else (), reverse=True)
    links, shift = list(value.links), value.shift
    for place in places:
        shift = None if shift is None else shift.sum(place)
        plain = plain.sum(place)
        left = []
        for link in links:
            kept, known = summed(link, place)
            if kept is not None:
                left.append(kept)
            if known is not None:
                shift = known if shift is None else shift + known
        links = left
    found: Any = Delayed.made(plain, tuple(links), shift) if links else shift
    if keepdim:
        for place in sorted(places):
            found = found.unsqueeze(place)
    return found


@rule("mean")
def _mean(value: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, dtype: Any = None) -> Any:
    found = total(value, dim, keepdim, axis=axis, dtype=dtype)
    return None if found is None else found * (found.numel() / value.probe.numel())


@rule("addcmul")
def _addcmul(base: Any, lhs: Any, rhs: Any, *, value: Any = 1) -> Any:
    return base + lhs * rhs * value if is_affine(base, lhs, rhs) else None


@rule("lerp")
def _lerp(start: Any, end: Any, weight: Any) -> Any:
    if isinstance(weight, Delayed) or not is_affine(start, end):
        return None
    return start + (end - start) * weight
