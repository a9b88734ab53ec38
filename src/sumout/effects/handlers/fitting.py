"""Whether a mask or a scale fits the sites that it is applied to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sumout.effects.handlers.enum import EnumMessenger
from sumout.effects.handlers.replay import ReplayMessenger
from sumout.effects.message import Message
from sumout.effects.stack import state
from sumout.effects.trace import tensor_plates
from sumout.errors import ModelError


def check_fits(what: str, weights: Any, msg: Message) -> None:
    """Checks that elements of a mask or scale belong to elements of a site's log-probability.

    Along each dimension where there is more than one of them, the site has as many; or it has one and lies in a
    plate of that size, or an enumerated site has its values there. Else the log-probability would be
    broadcast, and the sum over it count the site more than once.

    Args:
        what: ``"mask"`` or ``"scale"``.
        weights: the tensor, of more than one element.
        msg: a sample site that all handlers have seen.

    Raises:
        ModelError: naming the site, the shapes, the plates and the remedy.
    """
    if not hasattr(msg.plain_fn, "batch_shape") or msg.infer.get("_deterministic"):
        return
    shape, batch_shape = weights.shape, tuple(msg.batch_shape)
    rank = len(shape)
    if batch_shape[-rank:] == shape:
        return
    plates = tensor_plates(msg)
    scored = _scored_shape(msg)
    for dim in range(-rank, 0):
        size = shape[dim]
        own = scored[dim] if len(scored) >= -dim else 1
        if size in (1, own):
            continue
        plate = plates.get(dim)
        if own == 1 and (dim in (msg.enum_dims or ()) or (plate is not None and plate.size in (size, -1))):
            continue
        if own == 1 and plate is None and msg.enum_dims is None and _may_be_enumerated(dim):
            continue
        raise ModelError(_explain(what, shape, msg, dim))


def _may_be_enumerated(dim: int) -> bool:
    """Whether values may run along a dimension without the site's knowing: of a replayed trace, or outside a block."""
    for frame in state.stack:
        if isinstance(frame, EnumMessenger) and frame.first_dim is not None and dim <= frame.first_dim:
            return True
        replayed = frame.trace if isinstance(frame, ReplayMessenger) else None
        if replayed is not None and any(dim in (site.enum_dims or ()) for site in replayed.nodes.values()):
            return True
    return False


def _scored_shape(msg: Message) -> Sequence[int]:
    """The batch shape of the site, and of its value where that has more dimensions."""
    batch_shape, value = msg.batch_shape, msg.value
    if not isinstance(value, Tensor):
        return batch_shape
    of_value = value.shape[: value.dim() - msg.plain_fn.event_dim]
    short, long = sorted((tuple(batch_shape), tuple(of_value)), key=len)
    padded = (1,) * (len(long) - len(short)) + short
    return [max(sizes) for sizes in zip(padded, long, strict=True)]


def _explain(what: str, shape: Sequence[int], msg: Message, dim: int) -> str:
    frames = tensor_plates(msg)
    plates = ", ".join(f"{frame.name!r} (dim {at}, size {frame.size})" for at, frame in frames.items())
    inside = f"in plates {plates}" if plates else "in no plate"
    if dim in frames:
        remedy = (
            f"Give it size {frames[dim].size} (or 1) along dim {dim}; of a subsampled plate take its indices."
        )
    else:
        remedy = f"Declare dim {dim} with a plate around the site, or apply the {what} to the sites of its shape alone."
    return (
        f"A {what} of shape {tuple(shape)} does not fit site {msg.name!r} of batch shape {tuple(msg.batch_shape)} "
        f"{inside}: {shape[dim]} along dim {dim}. {remedy}"
    )
