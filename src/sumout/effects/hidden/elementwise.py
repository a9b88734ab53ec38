"""Functions that broadcast their arguments: the axes are dimensions like others, once they are lined up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sumout.effects.hidden.axes import merged
from sumout.effects.hidden.batched import batched
from sumout.effects.hidden.value import Hidden, Make, check_history


def elementwise(
    make: Make, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """``func`` of the arguments lined up by axes, and by the dimensions that one sees from the right."""
    tensors = [each for each in args if isinstance(each, Tensor)]
    tensors += [each for each in kwargs.values() if isinstance(each, Tensor)]
    hidden = [each for each in tensors if isinstance(each, Hidden)]
    for each in hidden:
        check_history(each)
    if len(tensors) == 1:
        (one,) = hidden
        raw = func(*[one.raw if each is one else each for each in args], **_raw_values(kwargs, one))
        return make(raw, one.axes) if isinstance(raw, Tensor) else raw
    axes = merged(each.axes for each in hidden)
    rank = max(each.visible_rank if isinstance(each, Hidden) else each.dim() for each in tensors)
    dtypes = {each.raw.dtype if isinstance(each, Hidden) else each.dtype for each in tensors}
    dtype = _common_dtype(tensors) if len(dtypes) > 1 else None

    def lined_up(each: Any) -> Any:
        if isinstance(each, Hidden):
            each = each.spread(axes, rank)
        elif not isinstance(each, Tensor):
            return each
        return each if dtype is None or each.dtype in (torch.bool, dtype) else each.to(dtype)

    result = func(*map(lined_up, args), **{key: lined_up(each) for key, each in kwargs.items()})
    sizes = [axis.size for axis in axes]
    if not isinstance(result, Tensor) or list(result.shape[: len(axes)]) != sizes:
        return batched(make, func, args, kwargs)
    return make(result, axes)


def _raw_values(kwargs: Mapping[str, Any], one: Hidden) -> dict[str, Any]:
    return {key: one.raw if each is one else each for key, each in kwargs.items()}


def _common_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """The type that one value of each would be promoted to: tensors without dimensions count less."""
    like = []
    for each in tensors:
        rank = each.visible_rank if isinstance(each, Hidden) else each.dim()
        dtype = each.raw.dtype if isinstance(each, Hidden) else each.dtype
        if dtype != torch.bool:
            like.append(torch.empty((1,) * min(rank, 1), dtype=dtype))
    found = like[0]
    for each in like[1:]:
        shape = common_shape([found.shape, each.shape])
        found = torch.empty(shape, dtype=torch.result_type(found, each))
    return found.dtype


def broadcast_tensors(make: Make, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Each with its own axes in the common shape that one sees."""
    tensors = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
    shape = common_shape([each.visible_shape if isinstance(each, Hidden) else each.shape for each in tensors])
    return tuple([expanded(make, each, shape) for each in tensors])


def common_shape(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The shape that tensors of these shapes broadcast to; a small part of the time that torch's own function takes.

    Raises:
        RuntimeError: if they do not.

    >>> common_shape([(3, 1), (), (4,)])
    (3, 4)
    """
    longest = max(shapes, key=len)
    if all(shape == longest[len(longest) - len(shape) :] for shape in shapes):
        return tuple(longest)
    sizes = list(longest)
    for shape in shapes:
        for place, size in enumerate(shape, start=len(sizes) - len(shape)):
            if size != 1 and sizes[place] != size:
                if sizes[place] != 1:
                    raise RuntimeError(f"Shapes {[tuple(each) for each in shapes]} do not broadcast.")
                sizes[place] = size
    return tuple(sizes)


def expanded(make: Make, each: Tensor, shape: Sequence[int]) -> Tensor:
    """The value in a larger shape."""
    if not isinstance(each, Hidden):
        return each.expand(shape)
    check_history(each)
    rank = max(len(shape), each.visible_rank)
    sizes = [axis.size for axis in each.axes]
    return make(each.spread(each.axes, rank).expand(*sizes, *shape), each.axes)


def reshaped(make: Make, each: Hidden, shape: Sequence[int]) -> Tensor:
    """The value in another shape."""
    check_history(each)
    return make(each.raw.reshape([*[axis.size for axis in each.axes], *shape]), each.axes)
