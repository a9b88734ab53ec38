"""Handlers that may be entered again while they are active."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, TypeVar

from sumout.effects.messenger import Messenger

Self = TypeVar("Self", bound="ReentrantMessenger")


class _Depth(threading.local):
    """How often this thread has entered the handler; a decorated function may run in many threads."""

    entered = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _Depth, ()  # a copy is not entered


class ReentrantMessenger(Messenger):
    """A handler that is once on the stack, from the first entry to the last exit.

    >>> handler = ReentrantMessenger()
    >>> with handler, handler:
    ...     pass
    """

    def __init__(self) -> None:
        super().__init__()
        self._depth = _Depth()

    def __enter__(self: Self) -> Self:
        if self._depth.entered == 0:
            super().__enter__()
        self._depth.entered += 1
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._depth.entered -= 1
        if self._depth.entered == 0:
            return super().__exit__(exc_type, exc, trace)
        return None
