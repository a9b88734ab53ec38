"""Fixing params."""

from __future__ import annotations

import numbers
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from sumout.distributions import constraints, transform_to
from sumout.effects.handlers.named import NamedMessenger, check_data
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.params import MODULE_DIVIDER
from sumout.effects.trace import Trace
from sumout.errors import ModelError
from sumout.settings import settings


class _Given(threading.local):
    """The values that this thread's run has been given: statements of one name get one tensor."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _Given, ()


class SubstituteMessenger(NamedMessenger):
    """Gives the named ``param`` sites fixed values; the parameter store neither has nor gets these parameters.

    The values have a method ``unconstrained()`` like those of the store; gradients do not reach it, so optimizers
    leave fixed parameters alone. A gradient to the given tensor itself goes through. Under validation a run warns
    of names that no ``param`` statement has.

    Args:
        data: constrained values by name: tensors, or numbers, which take the type of the initial value. Nothing
            is done where the value is ``None``. A parameter of a module may be named with the module,
            ``"net$$$bias"``, or without it.

    Raises:
        ModelError: if ``data`` is no dict; when the program runs, if a value is no tensor or number, or, under
            validation, lies outside of the constraint.

    >>> from sumout.effects.primitives import param
    >>> def model():
    ...     return param("rate", torch.tensor(1.0), constraint=constraints.positive)
    >>> substitute(model, data={"rate": 0.5})()
    tensor(0.5000)
    """

    _kind = "param"

    def __init__(self, data: Mapping[str, Tensor | float | None]) -> None:
        super().__init__()
        if isinstance(data, Trace):
            raise ModelError("substitute takes a dict of values by name and was given a Trace; use replay.")
        check_data(type(self), data, "substitute(model, data={'rate': torch.tensor(1.0)})")
        self.data = data
        self._given = _Given()

    def _begin(self) -> None:
        super()._begin()
        self._given.values = {}

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._given.values = {}
        return super().__exit__(exc_type, exc, trace)

    def _names(self) -> Iterable[str]:
        return self.data.keys()

    def _expected(self, name: str) -> bool:
        return self.data[name] is not None

    def _pyro_param(self, msg: Message) -> None:
        name = msg.name
        if name is None:
            return
        key = name if name in self.data else name.rpartition(MODULE_DIVIDER)[2]
        if saw := self._run.saw:
            saw(key)
        if key not in self.data:
            return
        given = self.data[key]
        if given is None:
            return
        values = self._given.values
        if name not in values:
            values[name] = _as_param(msg, given)
        msg.value = values[name]


class _Unconstrained:
    """What ``unconstrained()`` of a fixed value gives: an object, so that a trace can be pickled."""

    def __init__(self, value: Tensor, constraint: Any) -> None:
        self.value = value
        self.constraint = constraint

    def __call__(self) -> Tensor:
        unconstrained: Tensor = transform_to(self.constraint).inv(self.value.detach())
        return unconstrained


def _as_param(msg: Message, given: Any) -> Tensor:
    """The value as the store would give it, without a change to the given tensor."""
    if isinstance(given, numbers.Number):
        init = msg.args[1] if len(msg.args) > 1 else None
        like = init if isinstance(init, Tensor) else torch.empty(())
        given = torch.as_tensor(given, dtype=like.dtype, device=like.device)
    if not isinstance(given, Tensor):
        raise ModelError(
            f"The value to substitute for param {msg.name!r} is of type {type(given).__name__}; it is a tensor or "
            "a number. Convert it, e.g. with torch.as_tensor."
        )
    if "unconstrained" in vars(given):
        return given  # from a store
    constraint = msg.kwargs.get("constraint", constraints.real)
    checked = settings.validation and constraint is not constraints.real  # in which everything lies
    if checked and not bool(constraint.check(given.detach()).all()):
        raise ModelError(
            f"The value to substitute for param {msg.name!r} lies outside of its constraint {constraint}: "
            f"{given.detach()}. Give the constrained value, not the unconstrained one."
        )
    value = given.view_as(given)
    value.unconstrained = _Unconstrained(given, constraint)  # type: ignore[attr-defined]
    return value


substitute = wrap(SubstituteMessenger)
