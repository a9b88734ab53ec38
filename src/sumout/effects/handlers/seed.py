"""Making a run repeatable."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.messenger import Messenger
from sumout.effects.random_state import RandomState, get_rng_state, set_rng_seed, set_rng_state
from sumout.errors import ModelError


class _Former(threading.local):
    """The random state that this thread's run began with."""

    state: RandomState | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Former, ()  # a copy is not entered


class SeedMessenger(Messenger):
    """Seeds the random number generators on entry and puts their former state back on exit.

    Args:
        rng_seed: the seed.

    Raises:
        ModelError: if it is not an integer of 64 bits.

    >>> import torch
    >>> draw = seed(torch.rand, rng_seed=0)
    >>> bool(draw(()) == draw(()))
    True
    """

    def __init__(self, rng_seed: int) -> None:
        if not isinstance(rng_seed, int) or isinstance(rng_seed, bool):
            raise ModelError(f"A seed is an integer, not {rng_seed!r}.")
        if not -(2**63) <= rng_seed < 2**64:
            raise ModelError(f"A seed has 64 bits, and {rng_seed} has more. Take it modulo 2**64.")
        self.rng_seed = rng_seed
        self._former = _Former()

    def _begin(self) -> None:
        super()._begin()
        former = get_rng_state()
        try:
            set_rng_seed(self.rng_seed)
        except BaseException:
            set_rng_state(former)
            raise
        self._former.state = former

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return super().__exit__(exc_type, exc, trace)
        finally:
            if self._former.state is not None:
                set_rng_state(self._former.state)
                self._former.state = None


seed = wrap(SeedMessenger)
