"""Indexing of and by hidden values: ``table[z]``, ``table[x, y]``, ``probs[..., z, :]``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sumout.effects.hidden.axes import merged
from sumout.effects.hidden.value import Hidden, Make, check_history


def indexed(make: Make, table: Tensor, index: Any) -> Tensor | None:
    """``table[index]``; ``None`` where the index has parts that this does not know."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(_is_known(part) for part in parts):
        return None
    rank = table.visible_rank if isinstance(table, Hidden) else table.dim()
    filled = sum(1 for part in parts if part is not None and part is not Ellipsis)
    if sum(1 for part in parts if part is Ellipsis) > 1:
        raise IndexError(f"An index has one ellipsis (...) at most, and this has more: {parts}.")
    if filled > rank:
        return None  # torch says what is wrong with it.
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    place = next(number for number, part in enumerate(parts) if part is Ellipsis)
    parts[place : place + 1] = [slice(None)] * (rank - filled)
    tensors = [part for part in parts if isinstance(part, Tensor)]
    own = table.axes if isinstance(table, Hidden) else ()
    for each in (table, *tensors):
        if isinstance(each, Hidden):
            check_history(each)
    raw = table.raw if isinstance(table, Hidden) else table
    # First all but tensors, as torch does it too: they are positions after that.
    basic = [slice(None) if isinstance(part, Tensor) else part for part in parts]
    raw = raw[tuple([slice(None)] * len(own) + basic)]
    if not tensors:
        return make(raw, own)
    kinds = [part for part in parts if not isinstance(part, int)]  # an int's dimension is gone
    return _gathered(make, raw, own, kinds)


def _is_known(part: Any) -> bool:
    if isinstance(part, bool):
        return False
    if part is None or part is Ellipsis or isinstance(part, (int, slice)):
        return not isinstance(part, slice) or not any(
            isinstance(each, Tensor) for each in (part.start, part.stop, part.step)
        )
    return isinstance(part, Tensor) and part.dtype in (torch.int64, torch.int32, torch.int16, torch.int8)


def _gathered(make: Make, raw: Tensor, own: Any, kinds: list[Any]) -> Tensor:
    """Looks positions up along the dimensions of ``raw`` at which ``kinds`` has tensors.

    The result of the look-up has the axes first, then the dimensions of the positions, then the other dimensions;
    the positions' are moved to where torch has them for one value: to the place of the first, if all of them lie
    side by side, else in front. (Tensors without dimensions are like numbers: they are not counted.)
    """
    tensors = [kind for kind in kinds if isinstance(kind, Tensor)]
    axes = merged([own, *(each.axes for each in tensors if isinstance(each, Hidden))])
    ranks = [each.visible_rank if isinstance(each, Hidden) else each.dim() for each in tensors]
    rank = max(ranks)
    positions: list[Any] = []
    for number, axis in enumerate(axes):
        if axis in own:
            shape = [-1 if place == number else 1 for place in range(len(axes) + rank)]
            positions.append(torch.arange(axis.size, device=raw.device).reshape(shape))
    width = len(axes) + rank
    for kind in kinds:
        if isinstance(kind, Hidden):
            kind = kind.spread(axes, rank)
        elif isinstance(kind, Tensor):  # one without dimensions would be taken for a number
            kind = kind.reshape((1,) * (width - kind.dim()) + tuple(kind.shape))
        positions.append(kind if isinstance(kind, Tensor) else slice(None))
    found = raw[tuple(positions)]
    tensor_dims = [dim for dim, each in enumerate(positions) if isinstance(each, Tensor)]
    adjacent = tensor_dims == list(range(tensor_dims[0], tensor_dims[-1] + 1))
    before = tensor_dims[0] if adjacent else 0
    if before:  # torch left them in their place
        found = found.movedim(tuple(range(before, before + width)), tuple(range(width)))
    seen = [kind for kind in kinds if _has_dims(kind)]
    dims = [dim for dim, kind in enumerate(seen) if isinstance(kind, Tensor)]
    if rank and dims and dims == list(range(dims[0], dims[-1] + 1)) and dims[0]:
        start = len(axes)
        source = tuple(range(start, start + rank))
        found = found.movedim(source, tuple(dims[0] + place for place in source))
    return make(found, axes)


def _has_dims(kind: Any) -> bool:
    if isinstance(kind, Hidden):
        return kind.visible_rank > 0
    return not isinstance(kind, Tensor) or kind.dim() > 0
