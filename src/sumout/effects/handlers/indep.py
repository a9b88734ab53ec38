"""Independence contexts: which plates a site lies in."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from sumout.effects.frame import CondIndepStackFrame
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.effects.stack import state
from sumout.errors import PlateError

ANY_SIZE = -1
"""The size of a plate that was given none; torch's sign for a size that is left open."""


class _Place(threading.local):
    """Where a plate stands in this thread: one plate object may be used by several."""

    def __init__(self, dim: int | None, frame: CondIndepStackFrame) -> None:
        self.dim = dim
        self.iterated = False
        self.frame = frame

    def __reduce__(self) -> tuple[Any, ...]:
        return _Place, (self.dim, self.frame)  # a copy of a plate starts from where this thread's stands


class IndepMessenger(Messenger):
    """Records an independence context on every site inside; ``plate`` builds on it.

    Entered with ``with`` it is a tensor dimension, iterated it is a loop; one object is used in one way only.
    A dimension that is given automatically is kept for later uses of the same object.

    Args:
        name: tells the context from others.
        size: how many elements it has; without it, nothing is checked.
        dim: the negative batch dimension of its elements; by default the rightmost that is free.
        device: where ``indices`` live.

    Raises:
        PlateError: without a name, if the size is not a positive integer or the dimension is taken.

    >>> with IndepMessenger("rows", 3) as rows:
    ...     rows.dim, rows.indices
    (-1, tensor([0, 1, 2]))
    """

    def __init__(
        self,
        name: str | None = None,
        size: SupportsIndex | None = None,
        dim: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if name is None:
            raise PlateError(
                "An independence context has no name, by which a model and a guide share it. Name it: "
                f"{type(self).__name__}('data', ...)."
            )
        super().__init__()
        self.name = name
        self.size = ANY_SIZE if size is None or size == ANY_SIZE else checked_size(name, size)
        self.device = device
        self._indices: Any = None
        dim = None if dim is None else _checked_dim(name, dim)
        self._place = _Place(dim, self._frame(dim, 0))

    def _frame(self, dim: int | None, counter: int) -> CondIndepStackFrame:
        return CondIndepStackFrame(self.name, dim, self.size, counter)

    @property
    def dim(self) -> int | None:
        """The batch dimension; ``None`` for a loop, and before the first automatic choice."""
        return self._place.dim

    @property
    def counter(self) -> int:
        """The number of the element that a loop has reached, from one; zero for a tensor dimension."""
        return self._place.frame.counter

    @property
    def indices(self) -> Tensor:
        """The elements: ``0, ..., size - 1``."""
        if self._indices is None:
            if self.size == ANY_SIZE:
                raise PlateError(
                    f"Plate {self.name!r} has no size, so its elements are not known. Give it one."
                )
            self._indices = torch.arange(self.size, device=self.device)
        indices: Tensor = self._indices
        return indices

    def __enter__(self) -> Any:
        place = self._place
        if place.iterated:
            raise PlateError(
                f"Plate {self.name!r} is iterated and entered with 'with'. Make two plates, one for each use."
            )
        place.dim = state.dims.allocate(self.name, place.dim)
        try:
            place.frame = self._frame(place.dim, 0)
            super().__enter__()
        except BaseException:
            state.dims.free(self.name, place.dim)
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        place = self._place
        if place.dim is not None:
            state.dims.free(self.name, place.dim)
        return super().__exit__(exc_type, exc, trace)

    def __iter__(self) -> Iterator[Any]:
        place = self._place
        if place.dim is not None:
            raise PlateError(
                f"Plate {self.name!r} has a tensor dimension ({place.dim}) and cannot be iterated too. "
                "Make two plates, one for each use; one that is iterated takes no dim."
            )
        place.iterated = True
        for counter, index in enumerate(self.indices, start=1):
            Messenger.__enter__(self)  # refused inside another loop, which goes on with its own frame
            place.frame = self._frame(None, counter)
            try:
                yield index.item() if isinstance(index, Tensor) else index
                Messenger.__exit__(self, None, None, None)  # refused if another loop goes on inside this step
            except BaseException as error:
                Messenger.__exit__(self, type(error), error, error.__traceback__)
                raise

    def _process_message(self, msg: Message) -> None:
        msg.cond_indep_stack = (self._place.frame, *msg.cond_indep_stack)

    def _pyro_post_get_plates(self, msg: Message) -> None:
        msg.value = msg.cond_indep_stack


def _checked_dim(name: str, dim: SupportsIndex) -> int:
    try:
        return operator.index(dim)
    except TypeError:
        raise PlateError(
            f"Plate {name!r} asks for dim={dim!r}; a dimension is a negative integer, e.g. dim=-1."
        ) from None


def checked_size(name: str, size: SupportsIndex) -> int:
    """The size as a positive integer, or a PlateError."""
    try:
        number = operator.index(size)
    except TypeError:
        raise PlateError(
            f"Plate {name!r} has size {size!r}; a size is an integer, e.g. plate({name!r}, len(data))."
        ) from None
    if number < 1:
        raise PlateError(f"Plate {name!r} has size {number}; a plate has at least one element.")
    return number
