"""Sequential enumeration: running a program from partial traces in a queue."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from sumout.effects.handlers.enum import EnumMessenger
from sumout.effects.handlers.escape import Escape, EscapeMessenger
from sumout.effects.handlers.replay import ReplayMessenger
from sumout.effects.handlers.trace import TraceMessenger
from sumout.effects.message import Message
from sumout.effects.stack import NonlocalExit, state
from sumout.effects.trace import Trace, discrete_escape, enum_extend
from sumout.errors import ModelError

P = ParamSpec("P")
T = TypeVar("T")

MAX_TRIES = 1_000_000
PATIENCE = 0.2
"""Seconds after which a queue that is empty is believed: what was put into one of another process comes late."""


class TraceQueue(Protocol):
    """What is asked of a queue: those of ``queue`` and ``multiprocessing`` have it."""

    def empty(self) -> bool: ...

    def get(self) -> Trace: ...

    def put(self, item: Trace, /) -> None: ...


class ExtendFn(Protocol):
    """Makes of a partial trace and a site traces with one more site."""

    def __call__(self, trace: Trace, msg: Message, *, num_samples: int) -> Iterable[Trace]: ...


EscapeFn = Callable[[Trace, Message], object]


@overload
def queue(
    fn: None = None,
    queue: TraceQueue | None = None,
    max_tries: int | None = None,
    extend_fn: ExtendFn | None = None,
    escape_fn: EscapeFn | None = None,
    num_samples: int | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
@overload
def queue(
    fn: Callable[P, T],
    queue: TraceQueue | None = None,
    max_tries: int | None = None,
    extend_fn: ExtendFn | None = None,
    escape_fn: EscapeFn | None = None,
    num_samples: int | None = None,
) -> Callable[P, T]: ...
def queue(
    fn: Callable[..., Any] | None = None,
    queue: TraceQueue | None = None,
    max_tries: int | None = None,
    extend_fn: ExtendFn | None = None,
    escape_fn: EscapeFn | None = None,
    num_samples: int | None = None,
) -> Any:
    """Enumerates one run after another: each call takes partial traces from a queue until a run is complete.

    A partial trace is replayed. At the first site that ``escape_fn`` chooses the run is left, traces that go on
    from there are put into the queue, and the next one is taken. Begin with an empty ``Trace()`` in the queue and
    call until the queue is empty; a last-in-first-out queue stays short. By default every discrete site takes each
    of its values. A handler outside sees the complete run alone.

    Args:
        fn: a program; without one, a decorator is returned.
        queue: partial traces; has ``empty()``, ``get()`` and ``put(trace)``.
        max_tries: how many partial traces may be taken for one complete run; 1,000,000 by default.
        extend_fn: ``extend_fn(trace, site, num_samples=...)`` gives traces with one more site; ``enum_extend`` by
            default.
        escape_fn: ``escape_fn(trace, site)`` tells whether to leave there; ``discrete_escape`` by default.
        num_samples: passed to ``extend_fn``; -1, for all, by default.

    Returns:
        A function like ``fn``, which returns what ``fn`` returns in the complete run.

    Raises:
        ModelError: without a queue; when the function is called and the queue is or becomes empty, or when
            ``max_tries`` are used up.

    >>> from queue import LifoQueue
    >>> from sumout.distributions import Bernoulli
    >>> from sumout.effects.primitives import sample
    >>> partial_traces = LifoQueue()
    >>> partial_traces.put(Trace())
    >>> def model():
    ...     return [int(sample(name, Bernoulli(0.5))) for name in "ab"]
    >>> each_run = queue(model, queue=partial_traces)
    >>> while not partial_traces.empty():
    ...     each_run()
    [1, 1]
    [1, 0]
    [0, 1]
    [0, 0]
    """
    if fn is not None and not callable(fn):
        raise ModelError(
            f"queue takes a program first and was given {fn!r}. Pass the queue by keyword, e.g. "
            "queue(model, queue=LifoQueue())."
        )
    if queue is None:
        raise ModelError(
            "queue needs a queue of partial traces: q = LifoQueue(); q.put(Trace()); queue(model, queue=q)."
        )
    partial_traces = queue
    tries = MAX_TRIES if max_tries is None else max_tries
    extend: ExtendFn = enum_extend if extend_fn is None else extend_fn
    leave: EscapeFn = discrete_escape if escape_fn is None else escape_fn
    number = -1 if num_samples is None else num_samples

    def decorate(program: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(program, updated=())
        def first_complete(*args: Any, **kwargs: Any) -> Any:
            for _ in range(tries):
                before = _take(partial_traces)
                replayed = ReplayMessenger(trace=before)(program)
                run = TraceMessenger()(EscapeMessenger(functools.partial(leave, before))(replayed))
                try:
                    return run(*args, **kwargs)
                except NonlocalExit as exit:
                    if isinstance(exit, Escape) and exit.by in state.stack:
                        raise  # It leaves a program around this one.
                    exit.reset_stack()
                    _note_enumerated_dims(exit.site)
                    for longer in extend(run.trace, exit.site, num_samples=number):
                        partial_traces.put(longer)
            raise ModelError(
                f"No run was complete after max_tries={tries} partial traces. Raise max_tries; take the traces last "
                "in, first out (LifoQueue); or let escape_fn choose fewer sites."
            )

        return first_complete

    return decorate if fn is None else decorate(fn)


def _note_enumerated_dims(site: Message) -> None:
    """Tells of a site along which of its dimensions an ``enum`` outside puts values: it was left before that."""
    for frame in state.stack:
        first = frame.first_dim if isinstance(frame, EnumMessenger) else None
        if first is not None:
            dims = range(-len(getattr(site.fn, "batch_shape", ())), first + 1)
            site.enum_dims = {**dict.fromkeys(dims, ""), **(site.enum_dims or {})}


def _take(partial_traces: TraceQueue) -> Trace:
    until = time.monotonic() + PATIENCE
    while partial_traces.empty():
        if time.monotonic() > until:
            raise ModelError(
                "The queue has no partial trace left. Put an empty Trace() into it to begin, and stop calling when "
                "queue.empty()."
            )
        time.sleep(0.01)
    return partial_traces.get()
