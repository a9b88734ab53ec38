"""What torch's functions make of delayed values.

Each function that keeps a value affine, or a power, has a rule; functions that only ask for shapes and types are
answered by the probe; all others give a value of unknown form, which is an error only where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from sumout.effects.delayed.links import Link, broadcast, joined, moved, scaled, summed
from sumout.effects.delayed.value import Delayed

T = TypeVar("T")
Rule = Callable[..., Any]

_SHAPE_ONLY = frozenset(
    """
    shape size dim ndim ndimension numel nelement __len__ dtype device layout is_floating_point is_complex
    is_sparse is_cuda is_contiguous stride storage_offset element_size is_meta is_quantized is_nested
    is_signed requires_grad grad_fn is_leaf result_type type_as new_zeros new_ones new_full new_empty
    new_tensor zeros_like ones_like full_like empty_like rand_like randn_like get_device names is_same_size
    data_ptr untyped_storage _version itemsize nbytes __hash__ is_tensor can_cast __dir__ is_inference
    requires_grad_ type
    """.split()  # noqa: SIM905  (a list of sixty strings reads worse)
)
_MOVES = frozenset(
    """
    expand expand_as reshape reshape_as view view_as unsqueeze squeeze transpose swapaxes swapdims permute
    movedim moveaxis t T mT adjoint H mH flatten unflatten ravel __getitem__ index_select gather take
    take_along_dim select narrow unbind split split_with_sizes chunk tensor_split flip fliplr flipud roll
    rot90 repeat repeat_interleave tile broadcast_to clone contiguous diagonal diag diag_embed tril triu
    masked_select alias atleast_1d atleast_2d atleast_3d __iter__ squeeze_multiple cpu cuda
    """.split()  # noqa: SIM905  (a list of sixty strings reads worse)
)
_JOINS = frozenset(["stack", "cat", "concat", "concatenate", "hstack", "vstack", "dstack", "where"])
_CASTS = frozenset(["to", "double", "float", "half", "bfloat16"])

_RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def apply(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``func(*args, **kwargs)`` where some arguments are delayed."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":  # A property, such as x.T
        name = func.__self__.__name__
    plain = func(*_probes(args), **_probes(kwargs))
    if name in _SHAPE_ONLY:
        return plain
    rule = _RULES.get(name)
    if name in _MOVES:
        found = _move(func, args, kwargs)
    elif name in _JOINS:
        found = _join(func, args, kwargs)
    elif name in _CASTS:
        found = _cast(func, args, kwargs)
    else:
        found = None if rule is None else rule(*args, **kwargs)
    return found if found is not None else _unknown(name, plain, args, kwargs)


def _unknown(name: str, plain: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A result that depends on delayed sites in a way that is not kept."""
    delayed = _delayed((args, kwargs))
    why = next((each.unknown for each in delayed if each.unknown), name.strip("_"))
    links = tuple({link.site: link for each in delayed for link in each.links}.values())
    return _map(plain, lambda each: Delayed.made(each, links, unknown=why))


def _map(structure: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(structure, Tensor):
        return change(structure)
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*[_map(each, change) for each in structure])
    if type(structure) in (tuple, list):
        return type(structure)([_map(each, change) for each in structure])
    if type(structure) is dict:
        return {key: _map(each, change) for key, each in structure.items()}
    return structure


def _probes(structure: T) -> T:
    return cast(T, _map(structure, lambda each: each.probe if isinstance(each, Delayed) else each))


def _delayed(structure: Any) -> list[Delayed]:
    found: list[Delayed] = []
    _map(structure, lambda each: found.append(each) if isinstance(each, Delayed) else None)
    return found


def _known(*values: Any) -> bool:
    return all(each.unknown is None for each in values if isinstance(each, Delayed))


def _affine(*values: Any) -> bool:
    return all(each.is_affine for each in values if isinstance(each, Delayed))


