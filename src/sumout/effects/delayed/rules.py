"""What torch's functions make of delayed values.

Each function that keeps a value affine, or a power, has a rule; functions that only ask for shapes and types are
answered by the probe; all others give a value of unknown form, which is an error only where it is needed. What would
write into tensors, or gives numbers, is an error at once.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sumout.effects.delayed import arithmetic as _arithmetic  # noqa: F401  (rules)
from sumout.effects.delayed import linear as _linear  # noqa: F401  (rules)
from sumout.effects.delayed.moves import CASTS, JOINS, MOVES, cast_value, join, move
from sumout.effects.delayed.registry import RULES, WHOLE, delayed_in, mapped, probes
from sumout.effects.delayed.value import Delayed
from sumout.errors import ModelError

_SHAPE_ONLY = frozenset(
    """
    shape size dim ndim ndimension numel nelement __len__ dtype device layout is_floating_point is_complex
    is_contiguous stride storage_offset element_size is_signed requires_grad grad_fn is_leaf result_type
    promote_types new_zeros new_ones new_empty zeros_like ones_like empty_like rand_like randn_like get_device
    names has_names is_same_size _version itemsize nbytes __hash__ can_cast __dir__ is_inference grad
    is_sparse is_sparse_csr is_cuda is_cpu is_meta is_mps is_quantized is_nested is_mkldnn is_xpu is_conj is_neg
    """.split()  # noqa: SIM905  (a list of fifty strings reads worse)
)
_WRITES = frozenset(
    """
    __setitem__ __delitem__ __iadd__ __isub__ __imul__ __itruediv__ __idiv__ __ipow__ __ifloordiv__ __imod__
    __iand__ __ior__ __ixor__ __ilshift__ __irshift__ __set__
    """.split()  # noqa: SIM905
)
_LIKE = frozenset(["expand_as", "view_as", "reshape_as", "type_as"])
_FILLED = frozenset(["new_full", "full_like", "new_tensor"])


def apply(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``func(*args, **kwargs)`` where some arguments are delayed."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":  # A property, such as x.T
        name = func.__self__.__name__
        if name in _SHAPE_ONLY:
            return func(args[0].probe)
    if not args:
        first = next((each for each in ("input", "self") if each in kwargs), None)
        if first is not None:
            kwargs = dict(kwargs)
            args = (kwargs.pop(first),)
    _refuse_writing(name, args, kwargs)
    if name in _LIKE and len(args) > 1:
        args = (args[0], *probes(args[1:]))
        kwargs = probes(kwargs)
        if not isinstance(args[0], Delayed):
            return func(*args, **kwargs)
    if name in WHOLE:
        found = _found(func, name, args, kwargs)
        if found is not None:
            return found
    plain = func(*probes(args), **probes(kwargs))
    if name in _SHAPE_ONLY:
        return plain
    if name in CASTS and not isinstance(args[0], Delayed):
        return plain  # Another tensor, made like a delayed one.
    if name in _FILLED and not delayed_in((args[1:], kwargs)):
        return plain
    if plain is NotImplemented:
        return plain
    fitting = _fitting(_found(func, name, args, kwargs), plain)
    return fitting[0] if fitting is not None else _unknown(name, plain, args, kwargs)


def _found(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if name in MOVES:
        return move(func, name, args, kwargs)
    if name in JOINS:
        return join(func, args, kwargs)
    if name in CASTS:
        return cast_value(func, args, kwargs)
    made = RULES.get(name)
    if made is None:
        return None
    try:
        return made(*args, **kwargs)
    except TypeError:  # Keywords that the rule does not know.
        return None


def _fitting(found: Any, plain: Any) -> tuple[Any] | None:
    """What a rule gives, in a tuple, if it has the shape that it should have."""
    if found is None:
        return None
    if isinstance(plain, Tensor):
        return (found,) if found.shape == plain.shape else None
    return (found,)


def _refuse_writing(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises ``ModelError`` for functions that write their result into a tensor."""
    into_first = name in _WRITES or (name.endswith("_") and not name.endswith("__"))
    if not into_first and kwargs.get("out") is None and kwargs.get("inplace") is not True:
        return
    names = " and ".join(sorted({repr(site) for each in delayed_in((args, kwargs)) for site in each.sites}))
    raise ModelError(
        f"{name!r} writes into a tensor what depends on the delayed site {names}, which has no numbers yet. Make a new "
        "tensor: x = x + y for x += y, torch.stack, torch.cat or torch.where for x[i] = y, without out and inplace."
    )


def _unknown(name: str, plain: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A result that depends on delayed sites in a way that is not kept."""
    delayed = delayed_in((args, kwargs))
    why = next((each.unknown for each in delayed if each.unknown), name.strip("_"))
    links = tuple({link.site: link for each in delayed for link in each.links}.values())
    if not _only_tensors(plain):
        delayed[0].refuse(f"number, by {name!r}")
    if name == "broadcast_tensors" and len(plain) == len(args):  # Each by itself.
        return [
            Delayed.made(each, arg.links, unknown=why) if isinstance(arg, Delayed) else each
            for each, arg in zip(plain, args, strict=True)
        ]
    return mapped(plain, lambda each: Delayed.made(each, links, unknown=why))


def _only_tensors(result: Any) -> bool:
    """Whether a result tells no number of a probe."""
    if isinstance(result, (tuple, list)):
        return all(map(_only_tensors, result))
    return isinstance(result, Tensor)


Delayed.apply = staticmethod(apply)
