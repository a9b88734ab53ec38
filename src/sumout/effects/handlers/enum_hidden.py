"""Parallel enumeration without dimensions that a program can see."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sumout.distributions.families import is_distribution
from sumout.effects.enumerate_site import finite_support
from sumout.effects.finite import allow_impossible, make_finite
from sumout.effects.handlers.contexts import MarkovMessenger, Place
from sumout.effects.handlers.enum import is_wanted, sequential_around
from sumout.effects.handlers.sequential import SequentialMessenger
from sumout.effects.hidden import Axes, Axis, Hidden, hidden
from sumout.effects.hidden.sites import positional
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.effects.stack import state
from sumout.effects.trace import Trace
from sumout.errors import EnumerationError

_numbers = itertools.count()


class _Reach:
    """Which sites' values each site in ``markov`` may depend on in one run.

    Names cannot be mistaken as dimensions can. So all that is refused is what a chain says of itself: a site of it must
    not depend on one further back than the history, unless a value in reach brings that along.
    """

    def __init__(self) -> None:
        self.places: dict[str, list[Place]] = {}
        self.depths: dict[str, int] = {}
        self.passed: dict[str, Axes] = {}
        self.brought: dict[str, frozenset[Axis]] = {}

    def look(self, msg: Message) -> None:
        """Notes where the site stands, and what the values in its reach depend on."""
        scope: Mapping[str, int] | None = msg.infer.get("_markov_scope")
        if scope is None:
            return
        name, depths, passed = msg.name or "", self.depths, self.passed
        depths[name] = msg.infer["_markov_depth"]
        self.places[name] = [frame.place for frame in state.stack if isinstance(frame, MarkovMessenger)]
        seen = [passed[each] for each, depth in scope.items() if each in passed and depths[each] <= depth]
        self.brought[name] = frozenset().union(*seen)

    def pass_on(self, msg: Message) -> None:
        """Notes what the value of a site depends on: those that see it may, too."""
        if msg.name in self.places and isinstance(msg.value, Hidden):
            self.passed[msg.name] = msg.value.axes

    def out_of(self, site: str, axes: Axes) -> list[Axis]:
        """Those of some axes that the site must not depend on."""
        places = self.places.get(site)
        if places is None:
            return []
        brought = self.brought[site]
        return [axis for axis in axes if axis not in brought and not self._sees(places, axis.site)]

    def _sees(self, places: list[Place], other: str) -> bool:
        if (
            not places
        ):  # Another library's chain, as of Pyro: what it tells of the sites in reach is all there is.
            return other not in self.depths
        return all(place.sees(earlier) for earlier in self.places.get(other, ()) for place in places)


class _Run(threading.local):
    reach: _Reach | None = None
    sequential: Sequence[SequentialMessenger] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Run, ()  # a copy is not entered


class HiddenEnumMessenger(Messenger):
    """Gives every site marked for parallel enumeration all its values, which look to the program like one.

    As many sites as memory allows can be enumerated, and a program may reshape, sum and index values as it likes.
    Values have dimensions again in what ``finish`` makes of the record of a run.

    Args:
        first_available_dim: the first batch dimension, counted from the right, that no plate uses.
        shaped: whether a value fills the plates that its site is in, as a drawn one does, or has size one there.

    >>> import sumout.distributions as dist
    >>> from sumout.effects.primitives.sample import sample
    >>> with HiddenEnumMessenger(first_available_dim=-1):
    ...     z = sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
    >>> z
    <torch.float32 of shape () for each value of z (2 values)>
    """

    def __init__(self, first_available_dim: int, shaped: bool = False) -> None:
        super().__init__()
        self.first_available_dim = first_available_dim
        self.shaped = shaped
        self._run = _Run()

    def _begin(self) -> None:
        super()._begin()
        self._run.reach, self._run.sequential = _Reach(), sequential_around()

    def _pyro_sample(self, msg: Message) -> None:
        run, reach = self._run, self._run.reach
        if reach is None or not is_distribution(msg.plain_fn):
            return
        reach.look(msg)
        if msg.is_observed:
            allow_impossible(msg, self.first_available_dim)
        if is_wanted(msg, run.sequential):
            msg.value = self._values(msg)
            msg.enum_dim = self.first_available_dim
            msg.done = True

    def _values(self, msg: Message) -> Tensor:
        if msg.infer.get("num_samples") is not None:
            raise EnumerationError(
                f"Site {msg.name!r} is replaced by samples (num_samples), which need dimensions that the program sees."
            )
        support = msg.infer.get("_values")
        if support is None:
            make_finite(msg)
            support = finite_support(msg.plain_fn, msg.name, expand=False)
        size, event_shape = len(support), msg.plain_fn.event_shape
        automatic = msg.infer.get("enumerate") != "parallel"
        axis = Axis(next(_numbers), msg.name or "", size, automatic)
        batch = list(msg.batch_shape)
        raw = support.reshape(size, *[1] * len(batch), *event_shape)
        if self.shaped:
            raw = raw.expand(size, *batch, *event_shape)
        return hidden(raw, (axis,))

    def _pyro_post_sample(self, msg: Message) -> None:
        if self._run.reach is not None:
            self._run.reach.pass_on(msg)

    def finish(self, trace: Trace) -> Trace:
        """The record of the last run with dimensions.

        Raises:
            EnumerationError: if a site depends on one that it must not see.
        """
        reach = self._run.reach or _Reach()
        return positional(trace, -1 - self.first_available_dim, reach.out_of)