def _move(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = args[0]
    if len(_delayed((args, kwargs))) > 1 or not isinstance(value, Delayed) or not _known(value):
        return None

    def move(each: Tensor) -> Any:
        return func(each, *args[1:], **kwargs)

    plain = move(value.probe)
    if isinstance(plain, Tensor):
        return Delayed.made(
            plain, tuple([moved(link, move) for link in value.links]), move(value.const), value.power
        )
    consts = move(value.const)
    parts = []
    for place, part in enumerate(plain):
        links = tuple([moved(link, lambda each, place=place: move(each)[place]) for link in value.links])  # type: ignore[misc]
        parts.append(Delayed.made(part, links, consts[place], value.power))
    return type(plain)(parts) if type(plain) in (tuple, list) else tuple(parts)


def _join(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Several values in one; what does not come from a value has coefficient zero."""
    values = _delayed((args, kwargs))
    if not _affine(*values):
        return None
    links: list[Link] = []
    for value in values:
        for link in value.links:

            def only(part: Tensor, value: Delayed = value) -> Tensor:
                def change(each: Tensor) -> Tensor:
                    if each is value:
                        return part
                    if each.dtype == torch.bool:
                        return each  # The condition of where.
                    return torch.zeros(each.shape, dtype=part.dtype, device=part.device)

                numbers = _numbers_as_zeros(func, args)
                return cast(Tensor, func(*_map(numbers, change), **_map(kwargs, change)))

            links.append(moved(link, only))
    consts = func(*_map(args, _const), **_map(kwargs, _const))
    plain = func(*_probes(args), **_probes(kwargs))
    return Delayed.made(plain, joined(links), consts)


def _numbers_as_zeros(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of ``where`` may be numbers."""
    if getattr(func, "__name__", "") != "where":
        return args
    return tuple(
        [0 if isinstance(each, (int, float)) and not isinstance(each, bool) else each for each in args]
    )


def _const(each: Tensor) -> Tensor:
    return each.const if isinstance(each, Delayed) else each


def _cast(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = args[0]
    if not isinstance(value, Delayed) or not _known(value):
        return None

    def cast_one(each: Tensor) -> Tensor:
        return cast(Tensor, func(each, *args[1:], **kwargs))

    plain = cast_one(value.probe)
    if not plain.is_floating_point():
        return None
    links = tuple(
        [link._replace(where=link.where.to(plain.device), coef=cast_one(link.coef)) for link in value.links]
    )
    return Delayed.made(plain, links, cast_one(value.const), value.power)


@_rule("broadcast_tensors")
def _broadcast_tensors(*tensors: Any) -> Any:
    if len(tensors) == 1 and not isinstance(tensors[0], Tensor):
        tensors = tuple(tensors[0])
    if not _known(*tensors):
        return None
    shape = torch.broadcast_shapes(*[tuple(each.shape) for each in tensors])  # type: ignore[no-untyped-call]
    return tuple([each.expand(shape) for each in tensors])


@_rule("add", "__add__", "__radd__", "add_", "__iadd__")
def _add(lhs: Any, rhs: Any, *, alpha: Any = 1) -> Any:
    if not _affine(lhs, rhs):
        return None
    if alpha != 1:
        rhs = rhs * alpha
    left, right = _probes((lhs, rhs))
    plain = left + right
    links = [
        broadcast(link, plain.shape)
        for each in (lhs, rhs)
        if isinstance(each, Delayed)
        for link in each.links
    ]
    const = (_const(lhs) if isinstance(lhs, Tensor) else lhs) + (
        _const(rhs) if isinstance(rhs, Tensor) else rhs
    )
    return Delayed.made(plain, joined(links), const)


@_rule("neg", "__neg__", "negative")
def _neg(value: Any) -> Any:
    return value * -1.0 if _known(value) else None


@_rule("sub", "__sub__", "subtract")
def _sub(lhs: Any, rhs: Any, *, alpha: Any = 1) -> Any:
    if not _affine(lhs, rhs):
        return None
    return lhs + rhs * (-alpha)


@_rule("rsub", "__rsub__")
def _rsub(lhs: Any, rhs: Any, *, alpha: Any = 1) -> Any:
    return _sub(rhs, lhs, alpha=alpha)


@_rule("mul", "multiply", "__mul__", "__rmul__")
def _mul(lhs: Any, rhs: Any) -> Any:
    if isinstance(lhs, Delayed) and isinstance(rhs, Delayed):
        return None
    value, factor = (lhs, rhs) if isinstance(lhs, Delayed) else (rhs, lhs)
    if not _known(value):
        return None
    if not isinstance(factor, Tensor):
        factor = torch.as_tensor(factor, dtype=value.dtype, device=value.device)
    return Delayed.made(
        value.probe * factor,
        tuple([scaled(link, factor) for link in value.links]),
        value.const * factor,
        value.power,
    )


@_rule("div", "divide", "true_divide", "__truediv__", "__div__")
def _div(lhs: Any, rhs: Any, *, rounding_mode: Any = None) -> Any:
    if rounding_mode is not None or (isinstance(rhs, Delayed) and isinstance(lhs, Delayed)):
        return None
    if isinstance(rhs, Delayed):
        inverse = _pow(rhs, -1.0)
        return None if inverse is None else inverse * lhs
    factor = rhs.reciprocal() if isinstance(rhs, Tensor) and rhs.is_floating_point() else 1.0 / rhs
    return _mul(lhs, factor)


@_rule("__rdiv__", "__rtruediv__")
def _rdiv(value: Any, numerator: Any) -> Any:
    return _div(numerator, value)


@_rule("pow", "__pow__", "float_power")
def _pow(value: Any, exponent: Any) -> Any:
    if isinstance(exponent, Tensor) and not isinstance(exponent, Delayed) and exponent.numel() == 1:
        exponent = float(exponent)
    if not isinstance(exponent, (int, float)) or not _known(value):
        return None
    if exponent == 1:
        return value
    single = len(value.links) == 1 and value.links[0].terms == 1
    if not single or (value.power == 1.0 and bool((value.const != 0).any())):
        return None
    (link,) = value.links
    power = value.power * exponent
    links = (link._replace(coef=link.coef**exponent),)
    return Delayed.made(value.probe**exponent, links, None, 1.0 if power == 1.0 else power)


@_rule("sqrt")
def _sqrt(value: Any) -> Any:
    return _pow(value, 0.5)


@_rule("rsqrt")
def _rsqrt(value: Any) -> Any:
    return _pow(value, -0.5)


@_rule("reciprocal")
def _reciprocal(value: Any) -> Any:
    return _pow(value, -1.0)


@_rule("square")
def _square(value: Any) -> Any:
    return _pow(value, 2.0)


@_rule("sum")
def _sum(value: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, dtype: Any = None) -> Any:
    dim = axis if dim is None else dim
    if dtype is not None or not _affine(value):
        return None
    plain = value.probe
    dims: Sequence[int] = range(plain.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    links, const = list(value.links), value.const
    for place in sorted({each % plain.ndim for each in dims} if plain.ndim else (), reverse=True):
        const = const.sum(place)
        plain = plain.sum(place)
        left = []
        for link in links:
            kept, known = summed(link, place)
            if kept is not None:
                left.append(kept)
            if known is not None:
                const = const + known
        links = left
    found = Delayed.made(plain, tuple(links), const) if links else const
    if keepdim:
        for place in sorted({each % value.probe.ndim for each in dims}):
            found = found.unsqueeze(place)
    return found


@_rule("mean")
def _mean(value: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, dtype: Any = None) -> Any:
    total = _sum(value, dim, keepdim, axis=axis, dtype=dtype)
    if total is None:
        return None
    return total * (total.numel() / value.probe.numel())


@_rule("matmul", "__matmul__", "mm", "mv", "bmm", "dot", "inner1d")
def _matmul(lhs: Any, rhs: Any) -> Any:
    if (isinstance(lhs, Delayed) and isinstance(rhs, Delayed)) or not _affine(lhs, rhs):
        return None
    flat_left, flat_right = lhs.ndim == 1, rhs.ndim == 1
    left = lhs.unsqueeze(0) if flat_left else lhs
    right = rhs.unsqueeze(-1) if flat_right else rhs
    found = _sum(_mul(left.unsqueeze(-1), right.unsqueeze(-3)), -2)
    if flat_right:
        found = found.squeeze(-1)
    if flat_left:
        found = found.squeeze(-1 if flat_right else -2)
    return found


@_rule("__rmatmul__")
def _rmatmul(value: Any, other: Any) -> Any:
    return _matmul(other, value)


@_rule("linear")
def _linear(value: Any, weight: Any, bias: Any = None) -> Any:
    found = _matmul(value, weight.mT if weight.ndim > 1 else weight)
    return found if bias is None or found is None else found + bias


@_rule("einsum")
def _einsum(equation: Any, *operands: Any) -> Any:
    if len(operands) == 1 and not isinstance(operands[0], Tensor):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(_delayed(operands)) != 1 or not _affine(*operands):
        return None
    spec = equation.replace(" ", "")
    if "..." in spec:
        return None
    inputs, _, output = spec.partition("->")
    scopes = inputs.split(",")
    if "->" not in spec:
        output = "".join(sorted(each for each in set(inputs) - {","} if inputs.count(each) == 1))
    if any(len(set(scope)) < len(scope) for scope in scopes):
        return None
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
    return _sum(found, list(range(len(output), len(order)))) if gone else found


Delayed.apply = staticmethod(apply)
