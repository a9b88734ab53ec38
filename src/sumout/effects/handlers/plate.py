"""Plates: independence, subsampling and broadcasting together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from sumout.effects.handlers.broadcast import expand_to_plates
from sumout.effects.handlers.subsample import SubsampleMessenger
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger, block_messengers
from sumout.errors import PlateError


class PlateMessenger(SubsampleMessenger):
    """Declares that what is inside is independent, element by element; see the primitive ``plate``.

    As a context manager it gives the indices of its elements, iterated it gives them one by one.

    >>> with PlateMessenger("data", 3) as indices:
    ...     indices
    tensor([0, 1, 2])
    >>> list(PlateMessenger("data", 3))
    [0, 1, 2]
    """

    def __enter__(self) -> Any:
        super().__enter__()
        return self._indices

    def _process_message(self, msg: Message) -> None:
        msg.cond_indep_stack = (self._place.frame, *msg.cond_indep_stack)
        if self._scale != 1.0:
            msg.scale = msg.scale * self._scale
        if msg.type == "sample":
            expand_to_plates(msg)

    def _pyro_post_sample(self, msg: Message) -> None:
        """Compares data with the plate: they have its size, or size one, along its dimension."""
        if not msg.is_observed:
            return
        value, size, dim = msg.value, self.subsample_size, self._place.frame.dim
        if dim is None or not isinstance(value, Tensor) or size < 0:
            return
        event_dim = getattr(msg.plain_fn, "event_dim", None)
        if event_dim is None:
            return
        axis = dim - event_dim
        if value.dim() >= -axis and value.shape[axis] not in (1, size):
            raise PlateError(
                f"Site {msg.name!r} observes data of shape {tuple(value.shape)}: {value.shape[axis]} along "
                f"dim {dim}, which is plate {self.name!r} of size {size}; its distribution has batch shape "
                f"{tuple(msg.fn.batch_shape)}. Give the plate the size of the data, "
                "or a subsample its data[indices]."
            )


@contextmanager
def block_plate(name: str | None = None, dim: int | None = None, *, strict: bool = True) -> Iterator[None]:
    """Steps out of one enclosing plate for a while, for instance to sample a global variable inside it.

    Args:
        name: the plate's name, or
        dim: its dimension; one of the two is given.
        strict: whether it is an error that there is no such plate.

    Raises:
        PlateError: if both or none of ``name`` and ``dim`` are given, or ``strict`` and no plate matches.

    >>> from sumout.effects.stack import get_plates
    >>> with PlateMessenger("data", 3), block_plate("data"):
    ...     get_plates()
    ()
    """
    if (name is None) == (dim is None):
        raise PlateError("block_plate takes a name or a dim, e.g. block_plate('data').")

    def matches(frame: Messenger) -> bool:
        return isinstance(frame, PlateMessenger) and (frame.name == name if dim is None else frame.dim == dim)

    with block_messengers(matches) as blocked:
        if strict and len(blocked) != 1:
            wanted = f"named {name!r}" if dim is None else f"at dim {dim}"
            raise PlateError(
                f"block_plate found {len(blocked)} active plates {wanted}. "
                "Enter the plate first, or say strict=False."
            )
        yield
