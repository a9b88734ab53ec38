"""Chains whose contexts are the steps of a loop, taken one by one or many at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import ExitStack
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sumout.effects.handlers.contexts import MarkovMessenger
from sumout.effects.handlers.indep import IndepMessenger
from sumout.effects.handlers.plate import PlateMessenger
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.effects.stack import state
from sumout.effects.steps import ChainStep, Steps, family, values_along
from sumout.effects.trace import site_is_factor
from sumout.errors import ModelError
from sumout.settings import settings

T = TypeVar("T")


class MarkovLoop(MarkovMessenger, Generic[T]):
    """A chain whose contexts are the steps of a loop: ``for t in markov(range(T))``."""

    def __init__(
        self, iterable: Iterable[T], history: int = 1, keep: bool = False, name: str | None = None
    ) -> None:
        super().__init__(history, keep, name=name)
        self._iterable = iterable

    def __iter__(self) -> Iterator[T]:
        contexts = self._contexts
        # Where the number of steps is not known, none is known to be among the last.
        known = isinstance(self._iterable, Sized)
        before_last = len(self._iterable) - max(1, self.history) if known else 0  # type: ignore[arg-type]
        entered = 0
        try:
            for value in self._iterable:
                self.__enter__()
                entered += 1
                contexts.last = known and entered > before_last
                if self.name is not None and isinstance(value, int):
                    contexts.step = ChainStep(self.name, value, value + 1)
                yield value
            while entered:
                entered -= 1
                self.__exit__(None, None, None)
        except BaseException as error:
            while entered:
                entered -= 1
                self.__exit__(type(error), error, error.__traceback__)
            Messenger.__exit__(self, type(error), error, error.__traceback__)  # where handlers did not nest
            raise
        finally:
            contexts.step = None


class SingleSteps(Messenger):
    """While this is active, vectorized chains take their steps one by one, and only the first few.

    The numbers are index tensors of one element where they would be of many, so that a body does the same in both ways.
    What it does not do the same shows what it holds of earlier steps itself.

    >>> with SingleSteps():
    ...     list(VectorizedMarkov("time", 4, dim=-1))
    [0, Steps([1]), Steps([2]), Steps([3])]
    """

    def most(self, history: int) -> int:
        """How many steps are taken: a body in which many are taken at once holds no more of them."""
        return 4 * history + 4


class VectorizedMarkov(MarkovMessenger):
    """A chain that takes its first ``history`` steps one by one and all others at once, along a dimension.

    The loop's body runs ``2 * history + 1`` times: with the numbers of the first ``history`` steps; then
    ``history`` times for steps that are only looked back at; last for all steps from ``history`` on. For 6 steps
    and a history of 1 the loop gives ``0``, ``[0, 1, 2, 3, 4]`` and ``[1, 2, 3, 4, 5]``: what a site is in the
    second, the sites of the third look back at. Sites of steps that are only looked back at are masked. With
    ``history=0`` the chain is a plate.

    The body must not look back further than ``history`` steps: what a list of its own holds there are not
    earlier steps of the chain.

    Every sample site's ``infer["_chain"]`` tells the step.

    Args:
        name: the chain; also of the frame that it leaves on sites.
        size: the number of steps.
        dim: the negative batch dimension of the steps; by default the rightmost that is free.
        history: the number of earlier steps that a step depends on.
        first: the number of the first step.

    Raises:
        ModelError: where a site would be drawn for many steps at once, which depend on each other; where its name
            does not tell the step; where one vectorized chain lies in another.
        PlateError: if the dimension is taken or data have another size.
    """

    def __init__(
        self, name: str, size: int, dim: int | None = None, history: int = 1, first: int = 0
    ) -> None:
        super().__init__(history, dim=dim, name=name)
        self.size = size
        self.first = first

    def __iter__(self) -> Iterator[Any]:
        if any(isinstance(frame, VectorizedMarkov) for frame in state.stack):
            raise ModelError(
                f"Chain {self.name!r} lies in another vectorized chain. Let one of the two be a loop, without dim."
            )
        name, history, first = str(self.name), self.history, self.first
        single = next((frame for frame in state.stack if isinstance(frame, SingleSteps)), None)
        contexts = self._contexts
        contexts.given = {}
        try:
            with ExitStack() as entered:
                for t in range(first, first + min(history, self.size)):
                    entered.enter_context(self)
                    contexts.step = ChainStep(name, t, t + 1, along=self.dim)
                    yield t
                size = self.size - history
                if single is not None:
                    for t in range(first + history, first + min(self.size, single.most(history))):
                        frame = _Frame(name, 1, self.dim)
                        entered.enter_context(self)
                        with frame:
                            contexts.step = ChainStep(name, t, t + 1, frame.dim, True, history == 0)
                            yield Steps.of(t, t + 1)
                elif size > 0:
                    frame = _Frame(name, size, self.dim)
                    entered.enter_context(frame)
                    for start in range(first, first + history + 1):
                        entered.enter_context(self)
                        scored = start == first + history
                        contexts.step = ChainStep(name, start, start + size, frame.dim, scored, history == 0)
                        yield Steps.of(start, start + size)
                    _check_lookbacks(contexts.given)
        except BaseException as error:
            Messenger.__exit__(self, type(error), error, error.__traceback__)
            raise
        finally:
            contexts.step, contexts.given = None, {}

    def _pyro_sample(self, msg: Message) -> None:
        super()._pyro_sample(msg)
        step = self._contexts.step
        if step is None or step.dim is None or "_chain" not in msg.infer:
            return
        msg.infer["_chain"] = step  # and not that of a loop inside
        if step.independent:
            return
        if not step.scored:
            msg.mask = False
        msg.infer["_undrawable"] = step

    def _pyro_get_mask(self, msg: Message) -> None:
        step = self._contexts.step
        if step is not None and not step.scored:
            msg.mask = msg.value = False

    def _pyro_post_sample(self, msg: Message) -> None:
        infer = msg.infer
        step = infer.get("_chain")
        settled = infer.pop("_undrawable", None) is not None or (step is not None and step.dim is None)
        if step is not None and settled and not infer.get("_deterministic") and not site_is_factor(msg):
            self._contexts.given[msg.name or ""] = msg


class _Frame(PlateMessenger):
    """The plate of a chain's steps; no subsample is drawn for it, and params in it are left as they are."""

    def __init__(self, name: str, size: int, dim: int | None) -> None:
        self.subsample_size = size
        IndepMessenger.__init__(self, name, size, dim)
        self._scale = 1.0

    def _take_part(self, msg: Message, statement: str) -> None:
        pass


