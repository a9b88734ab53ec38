"""Independence contexts: which ``irange`` and ``iarange`` a site lies in."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, TypeVar

from sumout.poutine.runtime import Message
from sumout_contrib.classic.poutine import Poutine, Program

Self = TypeVar("Self", bound="IndepPoutine")


class CondIndepStackFrame(NamedTuple):
    """One enclosing independence context, as seen by a site.

    ``counter`` tells the elements of a loop apart. Sites in elements of different counters are independent,
    given what is outside. A vectorized context is one element, whose independence lies along a dimension that the
    first generation did not know; to the rest of sumout the frame says what is true of it, that it has no ``dim``.

    >>> CondIndepStackFrame("data", 1, vectorized=False)
    CondIndepStackFrame(name='data', counter=1, vectorized=False)
    """

    name: str
    counter: int
    vectorized: bool

    @property
    def dim(self) -> None:
        """No batch dimension is declared."""
        return None

    @property
    def size(self) -> int:
        """-1: the number of elements is not declared."""
        return -1

    @property
    def full_size(self) -> None:
        """``None``: nothing is subsampled."""
        return None

    @property
    def scale(self) -> float:
        """How many elements each present one stands for: one."""
        return 1.0


class _Entries(threading.local):
    """How often this thread has entered the context."""

    number = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _Entries, ()  # a copy begins anew


class IndepPoutine(Poutine):
    """Records an independence context on every site inside, in its ``cond_indep_stack``.

    A loop enters one and the same poutine for each of its elements, which the record counts from one. A
    vectorized context is entered for all of its elements at once, and its count stays at one.

    Args:
        fn: a program.
        name: tells the context from others.
        vectorized: whether the elements are parts of tensors rather than turns of a loop.

    >>> from sumout import sample
    >>> from sumout.distributions import Normal
    >>> from sumout_contrib.classic.trace_poutine import TracePoutine
    >>> def fn():
    ...     loop = IndepPoutine(None, "loop", vectorized=False)
    ...     for i in range(2):
    ...         with loop:
    ...             sample(f"x_{i}", Normal(0.0, 1.0))
    >>> trace = TracePoutine(fn, graph_type="dense").get_trace()
    >>> trace.nodes["x_1"]["cond_indep_stack"]
    (CondIndepStackFrame(name='loop', counter=2, vectorized=False),)
    >>> list(trace.edges)  # the elements are independent
    []
    """

    def __init__(self, fn: Program | None, name: str, vectorized: bool) -> None:
        super().__init__(fn)
        self.name = name
        self.vectorized = vectorized
        self._entries = _Entries()

    @property
    def counter(self) -> int:
        """The element that was entered last, from one; zero before the first."""
        return self._entries.number

    def __enter__(self: Self) -> Self:
        super().__enter__()
        self._entries.number = 1 if self.vectorized else self._entries.number + 1
        return self

    def _reset(self) -> None:
        super()._reset()
        self._entries.number = 0

    def _process_message(self, msg: Message) -> None:
        frame: Any = CondIndepStackFrame(self.name, self.counter, self.vectorized)
        msg.cond_indep_stack = (frame, *msg.cond_indep_stack)

    def _pyro_post_get_plates(self, msg: Message) -> None:
        msg.value = msg.cond_indep_stack
