"""Recording a run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, overload

from sumout.effects.handled import Handled
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.effects.trace import Trace, dense_edges
from sumout.effects.trace.shapes import append_to_message
from sumout.effects.trace.types import told_types

P = ParamSpec("P")
T = TypeVar("T")

GraphType = Literal["flat", "dense"]


def identify_dense_edges(trace: Trace) -> None:
    """Adds an edge between every two sample sites that the plates do not declare independent, in place."""
    for earlier, later in list(dense_edges(trace.nodes)):
        trace.add_edge(earlier, later)


class _Run(threading.local):
    """The record of this thread's run; one handler may record several threads at once.

    ``last`` holds that of the run which began last, whichever thread it is in.
    """

    trace: Trace

    def __init__(self, last: list[Trace]) -> None:
        self.last = last

    def __reduce__(self) -> tuple[Any, ...]:
        return _Run, ([Trace(self.last[0].graph_type)],)  # a copy of a handler begins with no run


class TraceMessenger(Messenger):
    """Records every ``sample`` and ``param`` site of a run.

    Args:
        graph_type: ``"flat"``, or ``"dense"`` to add the edges of ``identify_dense_edges``.
        param_only: whether only ``param`` sites are recorded.

    >>> from sumout.distributions import Normal
    >>> from sumout.effects.primitives import sample
    >>> with TraceMessenger() as tracer:
    ...     z = sample("z", Normal(0.0, 1.0))
    >>> tracer.trace.nodes["z"]["value"] is z
    True
    """

    def __init__(self, graph_type: GraphType | None = None, param_only: bool | None = None) -> None:
        self.graph_type: GraphType = "flat" if graph_type is None else graph_type
        self.param_only = bool(param_only)
        self._run = _Run([Trace(self.graph_type)])

    @property
    def trace(self) -> Trace:
        """The record of the run that is going on in this thread, or else of its last one.

        In a thread that had none, that of the run which began last in another thread.
        """
        run = self._run
        return run.trace if hasattr(run, "trace") else run.last[0]

    @trace.setter
    def trace(self, trace: Trace) -> None:
        run = self._run
        run.last[0] = trace
        if hasattr(run, "trace"):
            run.trace = trace

    def _begin(self) -> None:
        super()._begin()
        run = self._run
        run.trace = run.last[0] = Trace(self.graph_type)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        result = super().__exit__(exc_type, exc, trace)
        recorded = self._run.trace
        if self.param_only:
            for name in [name for name, site in recorded.nodes.items() if site.type != "param"]:
                recorded.remove_node(name)
        if self.graph_type == "dense":
            identify_dense_edges(recorded)
        return result

    def __call__(self, fn: Callable[P, T]) -> TraceHandler[P, T]:
        """``fn`` with a ``get_trace`` method."""
        if not callable(fn):
            raise ValueError(f"{fn!r} is not callable; trace's own arguments are given by keyword.")
        return TraceHandler(self, fn)

    def get_trace(self) -> Trace:
        """The trace so far, in a container of its own; its sites are those recorded."""
        return self.trace.shallow_copy()

    def _reset(self) -> None:
        before, self.trace = self.trace, Trace(self.graph_type)
        if "_INPUT" in before:
            self.trace.record(before.nodes["_INPUT"])

    def _pyro_post_sample(self, msg: Message) -> None:
        if self.param_only or msg.infer.get("_do_not_trace"):
            return
        self._run.trace.record(msg)

    def _pyro_post_param(self, msg: Message) -> None:
        self._run.trace.record(msg)


class TraceHandler(Handled[P, T]):
    """A function whose runs are recorded; ``get_trace(...)`` runs it and returns the record.

    The nodes ``"_INPUT"`` and ``"_RETURN"`` hold the arguments and the result. A ``ValueError`` or
    ``RuntimeError`` raised by the function ends with the table of the shapes seen so far.
    """

    msngr: TraceMessenger

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.msngr:
            self.msngr.trace.record(Message(type="args", name="_INPUT", args=args, kwargs=kwargs))
            try:
                result = self.fn(*args, **kwargs)
            except (ValueError, RuntimeError) as error:
                # Of nested traces the innermost, nearest to the error, tells its shapes.
                if not getattr(error, "_tells_shapes", False):
                    types = told_types(error, self.msngr.trace.nodes)
                    shapes = self.msngr.trace.format_shapes()
                    append_to_message(error, f"{types}\n{shapes}" if types else shapes)
                    error._tells_shapes = True  # type: ignore[union-attr]
                raise
            self.msngr.trace.record(Message(type="return", name="_RETURN", value=result))
        return result

    @property
    def trace(self) -> Trace:
        """The record of this thread's last run; in a thread that had none, of the last run of any."""
        return self.msngr.trace

    def get_trace(self, *args: P.args, **kwargs: P.kwargs) -> Trace:
        """Runs the function and returns the record of the run."""
        self(*args, **kwargs)
        return self.msngr.get_trace()


_form = wrap(TraceMessenger)


@overload
def trace(
    fn: None = None, graph_type: GraphType | None = None, param_only: bool | None = None
) -> TraceMessenger: ...
@overload
def trace(
    fn: Callable[P, T], graph_type: GraphType | None = None, param_only: bool | None = None
) -> TraceHandler[P, T]: ...
def trace(
    fn: Callable[..., Any] | None = None, graph_type: GraphType | None = None, param_only: bool | None = None
) -> TraceMessenger | TraceHandler[..., Any]:
    """Records a program's runs.

    Args:
        fn: a program; without one, the messenger is returned.
        graph_type: ``"flat"``, or ``"dense"`` for edges between all sites not known to be independent.
        param_only: whether only ``param`` sites are recorded.

    Raises:
        ValueError: if ``fn`` cannot be called.

    >>> from sumout.distributions import Normal
    >>> from sumout.effects.primitives import sample
    >>> def model(loc):
    ...     return sample("z", Normal(loc, 1.0)) ** 2
    >>> list(trace(model).get_trace(0.0))
    ['_INPUT', 'z', '_RETURN']
    """
    handled: Any = _form(fn, graph_type=graph_type, param_only=param_only)
    return handled  # type: ignore[no-any-return]
