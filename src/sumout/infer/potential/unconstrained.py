"""Runs of a program at given unconstrained values of its sites."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from sumout.distributions import biject_to
from sumout.effects import Message, Messenger

Params = Mapping[str, Tensor]
"""Unconstrained values by name of site."""


class Run(threading.local):
    """Where this thread's run is."""

    def __init__(self) -> None:
        self.params: Params = {}
        self.transforms: Mapping[str, Any] = {}
        self.log_det: Tensor | float = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return Run, ()


class Unconstrained(Messenger):
    """Gives sites the values that unconstrained ones stand for; ``log_det`` sums up the Jacobians of a run."""

    def __init__(self) -> None:
        self._run = Run()

    @contextmanager
    def at(self, params: Params, transforms: Mapping[str, Any]) -> Iterator[Run]:
        """Inside, runs of the program are at these values."""
        run = self._run
        run.params, run.transforms = params, transforms
        try:
            yield run
        finally:
            run.params = {}

    def _begin(self) -> None:
        super()._begin()
        self._run.log_det = 0.0

    def _pyro_sample(self, msg: Message) -> None:
        name, run = msg.name, self._run
        if name not in run.params or msg.is_observed:
            return
        assert name is not None
        transform = run.transforms.get(name)
        if transform is None:
            transform = biject_to(msg.fn.support)
        unconstrained = run.params[name]
        msg.value = transform(unconstrained)
        msg.done = True
        log_det = transform.log_abs_det_jacobian(unconstrained, msg.value)
        if isinstance(log_det, Tensor):
            run.log_det = run.log_det + log_det.sum()
