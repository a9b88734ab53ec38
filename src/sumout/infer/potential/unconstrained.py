"""Runs of a program at given unconstrained values of its sites."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from sumout.distributions import biject_to
from sumout.effects import Message, Messenger
from sumout.effects.steps import assembled, is_lookback, sources

Params = Mapping[str, Tensor]
"""Unconstrained values by name of site."""


class Run(threading.local):
    """Where this thread's run is."""

    def __init__(self) -> None:
        self.params: Params = {}
        self.transforms: Mapping[str, Any] = {}
        self.log_det: Tensor | float = 0.0
        self.values: dict[str, Tensor] = {}
        """Of the sites that were met, and of those that were looked back at."""

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
            run.params, run.values = {}, {}

    def _begin(self) -> None:
        super()._begin()
        self._run.log_det, self._run.values = 0.0, {}

    def _pyro_sample(self, msg: Message) -> None:
        name, run = msg.name, self._run
        if msg.is_observed or not run.params:
            return
        if name in run.params:
            assert name is not None
            transform = run.transforms.get(name)
            if transform is None:
                transform = biject_to(msg.fn.support)
            unconstrained = run.params[name]
            if name not in run.values:
                run.values[name] = transform(unconstrained)
            msg.value = run.values[name]
            log_det = transform.log_abs_det_jacobian(unconstrained, msg.value)
            if isinstance(log_det, Tensor):
                run.log_det = run.log_det + log_det.sum()
        elif is_lookback(msg) and (found := self._looked_back(msg)) is not None:
            msg.value = found
        else:
            return
        msg.done = True

    def _looked_back(self, msg: Message) -> Tensor | None:
        """The values of the steps of a chain that a later one looks back at, ``None`` if they are no parameters."""
        run = self._run
        for name, _, _ in sources(msg, run.params):
            if name not in run.values:
                run.values[name] = run.transforms[name](run.params[name])
        found = assembled(msg, run.values)
        return None if found is None else found[0]
