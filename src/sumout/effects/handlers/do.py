"""Interventions."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sumout.effects.handlers.named import NamedMessenger, check_data
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import level_outside
from sumout.effects.steps import assembled
from sumout.effects.trace import Trace
from sumout.errors import ModelError
from sumout.settings import settings


class DoMessenger(NamedMessenger):
    """Intervenes at the named sample sites: the program goes on with the given values.

    The site itself stays, as in a single-world intervention graph: its natural value is drawn, observed or
    enumerated as without the intervention, this is what every handler sees and every trace records, and nothing
    in the program follows from it. So ``condition``, inside or outside, observes natural values, and
    ``condition(do(model, data={"x": b}), data={"x": a})`` asks what would have been, had ``x`` been ``b``, where
    it was ``a``. Questions that need what happened and what would have happened of one site at a time are asked of
    a program that runs its mechanisms twice on the same noise, once inside a ``do``.

    Of several interventions on one site the innermost holds: what an outer one would change is the natural value's
    use, of which there is none. Under validation that is warned of, as are names that no sample site has.

    Args:
        data: values by name: tensors of a shape that broadcasts with the site's, or numbers, which take the type
            of the natural value. Nothing is done where the value is ``None``. Values need not be in the support.

    Raises:
        ModelError: if ``data`` holds something else; when the program runs, if the shape does not fit.

    >>> from sumout.distributions import Normal
    >>> from sumout.effects.handlers.trace import trace
    >>> from sumout.effects.primitives import sample
    >>> def model():
    ...     z = sample("z", Normal(0.0, 1.0))
    ...     return z ** 2
    >>> recorded = trace(do(model, data={"z": 3.0})).get_trace()
    >>> recorded.nodes["_RETURN"]["value"], bool(recorded.nodes["z"]["value"] == 3.0)
    (tensor(9.), False)

    Source: Richardson and Robins, *Single world intervention graphs: a primer* (2013), section 2 (node splitting);
    Pearl, *Causality* (2009), section 7.1, for programs that run twice.
    """

    def __init__(self, data: Mapping[str, Tensor | numbers.Number | float | None]) -> None:
        super().__init__()
        if isinstance(data, Trace):
            raise ModelError("do takes a dict of values by name and was given a Trace.")
        check_data(type(self), data, "do(model, data={'x': torch.tensor(1.0)})")
        for name in data.keys():  # noqa: SIM118  (a mapping may iterate over something else)
            _check_value(name, data[name])
        self.data = data

    def _names(self) -> Iterable[str]:
        return self.data.keys()

    def _expected(self, name: str) -> bool:
        return self.data[name] is not None

    def _pyro_sample(self, msg: Message) -> None:
        if saw := self._run.saw:
            saw(msg.name)
        name = msg.name
        if name is None:
            return
        if name in self.data:
            value = self.data[name]
        elif "_chain" in msg.infer:
            value = self._of_steps(msg)
        else:
            return
        if value is None:
            return
        _check_value(name, value)
        if _is_intervened(msg):
            if settings.validation:
                warnings.warn(
                    f"Two interventions on site {name!r}: the inner one holds, and the outer one changes nothing. "
                    "Take one of them away.",
                    RuntimeWarning,
                    stacklevel=level_outside(),
                )
            return
        msg.continuation = _Intervention(value, msg.continuation)

    def _of_steps(self, msg: Message) -> Tensor | None:
        """The value of a site that stands for several steps of a chain, from those of the steps."""
        given = {name: torch.as_tensor(value) for name, value in self.data.items() if value is not None}
        steps = assembled(msg, given)
        if steps is None:
            return None
        value, names = steps
        if saw := self._run.saw:
            for name in names:
                saw(name)
        return value


class _Intervention:
    """Sets the value that the program gets, after all handlers; an object, so that a trace can be pickled."""

    def __init__(self, value: Any, before: Callable[[Message], None] | None) -> None:
        self.value = value
        self.before = before

    def __call__(self, msg: Message) -> None:
        if self.before is not None:
            self.before(msg)
        value = self.value
        if not isinstance(value, Tensor):
            value = _like(value, msg.value)
        elif settings.validation:
            _check_shape(msg, value)  # now that the site has met all plates
        msg.value = value


def _is_intervened(msg: Message) -> bool:
    continuation: Any = msg.continuation
    while continuation is not None and not isinstance(continuation, _Intervention):
        continuation = getattr(continuation, "before", None)
    return continuation is not None


def _like(number: Any, natural: Any) -> Tensor:
    """A number as a tensor of the natural value's type: an integer in Normal(x, 0.1) would make the scale one too."""
    value = torch.tensor(number)
    if isinstance(natural, Tensor) and torch.can_cast(value.dtype, natural.dtype):
        value = value.to(natural)
    return value


def _check_value(name: str, value: Any) -> None:
    if not (value is None or isinstance(value, (Tensor, numbers.Number))):
        raise ModelError(
            f"The intervention on site {name!r} is of type {type(value).__name__}; it is a tensor or a number. "
            "Convert it, e.g. with torch.as_tensor."
        )


def _check_shape(msg: Message, value: Tensor) -> None:
    event_shape = getattr(msg.plain_fn, "event_shape", None)
    if event_shape is None:
        return
    shape = (*msg.batch_shape, *event_shape)
    for size, wanted in zip(reversed(value.shape), reversed(shape), strict=False):
        if size != wanted and 1 not in (size, wanted):
            raise ModelError(
                f"The intervention on site {msg.name!r} has shape {tuple(value.shape)}, which does not broadcast "
                f"with the site's: batch shape {tuple(msg.batch_shape)} and event shape {tuple(event_shape)}."
            )


do = wrap(DoMessenger)