def _check_lookbacks(given: dict[str, Message]) -> None:
    """Checks that what is looked back at is what the chain is.

    Args:
        given: the sites of a chain that has run, without deterministic ones and factors.

    Raises:
        ModelError: if a site has a value where the chain has another one, or has none, or is enumerated.
    """
    families: dict[tuple[str, str], list[Message]] = {}
    for name, site in given.items():
        step: ChainStep = site.infer["_chain"]
        if step.dim is not None:
            families.setdefault(family(name, step), []).append(site)
    for (before, after), sites in families.items():
        scored = [site for site in sites if site.infer["_chain"].scored]
        looked_back = [site for site in sites if not site.infer["_chain"].scored]
        if not scored or not looked_back:
            continue
        start = min(site.infer["_chain"].start for site in looked_back)
        singles = [f"{before}{t}{after}" for t in range(start, scored[0].infer["_chain"].start)]
        fixed = [site for site in looked_back if site.enum_dim is None]
        for site in fixed:
            for other in (*singles, scored[0].name or ""):
                if other not in given or given[other].enum_dim is not None:
                    kind = "enumerated" if other in given else "missing"
                    raise ModelError(
                        f"Site {site.name!r}, which is looked back at, has a value, and {other!r} is {kind}. "
                        "Treat a site alike in all steps of a chain, or loop step by step: markov without dim."
                    )
        if scored[0].enum_dim is None and len(fixed) < len(looked_back):
            raise ModelError(
                f"Site {scored[0].name!r} has a value and {looked_back[0].name!r}, which is looked back at, is "
                "enumerated. Treat a site alike in all steps of a chain, or loop step by step: markov without dim."
            )
        if fixed and settings.validation:
            _check_values([given[name] for name in singles], scored[0], fixed)


def _check_values(singles: list[Message], scored: Message, looked_back: list[Message]) -> None:
    """Compares windows of the whole chain with what was looked back at."""
    sites = [*singles, scored]
    if any(not isinstance(site.value, Tensor) for site in (*sites, *looked_back)):
        return
    axis = scored.infer["_chain"].dim - scored.plain_fn.event_dim
    for site in looked_back:
        step: ChainStep = site.infer["_chain"]
        value = values_along(site.value, axis, step)
        for other in sites:
            theirs: ChainStep = other.infer["_chain"]
            start, stop = max(step.start, theirs.start), min(step.stop, theirs.stop)
            if start >= stop:
                continue
            mine = value.narrow(axis, start - step.start, stop - start)
            along = values_along(other.value, axis, theirs).narrow(axis, start - theirs.start, stop - start)
            # Enumerated values that are observed have dimensions of their own.
            if mine.dim() == along.dim() and not _same(mine, along):
                raise ModelError(
                    f"Site {site.name!r} looks back at other values than the chain has in these steps. "
                    "Give both the same, or loop: markov without dim."
                )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether the numbers are equal; missing ones, which are NaN, are equal to each other."""
    if one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other):
        return True
    return bool(((one == other) | ((one != one) & (other != other))).all())
