"""Making sites equal."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar

from sumout.distributions import Delta
from sumout.effects.handlers.broadcast import expand_to_plates
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.effects.steps import names_of_steps
from sumout.effects.trace import site_is_subsample
from sumout.errors import ModelError

Self = TypeVar("Self", bound="EqualizeMessenger")


class _Run(threading.local):
    """What the run that is going on in this thread has met; one handler may be in several at once."""

    value: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Run, ()  # a copy is not entered


class EqualizeMessenger(Messenger):
    """Gives all sites whose names match the value of the first of them.

    The second and later matching sample sites become deterministic: they have no part in the density. With
    ``keep_dist`` they keep their distributions and are observed at that value, so that the program is conditioned
    on the sites being equal; its density is then unnormalized. A plate's choice of a subsample is never matched.

    Args:
        sites: a name or a list of names; regular expressions, which match whole names.
        type: the type of the sites, ``"sample"`` or ``"param"``.
        keep_dist: whether sample sites keep their distributions.

    Raises:
        ModelError: if ``sites`` is not made of regular expressions.
        PlateError: when the program runs, if the value does not fit into the plates of a later site.

    >>> from sumout.distributions import Normal
    >>> from sumout.effects.primitives import sample
    >>> def model():
    ...     return sample("x", Normal(0.0, 1.0)) == sample("y", Normal(0.0, 1.0))
    >>> equalize(model, ["x", "y"])()
    tensor(True)
    """

    def __init__(
        self, sites: str | Sequence[str], type: str | None = "sample", keep_dist: bool | None = False
    ) -> None:
        self.sites = [sites] if isinstance(sites, str) else list(sites)
        self.type = type
        self.keep_dist = bool(keep_dist)
        self._patterns = [_compiled(site) for site in self.sites]
        self._run = _Run()

    def __enter__(self: Self) -> Self:
        super().__enter__()
        self._reset()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._reset()
        return super().__exit__(exc_type, exc, trace)

    def _reset(self) -> None:
        self._run.value = None

    def _matches(self, msg: Message) -> bool:
        name = msg.name
        if msg.type != self.type or name is None or site_is_subsample(msg):
            return False
        if any(pattern.fullmatch(name) for pattern in self._patterns):
            return True
        if "_chain" in msg.infer:
            steps = names_of_steps(msg)
            if any(pattern.fullmatch(step) for pattern in self._patterns for step in steps):
                raise ModelError(
                    f"Site {name!r} stands for several steps of a chain, and equalize names some of them. Loop step by "
                    "step: markov without dim."
                )
        return False

    def _process_message(self, msg: Message) -> None:
        value = self._run.value
        if value is None or not self._matches(msg):
            return
        msg.value = value
        msg.done = True
        if msg.type != "sample":
            return
        msg.is_observed = True
        msg.enum_dim = None  # an enum inside has chosen all values already
        if self.keep_dist:
            return
        msg.infer["_deterministic"] = True
        msg.args, msg.kwargs = (), {}
        msg.fn = Delta(value, event_dim=getattr(msg.plain_fn, "event_dim", 0)).mask(False)
        msg.done = False
        expand_to_plates(msg)  # as the plates inside have done with the distribution that was there
        msg.done = True

    def _postprocess_message(self, msg: Message) -> None:
        if self._run.value is None and self._matches(msg):
            self._run.value = msg.value


def _compiled(pattern: Any) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (TypeError, re.error) as error:
        raise ModelError(
            f"equalize takes names or regular expressions of names, and {pattern!r} is neither: {error}."
        ) from error


equalize = wrap(EqualizeMessenger)
