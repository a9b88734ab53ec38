"""Sequential enumeration: a discrete site has one of its values in each run of the program."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.distributions.families import is_distribution
from sumout.effects.enumerate_site import finite_support
from sumout.effects.finite import make_finite
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.effects.stack import state
from sumout.effects.trace import site_is_subsample
from sumout.errors import EnumerationError

MOST_RUNS = 2**17
"""Runs above which a site's joint values are refused before they are taken."""


class Step(NamedTuple):
    """One site on the way of a run: the number of its joint value, of so many."""

    site: str
    number: int
    of: int


class _Run(threading.local):
    """How far this thread's run is, and the sites that it has met."""

    def __init__(self) -> None:
        self.way: list[Step] = []
        self.place = 0
        self.sites: dict[str, Message] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _Run, ()  # a copy begins anew


class SequentialMessenger(Messenger):
    """Gives sites that are enumerated sequentially one joint value in each run, all of them one run after another.

    The values are taken in the order of a search in depth: ``advance()`` after a complete run says whether there is
    another. What sites a run has may depend on the values. Along the values of sites that are enumerated in parallel
    its value is the same. ``sumout.infer.programs.sequential_runs`` is the loop around it.

    Args:
        names: sites that are enumerated sequentially whatever their mark is, but for sites with a value. One with a
            batch shape takes every joint assignment of values to its elements. Others are if they are marked
            ``infer={"enumerate": "sequential"}`` and in no plate that is a tensor dimension; there they are enumerated
            in parallel.

    >>> import sumout.distributions as dist
    >>> from sumout.effects.primitives.sample import sample
    >>> each, more = SequentialMessenger({"z"}), True
    >>> while more:
    ...     with each:
    ...         print(sample("z", dist.Bernoulli(0.3)))
    ...     more = each.advance()
    tensor(0.)
    tensor(1.)
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        super().__init__()
        self.names = frozenset(names)
        self._run = _Run()

    @property
    def sites(self) -> dict[str, Message]:
        """The sites of the last run that were given one of their values, in order."""
        return self._run.sites

    def _begin(self) -> None:
        super()._begin()
        self._reset()

    def _reset(self) -> None:
        self._run.place, self._run.sites = 0, {}

    def takes(self, msg: Message) -> bool:
        """Whether the site is one that is enumerated sequentially."""
        marked = msg.infer.get("enumerate") == "sequential"
        if not (marked or self.names) or msg.done or msg.is_observed:
            return False
        if not is_distribution(msg.plain_fn) or site_is_subsample(msg):
            return False
        if msg.name in self.names:
            return True
        # In a plate that is a tensor dimension Python cannot decide on one element's value: parallel is as good.
        return marked and all(frame.dim is None for frame in msg.cond_indep_stack)

    def _pyro_sample(self, msg: Message) -> None:
        if (not self.names and msg.infer.get("enumerate") != "sequential") or not self.takes(msg):
            return
        run, name = self._run, msg.name or ""
        make_finite(msg)
        support: Tensor = finite_support(msg.plain_fn, name, expand=False)
        support = support.reshape(len(support), *msg.plain_fn.event_shape)
        shape = _plates_shape(msg)
        count = len(support) ** math.prod(shape)
        if count > MOST_RUNS:
            plates = [f"{frame.name!r} (size {frame.size})" for frame in msg.cond_indep_stack]
            raise EnumerationError(
                f"Site {name!r} is enumerated sequentially and has {len(support)}**{math.prod(shape)} joint values, as "
                f"it has {math.prod(shape)} elements{' in plate ' * bool(plates)}{' and '.join(plates)}: one run for "
                f"each is too many (more than {MOST_RUNS}). Enumerate it in parallel "
                "(infer={'enumerate': 'parallel'}), with torch.where in the place of decisions on its value, and keep "
                "what depends on it in its plate."
            )
        if run.place == len(run.way):
            run.way.append(Step(name, 0, count))
        step = run.way[run.place]
        if (step.site, step.of) != (name, count):
            raise EnumerationError(
                f"A run came to site {name!r} where one with the same values came to {step.site!r} "
                f"({step.of} values, now {count}): the program is not the same function of its sites in all runs. "
                "Take random numbers and changes of state out of it."
            )
        msg.value = _assignment(support, shape, step.number)
        msg.done = True
        msg.infer["_sequential"] = True
        run.sites[name] = msg
        run.place += 1

    @property
    def share(self) -> float:
        """Which part of the runs was taken before this one, if all values of a site lead to as many."""
        found, each = 0.0, 1.0
        for step in self._run.way:
            each /= step.of
            found += step.number * each
        return found

    def advance(self) -> bool:
        """Goes on to the next run; false where there is none left."""
        way = self._run.way
        del way[self._run.place :]
        while way and way[-1].number + 1 == way[-1].of:
            way.pop()
        if not way:
            return False
        way[-1] = way[-1]._replace(number=way[-1].number + 1)
        return True


class Places:
    """How far the runs in all sequential messengers on the stack are, for a program that has to be run again in one.

    >>> import sumout.distributions as dist
    >>> from sumout.effects.primitives.sample import sample
    >>> each = SequentialMessenger({"z"})
    >>> with each:
    ...     before = Places()
    ...     _ = sample("z", dist.Bernoulli(0.3))
    ...     before.restore()
    ...     _ = sample("z", dist.Bernoulli(0.3))
    >>> each.advance(), each.advance()
    (True, False)
    """

    def __init__(self) -> None:
        runs = [frame._run for frame in state.stack if isinstance(frame, SequentialMessenger)]
        self._before = [(run, run.place, run.sites.copy(), run.way.copy()) for run in runs]

    def restore(self) -> None:
        """Goes back: what follows takes the place of what was run since."""
        for run, place, sites, way in self._before:
            run.place, run.sites, run.way = place, sites.copy(), way.copy()


def is_sequential(site: Message) -> bool:
    """Whether the site has one of its values, and other runs have the others."""
    return bool(site.infer.get("_sequential"))


def _plates_shape(msg: Message) -> list[int]:
    """The sizes along the plates of the site, and along dimensions that no enumerated site owns."""
    batch = msg.batch_shape
    others = msg.enum_dims or {}
    sizes = [1 if dim in others else batch[dim] for dim in range(-len(batch), 0)]
    while sizes and sizes[0] == 1 and len(sizes) > _rank(msg):
        del sizes[0]
    return sizes


def _rank(msg: Message) -> int:
    """How many dimensions the plates take up, and the batch shape that the program gave the distribution."""
    return max((-frame.dim for frame in msg.cond_indep_stack if frame.dim is not None), default=0)


def _assignment(support: Tensor, shape: list[int], number: int) -> Tensor:
    """One choice of values for all elements; that of the last element changes first."""
    size, digits = len(support), []
    for _ in range(math.prod(shape)):
        number, digit = divmod(number, size)
        digits.append(digit)
    index = torch.tensor(digits[::-1], dtype=torch.long, device=support.device).reshape(shape)
    return support[index]
