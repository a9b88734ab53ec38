"""What each function of torch makes of hidden values.

A function is looked at once; its rule is kept. The rule that fits all is ``batched``; the others do the same in
less time. A function that asks for what a value *is* (a number, a bool) is a decision; one that asks for a shape or a
type is answered from one of the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from sumout.effects.hidden.axes import merged
from sumout.effects.hidden.batched import batched, in_place
from sumout.effects.hidden.decisions import all_true, decided, depends, formatted, same, shown
from sumout.effects.hidden.elementwise import broadcast_tensors, elementwise, expanded, reshaped
from sumout.effects.hidden.indexing import indexed
from sumout.effects.hidden.value import Hidden, Make, check_history

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]
Rule = Callable[[Make, Args, Kwargs], Any]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENTWISE = _words(
    """
    abs absolute acos acosh add addcdiv addcmul arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan
    atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clamp_max clamp_min clip clone contiguous
    copysign cos cosh deg2rad detach digamma div divide double elu eq erf erfc erfinv exp exp2 expm1 fix float
    floor floor_divide fmax fmin fmod frac ge gelu greater greater_equal gt half heaviside hypot i0 i0e i1 i1e
    igamma igammac int isfinite isinf isnan isneginf isposinf ldexp le leaky_relu lerp less less_equal lgamma log
    log10 log1p log2 log_ndtr logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit logsigmoid
    long lt maximum minimum mul multiply nan_to_num ndtr ndtri ne neg negative nextafter not_equal ones_like
    positive pow rad2deg reciprocal relu remainder round rsqrt short sigmoid sign silu sin sinc sinh softplus
    sqrt square sub subtract tan tanh true_divide trunc where xlog1py xlogy zeros_like
    __abs__ __add__ __and__ __div__ __eq__ __floordiv__ __ge__ __gt__ __invert__ __le__ __lt__ __mod__ __mul__ __ne__
    __neg__ __or__ __pos__ __pow__ __radd__ __rand__ __rdiv__ __rfloordiv__ __rmod__ __rmul__ __ror__ __rpow__ __rsub__
    __rtruediv__ __rxor__ __sub__ __truediv__ __xor__ bool type
    """
)
_ALONG = _words(
    "sum mean prod logsumexp softmax log_softmax all any amax amin argmax argmin cumsum cumprod logcumsumexp max min"
)
"""Along a dimension that is named: the first argument after the value, or ``dim``."""
_DECISIONS = _words(
    "__bool__ __int__ __float__ __index__ __complex__ item tolist numpy __array__ is_nonzero __contains__"
)
_LIKE_ONE = _words(
    """
    size dim ndimension numel nelement __len__ is_floating_point is_complex is_signed element_size get_device
    is_contiguous stride storage_offset is_inference is_tensor is_same_size
    shape ndim dtype device layout requires_grad is_cuda is_leaf is_sparse is_quantized is_meta is_nested is_mkldnn
    is_cpu is_mps is_xpu itemsize nbytes names _version is_shared is_pinned grad grad_fn retains_grad
    """
)
_REFUSED = _words("backward grad register_hook retain_grad requires_grad_ share_memory_ data_ptr")

_known: dict[Any, Rule] = {}


def rule_for(func: Callable[..., Any]) -> Rule:
    """The rule of a function; kept."""
    rule = _known.get(func)
    if rule is None:
        rule = _known[func] = _rule(func)
    return rule


def _rule(func: Callable[..., Any]) -> Rule:
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__", "__delete__"):  # of a property
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        if name != "__get__":
            return partial(_refuse, func)
        if attribute in _LIKE_ONE:
            return partial(_of_one, func)
        if attribute == "data":
            return lambda make, args, kwargs: args[0].detach()
        return lambda make, args, kwargs: batched(make, func, args, kwargs)
    special = _SPECIAL.get(name)
    if special is not None:
        return partial(special, func)
    if name in _REFUSED:
        return partial(_refuse, func)
    if name in _LIKE_ONE:
        return partial(_of_one, func)
    if name in _DECISIONS:
        return lambda make, args, kwargs: decided(func, args, kwargs)
    if _changes(name):
        return lambda make, args, kwargs: in_place(make, func, args, kwargs)
    if name in _ELEMENTWISE:
        return partial(_elementwise, func)
    if name in _ALONG:
        return partial(_along, func)
    return partial(_any, func)


def _changes(name: str) -> bool:
    dunder = name.startswith("__")
    if dunder:
        return name == "__setitem__" or (name.startswith("__i") and name[3:-2] in _INPLACE_OPERATORS)
    return name.endswith("_") and not name.startswith("_")


_INPLACE_OPERATORS = _words("add sub mul div truediv floordiv mod pow and or xor lshift rshift matmul")


def _any(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    if kwargs.get("out") is not None:
        return in_place(make, func, args, kwargs)
    return batched(make, func, args, kwargs)


def _elementwise(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    if kwargs.get("out") is not None or kwargs.get("inplace"):
        return in_place(make, func, args, kwargs)
    if func.__name__ == "where" and len(args) + len(kwargs) < 3:
        return batched(make, func, args, kwargs)
    if any(isinstance(each, (list, tuple)) for each in args):
        return batched(make, func, args, kwargs)
    return elementwise(make, func, args, kwargs)


def _along(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    """Along dimensions counted from the right, which are the same in one value and in all."""
    value = args[0] if args else None
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if (
        not isinstance(value, Hidden)
        or kwargs.get("out") is not None
        or not isinstance(dim, int)
        or isinstance(dim, bool)
        or any(isinstance(each, Tensor) for each in (*args[1:], *kwargs.values()))
        or not -value.visible_rank <= dim < value.visible_rank
    ):
        return _any(func, make, args, kwargs)
    check_history(value)
    dim = dim if dim < 0 else dim - value.visible_rank
    if len(args) > 1:
        result = func(value.raw, dim, *args[2:], **kwargs)
    else:
        result = func(value.raw, **{**kwargs, "dim": dim})
    if isinstance(result, Tensor):
        return make(result, value.axes)
    return type(result)([make(each, value.axes) for each in result])


def _of_one(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    return func(*[each.one() if isinstance(each, Hidden) else each for each in args], **kwargs)


def _refuse(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    leaves, _ = tree_flatten((args, dict(kwargs)))
    raise depends(merged(leaf.axes for leaf in leaves if isinstance(leaf, Hidden)), func)


def _getitem(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    table, index = args
    found = indexed(make, table, index)
    return batched(make, func, args, kwargs) if found is None else found


def _size(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    shape = torch.Size(args[0].visible_shape)
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    return shape if dim is None else shape[dim]


def _sizes(args: Args) -> Any:
    return args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]


def _expand(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    if kwargs or not isinstance(args[0], Hidden):
        return batched(make, func, args, kwargs)
    return expanded(make, args[0], _sizes(args))


def _reshape(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    sizes = _sizes(args)
    if kwargs or not isinstance(args[0], Hidden) or not all(isinstance(each, int) for each in sizes):
        return batched(make, func, args, kwargs)
    return reshaped(make, args[0], sizes)


def _unsqueeze(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    value, dim = args[0], args[1] if len(args) > 1 else kwargs["dim"]
    if not isinstance(value, Hidden) or not -value.visible_rank - 1 <= dim <= value.visible_rank:
        return batched(make, func, args, kwargs)
    check_history(value)
    return make(value.raw.unsqueeze(dim if dim < 0 else dim - value.visible_rank - 1), value.axes)


def _to(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    if any(isinstance(each, Tensor) for each in (*args[1:], *kwargs.values())):
        return batched(make, func, args, kwargs)
    return elementwise(make, func, args, kwargs)


def _contains(func: Callable[..., Any], make: Make, args: Args, kwargs: Kwargs) -> Any:
    return bool((args[0] == args[1]).any())


_SPECIAL: dict[str, Callable[..., Any]] = {
    "__getitem__": _getitem,
    "size": _size,
    "expand": _expand,
    "reshape": _reshape,
    "view": _reshape,
    "unsqueeze": _unsqueeze,
    "to": _to,
    "broadcast_tensors": lambda func, make, args, kwargs: broadcast_tensors(make, args),
    "_is_all_true": lambda func, make, args, kwargs: all_true(args),
    "equal": lambda func, make, args, kwargs: same(*args),
    "__contains__": _contains,
    "__iter__": lambda func, make, args, kwargs: iter(args[0].unbind(0)),
    "__repr__": lambda func, make, args, kwargs: shown(args[0]),
    "__format__": lambda func, make, args, kwargs: formatted(*args),
    "__deepcopy__": lambda func, make, args, kwargs: args[0].clone(),
    "__reduce_ex__": lambda func, make, args, kwargs: (make, (args[0].raw, args[0].axes)),
}
