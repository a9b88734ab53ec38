"""Chains of contexts, each of which sees only the last few before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from sumout.effects.handlers.reentrant import ReentrantMessenger
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Self = TypeVar("Self", bound="MarkovMessenger")


class _Contexts(threading.local):
    """The names of the sites of each context, and where this thread stands among the contexts."""

    def __init__(self) -> None:
        self.position = -1
        self.names: list[set[str]] = []
        self.left: dict[int, set[str]] = {}
        """Position -> the sites of the context that was left there last."""
        self.last = False
        """Whether this is known to be one of the last ``history`` steps, which a program may go on from."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Contexts, ()  # a copy is not entered


class MarkovMessenger(ReentrantMessenger):
    """Each time it is entered anew, a context begins that sees the last ``history`` contexts before it.

    On every sample site it writes into ``infer``: ``_markov_scope``, which counts for every site in reach in
    how many of the enclosing chains it is in reach; ``_markov_near_scope``, the same for one step more;
    ``_markov_depth``, the number of enclosing chains; ``_markov_last``, whether this is known to be one of the
    last steps of all of them.

    Args:
        history: the number of earlier contexts that are in reach.
        keep: whether contexts that were left are remembered, so that branches at the same level see each
            other.
        dim: not supported yet.
        name: not supported yet.

    Raises:
        ValueError: if ``history`` is negative.
        NotImplementedError: if ``dim`` or ``name`` is given.
    """

    def __init__(
        self, history: int = 1, keep: bool = False, dim: int | None = None, name: str | None = None
    ) -> None:
        if history < 0:
            raise ValueError(f"markov has history={history}; it counts earlier steps, so it is at least 0.")
        if dim is not None or name is not None:
            raise NotImplementedError("markov does not support dim and name yet; leave them out.")
        super().__init__()
        self.history = history
        self.keep = keep
        self.dim = dim
        self.name = name
        self._contexts = _Contexts()

    def __enter__(self: Self) -> Self:
        contexts = self._contexts
        contexts.position += 1
        contexts.left.pop(contexts.position + 1, None)
        if len(contexts.names) <= contexts.position:
            contexts.names.append(set())
        return super().__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        contexts = self._contexts
        if not self.keep:
            contexts.left[contexts.position] = contexts.names.pop()
        contexts.position -= 1
        return super().__exit__(exc_type, exc, trace)

    def _pyro_sample(self, msg: Message) -> None:
        if msg.done or type(msg.plain_fn).__name__ == "_Subsample":
            return
        contexts = self._contexts
        here = contexts.position
        infer = msg.infer
        reach = set().union(*contexts.names[max(0, here - self.history) : here + 1])
        _count(infer, "_markov_scope", reach)
        _count(infer, "_markov_near_scope", self._nearly_in_reach(reach))
        infer["_markov_depth"] = 1 + infer.get("_markov_depth", 0)
        infer["_markov_last"] = contexts.last and infer.get("_markov_last", True)
        contexts.names[here].add(msg.name or "")

    def _nearly_in_reach(self, reach: set[str]) -> set[str]:
        """Also a neighbouring branch, one that started from here, and what is one step further back."""
        contexts = self._contexts
        here = contexts.position
        nearly = reach.union(contexts.left.get(here, ()), contexts.left.get(here + 1, ()))
        if here > self.history:
            nearly |= contexts.names[here - self.history - 1]
        return nearly


def _count(infer: dict[str, Any], key: str, names: Collection[str]) -> None:
    """Adds one for each of the names; a plain dictionary, as most sites lie in one chain."""
    counts = infer.get(key)
    if counts is None:
        infer[key] = dict.fromkeys(names, 1)
    else:
        for name in names:
            counts[name] = counts.get(name, 0) + 1


class MarkovIterator(MarkovMessenger, Generic[T]):
    """A chain whose contexts are the steps of a loop: ``for t in markov(range(T))``."""

    def __init__(self, iterable: Iterable[T], history: int = 1, keep: bool = False) -> None:
        super().__init__(history, keep)
        self._iterable = iterable

    def __iter__(self) -> Iterator[T]:
        # Where the number of steps is not known, none is known to be among the last.
        known = isinstance(self._iterable, Sized)
        before_last = len(self._iterable) - max(1, self.history) if known else 0  # type: ignore[arg-type]
        try:
            with ExitStack() as entered:
                for step, value in enumerate(self._iterable, start=1):
                    entered.enter_context(self)
                    self._contexts.last = known and step > before_last
                    yield value
        except BaseException as error:
            Messenger.__exit__(self, type(error), error, error.__traceback__)  # where handlers did not nest
            raise


@overload
def markov(
    fn: None = None, history: int = 1, keep: bool = False, dim: int | None = None, name: str | None = None
) -> MarkovMessenger: ...
@overload
def markov(
    fn: F, history: int = 1, keep: bool = False, dim: int | None = None, name: str | None = None
) -> F: ...
@overload
def markov(
    fn: Iterable[T], history: int = 1, keep: bool = False, dim: int | None = None, name: str | None = None
) -> MarkovIterator[T]: ...
def markov(
    fn: Any = None, history: int = 1, keep: bool = False, dim: int | None = None, name: str | None = None
) -> Any:
    """Declares that each step depends on the last ``history`` steps alone.

    It is a loop (``for t in markov(range(T))``), a decorator of a recursive function (``@markov``), or a
    context manager that is entered once for each step (``with markov() as chain: ...``). Enumerated sites of
    steps out of reach give their tensor dimensions to new ones, so a chain of any length needs few.

    Args:
        fn: what is iterated, or the function; absent for a context manager or a decorator with arguments.
        history: the number of earlier steps that a step depends on.
        keep: whether neighbouring branches of a recursion at the same level may depend on each other.
        dim: not supported yet.
        name: not supported yet.

    Raises:
        ValueError: if ``history`` is negative or ``fn`` neither a function nor iterable.
        NotImplementedError: if ``dim`` or ``name`` is given.

    >>> [t for t in markov(range(3))]
    [0, 1, 2]
    """
    chain = MarkovMessenger(history=history, keep=keep, dim=dim, name=name)
    if fn is None:
        return chain
    if callable(fn):
        return chain(fn)
    if not isinstance(fn, Iterable):
        raise ValueError(
            f"markov takes a loop's range or a function and was given {fn!r}. Pass history by keyword, "
            "e.g. markov(range(10), history=2)."
        )
    return MarkovIterator(fn, history, keep)


def vectorized_markov(name: str, size: int, dim: int | None = None, history: int = 1) -> Any:
    raise NotImplementedError
