"""Chains of contexts, each of which sees only the last few before it."""

from __future__ import annotations

import operator
import threading
from types import TracebackType
from typing import Any, NamedTuple, SupportsIndex, TypeVar

from sumout.effects.handlers.reentrant import ReentrantMessenger
from sumout.effects.message import Message
from sumout.effects.steps import ChainStep
from sumout.errors import ModelError

Self = TypeVar("Self", bound="MarkovMessenger")


class Place(NamedTuple):
    """Where a site stands in a run through a chain: the number of its context."""

    run: object
    position: int
    history: int

    def sees(self, earlier: Place) -> bool:
        """Whether an earlier place is in reach; there is nothing against it if it is in another run."""
        return self.run is not earlier.run or self.position - earlier.position <= self.history


Names = dict[str, int]
"""The names of sites, each with a one."""


class _Contexts(threading.local):
    """The names of the sites of each context, and where this thread stands among the contexts."""

    def __init__(self) -> None:
        self.position = -1
        self.names: list[Names] = []
        self.left: dict[int, Names] = {}
        """Position -> the sites of the context that was left there last."""
        self.seen: tuple[Names, Names] | None = None
        """The sites in reach of the next site, and those one step further back too; ``None`` where a context was
        entered or left since they were last looked for."""
        self.step: ChainStep | None = None
        """Where the loop of a chain with a name stands."""
        self.given: dict[str, Message] = {}
        """The sites of such a chain by name, as far as they have values of their own."""
        self.run = object()
        """This run through the chain, which may be run through again."""
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
        dim: the batch dimension of a chain that takes its steps at once, which only a loop does
            (``vectorized_markov``).
        name: tells the chain from others; inference matches chains of a model and a guide by it.

    Raises:
        ModelError: if ``history`` is no natural number; when entered with a ``dim``.
    """

    def __init__(
        self, history: int = 1, keep: bool = False, dim: int | None = None, name: str | None = None
    ) -> None:
        super().__init__()
        self.history = _checked_history(history)
        self.keep = keep
        self.dim = dim
        self.name = name
        self._contexts = _Contexts()

    def __enter__(self: Self) -> Self:
        if self.dim is not None and type(self) is MarkovMessenger:
            raise ModelError(
                f"markov has dim={self.dim} and is no loop. Only the steps of a loop can run along a dimension: "
                "for t in markov(range(T), dim=-1, name='time')."
            )
        super().__enter__()
        contexts = self._contexts
        contexts.seen = None
        contexts.position += 1
        if contexts.position == 0:
            contexts.run = object()
        contexts.left.pop(contexts.position + 1, None)
        if len(contexts.names) <= contexts.position:
            contexts.names.append({})
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        contexts = self._contexts
        contexts.seen = None
        if not self.keep:
            contexts.left[contexts.position] = contexts.names.pop()
        contexts.position -= 1
        return super().__exit__(exc_type, exc, trace)

    def _pyro_sample(self, msg: Message) -> None:
        if msg.done or type(msg.plain_fn).__name__ == "_Subsample":
            return
        contexts = self._contexts
        name, infer = msg.name or "", msg.infer
        reach, near = contexts.seen or self._look()
        _count(infer, "_markov_scope", reach)
        _count(infer, "_markov_near_scope", near)
        infer["_markov_depth"] = 1 + infer.get("_markov_depth", 0)
        infer["_markov_last"] = contexts.last and infer.get("_markov_last", True)
        contexts.names[contexts.position][name] = reach[name] = near[name] = 1
        if contexts.step is not None:
            infer.setdefault("_chain", contexts.step)

    @property
    def place(self) -> Place:
        """Where this thread stands among the contexts."""
        contexts = self._contexts
        return Place(contexts.run, contexts.position, self.history)

    def _look(self) -> tuple[Names, Names]:
        """What is in reach of a site here, and nearly so: also a neighbouring branch, one that started from here, and
        what is one step further back."""
        contexts = self._contexts
        here, names, left = contexts.position, contexts.names, contexts.left
        reach: Names = {}
        for each in names[max(0, here - self.history) : here + 1]:
            reach.update(each)
        near = reach.copy()
        for place in (here, here + 1):
            near.update(left.get(place, ()))
        if self.keep:
            for each in names[here + 1 :]:  # contexts that start from here will see those
                near.update(each)
        if here > self.history:
            near.update(names[here - self.history - 1])
        contexts.seen = reach, near
        return contexts.seen


def _checked_history(history: SupportsIndex) -> int:
    try:
        number = operator.index(history)
    except TypeError:
        number = -1
    if number < 0:
        raise ModelError(f"markov has history={history!r}; it counts earlier steps, so it is 0, 1, 2, ...")
    return number


def _count(infer: dict[str, Any], key: str, ones: Names) -> None:
    """Adds one for each of the names; a plain dictionary, as most sites lie in one chain."""
    counts = infer.get(key)
    if counts is None:
        infer[key] = ones.copy()
    else:
        for name in ones:
            counts[name] = counts.get(name, 0) + 1
