"""Observing sites from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sumout.distributions.families import is_distribution
from sumout.effects.handlers.named import NamedMessenger, check_data, is_drawn
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.steps import assembled
from sumout.effects.trace import Trace, site_is_subsample
from sumout.errors import ModelError


class ConditionMessenger(NamedMessenger):
    """Observes the named sample sites, as ``obs=`` would in the program.

    Under validation a run warns of names that none of its sample sites has; of a trace's, only those of latent
    sites count, without auxiliary ones and plates.

    In a chain that has a name, values for single steps and for many at once stand for each other: those of
    ``x_0, ..., x_4`` observe ``x_slice(1, 5, None)``.

    Args:
        data: values by name, or a trace whose values are taken. A value is a tensor, a number, or an array of NumPy,
            which becomes a tensor; ``None`` makes a site latent.

    Raises:
        ModelError: if ``data`` is neither; at a site whose value is neither a tensor, a number nor a NumPy array.

    >>> import torch
    >>> from sumout.distributions import Normal
    >>> from sumout.effects.handlers.trace import trace
    >>> from sumout.effects.primitives import sample
    >>> def model():
    ...     return sample("z", Normal(0.0, 1.0))
    >>> trace(condition(model, data={"z": torch.tensor(1.0)})).get_trace().observation_nodes
    ['z']
    """

    def __init__(self, data: Mapping[str, Any] | Trace) -> None:
        super().__init__()
        check_data(type(self), data, "condition(model, data={'x': torch.tensor(1.0)})")
        self.data = data

    def _names(self) -> Iterable[str]:
        return self.data.nodes if isinstance(self.data, Trace) else self.data.keys()

    def _expected(self, name: str) -> bool:
        return not isinstance(self.data, Trace) or is_drawn(self.data, name)

    def _pyro_sample(self, msg: Message) -> None:
        if saw := self._run.saw:
            saw(msg.name)
        name, data = msg.name, self.data
        if name is None:
            return
        given = data.nodes if isinstance(data, Trace) else data
        if name in given:
            value = given[name].value if isinstance(data, Trace) else given[name]
            if not isinstance(value, Tensor):
                value = _checked(msg, value)
        elif "_chain" in msg.infer and (steps := assembled(msg, given)) is not None:
            value, names = steps
            if saw:
                for each in names:
                    saw(each)
        else:
            return
        msg.value = value
        msg.is_observed = value is not None
        msg.enum_dim = None  # an enum inside has chosen all values already: what is observed has one


def _checked(msg: Message, value: Any) -> Any:
    """A value that is no tensor, if a site of a distribution can observe it."""
    if value is None or isinstance(value, (int, float)):
        return value
    if not is_distribution(msg.plain_fn) or site_is_subsample(msg):
        return value  # Any function may give it; the choice of a subsample may be a list.
    if isinstance(value, (np.ndarray, np.generic)):
        with suppress(TypeError):  # of objects or texts
            # Of a copy, as torch takes no array that is reversed and warns of one that is read-only.
            return torch.as_tensor(np.array(value))
    raise ModelError(
        f"The value to observe at site {msg.name!r} is of type {type(value).__name__}; it is a tensor or a number. "
        "Convert it, e.g. with torch.as_tensor."
    )


condition = wrap(ConditionMessenger)
