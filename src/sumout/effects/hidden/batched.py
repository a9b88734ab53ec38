"""Any function of torch, for all values at once: the rule where there is no shorter one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from sumout.effects.hidden.axes import Axes, Axis, merged
from sumout.effects.hidden.decisions import depends
from sumout.effects.hidden.value import Hidden, Make, check_history
from sumout.errors import EnumerationError

_DATA_DEPENDENT = (
    "vmap",
    "data-dependent",
    "data dependent",
    "dynamic",
    "Batching rule not implemented",
    "tensor to be equal size",
)


def batched(make: Make, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """``func`` under ``torch.vmap``, once for each axis.

    Raises:
        ControlFlowError: if what the function does depends on numbers in its arguments, as the size of what
            ``nonzero`` gives.
    """
    leaves, spec = tree_flatten((args, dict(kwargs)))
    hidden = [leaf for leaf in leaves if isinstance(leaf, Hidden)]
    for each in hidden:
        check_history(each)
    axes = merged(each.axes for each in hidden)
    shape_of_result: list[Any] = []

    def call(*raws: Tensor) -> tuple[Tensor, ...]:
        given = iter(raws)
        plain = [next(given) if isinstance(leaf, Hidden) else leaf for leaf in leaves]
        plain_args, plain_kwargs = tree_unflatten(plain, spec)
        found, of_found = tree_flatten(func(*plain_args, **plain_kwargs))
        shape_of_result[:] = [None if isinstance(each, Tensor) else each for each in found], of_found
        return tuple(each for each in found if isinstance(each, Tensor))

    run: Callable[..., Any] = call
    for axis in reversed(axes):
        in_dims = tuple([0 if axis in each.axes else None for each in hidden])
        run = torch.vmap(run, in_dims=in_dims, randomness="different")
    # Where vmap takes one value after the other, it says so; here that is meant.
    torch._C._functorch._set_vmap_fallback_warning_enabled(False)  # type: ignore[attr-defined]
    try:
        results = iter(run(*[each.raw for each in hidden]))
    except RuntimeError as error:
        if any(word in str(error) for word in _DATA_DEPENDENT):
            raise depends(axes, func) from error
        raise
    finally:
        torch._C._functorch._set_vmap_fallback_warning_enabled(True)  # type: ignore[attr-defined]
    rest, of_result = shape_of_result
    wrapped = [trimmed(make, next(results), axes) if each is None else each for each in rest]
    return tree_unflatten(wrapped, of_result)


def trimmed(make: Make, raw: Tensor, axes: Axes) -> Tensor:
    """The value without axes along which it is one number repeated, as results are that do not depend on them."""
    kept: list[Axis] = []
    for axis in axes:
        if raw.stride(len(kept)) == 0 and axis.size > 1:
            raw = raw.select(len(kept), 0)
        else:
            kept.append(axis)
    return make(raw, tuple(kept)) if kept else raw


def in_place(make: Make, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A function that changes its first argument.

    Raises:
        EnumerationError: if that would have to have more values than it has.
    """
    target = args[0] if args else None
    leaves, _ = tree_flatten((args, dict(kwargs)))
    axes = merged(leaf.axes for leaf in leaves if isinstance(leaf, Hidden))
    name = getattr(func, "__name__", str(func))
    if not isinstance(target, Hidden) or target.axes != axes or kwargs.get("out") is not None:
        raise EnumerationError(
            f"{name} would put values of enumerated sites ({', '.join(repr(axis.site) for axis in axes)}) into a "
            "tensor that has one value. Make a new tensor instead: torch.where, torch.stack, out-of-place functions."
        )

    def change(changed: Tensor, *rest: Any, **more: Any) -> Tensor:
        if name == "__setitem__" and _is_mask(rest[0], changed) and _is_number(rest[1]):
            changed.masked_fill_(*rest)  # which vmap knows
        else:
            func(changed, *rest, **more)
        return changed.new_zeros(())

    batched(make, change, args, kwargs)
    return target


def _is_mask(index: Any, changed: Tensor) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool and index.shape == changed.shape


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.dim() == 0)
