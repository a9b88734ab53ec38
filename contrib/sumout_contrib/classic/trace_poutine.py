"""Recording a run."""

from __future__ import annotations

from typing import Any, TypeVar

from sumout.poutine.trace_messenger import TraceMessenger
from sumout_contrib.classic.poutine import Poutine, Program
from sumout_contrib.classic.trace import Trace

Self = TypeVar("Self", bound="TracePoutine")


class TracePoutine(Poutine, TraceMessenger):
    """Records the input and output of every primitive as a site of a `Trace`.

    Args:
        fn: a program.
        graph_type: ``"flat"``, or ``"dense"`` for edges between all sites that are not known to be independent.

    >>> import networkx
    >>> from sumout import sample
    >>> from sumout.distributions import Normal
    >>> def fn(x):
    ...     a = sample("a", Normal(x, 1.0))
    ...     return sample("b", Normal(a, 1.0))
    >>> trace = TracePoutine(fn, graph_type="dense").get_trace(0.0)
    >>> list(trace), list(trace.edges), list(networkx.descendants(trace, "a"))
    (['_INPUT', 'a', 'b', '_RETURN'], [('a', 'b')], ['b'])
    """

    def __init__(self, fn: Program | None, graph_type: Any = None) -> None:
        Poutine.__init__(self, fn)
        TraceMessenger.__init__(self, graph_type)
        self.trace = Trace(self.trace)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program and records it."""
        return TraceMessenger.__call__(self, self._program)(*args, **kwargs)

    def get_trace(self, *args: Any, **kwargs: Any) -> Trace:
        """Runs the program and returns the record of the run; without a program, that of the last ``with``."""
        if self.fn is not None:
            self(*args, **kwargs)
        return Trace(self.trace)

    # The messenger begins a run with a trace of sumout's, and records into whatever trace stands there.

    def __enter__(self: Self) -> Self:
        super().__enter__()
        self.trace = Trace(self.trace)
        return self

    def _reset(self) -> None:
        super()._reset()
        self.trace = Trace(self.trace)
