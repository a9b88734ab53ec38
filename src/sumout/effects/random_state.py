"""The state of the random number generators: torch's, on all devices in use, NumPy's and Python's."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class RandomState(NamedTuple):
    """The state of all generators at one time; the process has one, all threads share it."""

    python: tuple[Any, ...]
    numpy: dict[str, Any]
    torch: Tensor
    cuda: tuple[Tensor, ...]


def set_rng_seed(rng_seed: int) -> None:
    """Starts all generators from a seed.

    >>> set_rng_seed(1); first = torch.rand(())
    >>> set_rng_seed(1); bool(first == torch.rand(()))
    True
    """
    torch.manual_seed(rng_seed)
    random.seed(rng_seed)
    np.random.seed(rng_seed % 2**32)


def get_rng_state() -> RandomState:
    """The present state, for ``set_rng_state``."""
    numpy: Any = np.random.get_state(legacy=False)
    # A device that nobody has used yet has no state worth keeping, and asking for it would start it up.
    cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return RandomState(random.getstate(), numpy, torch.get_rng_state(), cuda)


def set_rng_state(state: RandomState) -> None:
    """Puts all generators back to where they were.

    >>> before = get_rng_state(); first = torch.rand(())
    >>> set_rng_state(before); bool(first == torch.rand(()))
    True
    """
    random.setstate(state.python)
    np.random.set_state(state.numpy)
    torch.set_rng_state(state.torch)
    if state.cuda:
        torch.cuda.set_rng_state_all(list(state.cuda))


class TorchState(NamedTuple):
    """The state of torch's generators alone, which is had in a small part of the time that all take."""

    cpu: Tensor
    cuda: tuple[Tensor, ...]

    @staticmethod
    def now() -> TorchState:
        """The present state."""
        used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return TorchState(torch.get_rng_state(), tuple(torch.cuda.get_rng_state_all()) if used else ())

    def restore(self) -> None:
        """Puts torch's generators back to where they were.

        >>> before = TorchState.now(); first = torch.rand(())
        >>> before.restore(); bool(first == torch.rand(()))
        True
        """
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(list(self.cuda))


class _Trials(threading.local):
    """What is to be undone after each of the blocks that this thread is in."""

    def __init__(self) -> None:
        self.undone: list[list[Callable[[], None]]] = []


_trials = _Trials()


def in_a_trial() -> bool:
    """Whether this thread is in a block of ``kept_rng_state``."""
    return bool(_trials.undone)


def after_trial(undo: Callable[[], None]) -> None:
    """Has a function called at the end of the innermost block of ``kept_rng_state``; the last one first.

    >>> with kept_rng_state():
    ...     after_trial(lambda: print("buffers are put back"))
    buffers are put back
    """
    _trials.undone[-1].append(undo)


@contextmanager
def kept_rng_state() -> Iterator[None]:
    """Puts all generators back after a ``with`` block, errors included: for trial runs, which leave no trace.

    >>> before = get_rng_state(); first = torch.rand(())
    >>> set_rng_state(before)
    >>> with kept_rng_state():
    ...     _ = torch.rand(10)
    >>> bool(first == torch.rand(()))
    True
    """
    before, undone = get_rng_state(), list[Callable[[], None]]()
    _trials.undone.append(undone)
    try:
        yield
    finally:
        _trials.undone.pop()
        for undo in reversed(undone):
            undo()
        set_rng_state(before)
