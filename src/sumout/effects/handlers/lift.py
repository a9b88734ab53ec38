"""Priors for params."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from sumout.distributions import Distribution
from sumout.effects.handlers.broadcast import expand_to_plates
from sumout.effects.handlers.named import NamedMessenger
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.params import MODULE_DIVIDER
from sumout.errors import ModelError

Prior = Callable[..., Any]  # a distribution is one too


class _Lifted(threading.local):
    """The params that the run of this thread has met; one handler may be in several runs at once."""

    def __init__(self) -> None:
        self.sites: dict[str, Message] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _Lifted, ()  # a copy is not entered


class LiftMessenger(NamedMessenger):
    """Makes ``param`` statements behave like ``sample`` statements.

    With ``prior={"s": fn}`` the param ``s`` is what ``s = sample("s", fn)`` would be: handlers outside see a sample
    site, which they may condition, replay, enumerate, expand along plates. The same param again in one run
    has the same value and is no second site. Handlers inside see a param first, then a sample site with a value;
    a value that they gave it is kept.

    Args:
        prior: a distribution, used for every param; a dict of distributions or functions by name of param, which
            leaves other params alone; or a function for every param. A param of a module may be named without the
            module. A function is called as ``param``'s own would be, with the initial value, ``constraint`` and
            ``event_dim``, and returns a value. One that is given for every param may contain ``sample`` statements;
            these are the sites, and the param itself is none.

    Raises:
        ModelError: if ``prior`` is none of these; when the program runs, if a prior needs the param that it is for.

    Names in the dict that no param of a run had are reported by a warning, under validation.

    >>> import torch
    >>> from sumout.distributions import Exponential
    >>> from sumout.effects.handlers.trace import trace
    >>> from sumout.effects.primitives import param
    >>> def model():
    ...     return param("s", torch.tensor(0.5))
    >>> trace(lift(model, prior={"s": Exponential(0.3)})).get_trace().nodes["s"]["type"]
    'sample'
    """

    _kind = "param"

    def __init__(self, prior: Prior | Mapping[str, Prior]) -> None:
        for each in prior.values() if isinstance(prior, Mapping) else (prior,):
            if not callable(each):
                raise ModelError(
                    f"A prior is a distribution of sumout.distributions or a function, not {each!r}. "
                    "lift takes one, or a dict of them by name of param: lift(model, prior={'s': Exponential(0.3)})."
                )
        super().__init__()
        self.prior = prior
        self._lifted = _Lifted()

    def _begin(self) -> None:
        super()._begin()
        self._reset()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return super().__exit__(exc_type, exc, trace)
        finally:
            self._reset()

    def _reset(self) -> None:
        self._lifted.sites = {}

    def _names(self) -> Iterable[str]:
        return self.prior if isinstance(self.prior, Mapping) else ()

    def _expected(self, name: str) -> bool:
        return all(_own_name(lifted) != name for lifted in self._lifted.sites)

    def _prior_of(self, name: str) -> Prior | None:
        prior = self.prior
        if not isinstance(prior, Mapping):
            return prior
        return prior[name] if name in prior else prior.get(_own_name(name))

    def _pyro_param(self, msg: Message) -> None:
        name = msg.name
        if saw := self._run.saw:
            saw(name)
        prior = None if name is None else self._prior_of(name)
        if name is None or prior is None:
            return
        lifted = self._lifted.sites
        msg.type = "sample"  # The stack goes on with the hooks for sample sites.
        msg.is_observed = False
        if name in lifted:
            _repeat(msg, lifted[name])
            return
        lifted[name] = msg
        msg.fn = prior
        if isinstance(prior, Distribution):
            msg.args, msg.kwargs = (), {}
            expand_to_plates(msg)  # Plates inside have left their frames, and do not expand params.
            return
        msg.args = msg.args[1:]  # without the name
        if prior is self.prior:
            _hide(msg)


def _own_name(name: str) -> str:
    """The name of a module's param without the module."""
    return name.rpartition(MODULE_DIVIDER)[2]


def _repeat(msg: Message, first: Message) -> None:
    if not first.done:
        raise ModelError(
            f"The prior of param {msg.name!r} asks for that param itself. Call what it needs by another name."
        )
    msg.value = first.value
    msg.done = True
    _hide(msg)


def _hide(msg: Message) -> None:
    msg.stop = True
    msg.infer["_do_not_trace"] = True


lift = wrap(LiftMessenger)
