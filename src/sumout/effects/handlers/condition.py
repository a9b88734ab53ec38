"""Observing sites from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sumout.effects.handlers.named import NamedMessenger, check_data, is_drawn
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.steps import assembled
from sumout.effects.trace import Trace


class ConditionMessenger(NamedMessenger):
    """Observes the named sample sites, as ``obs=`` would in the program.

    Under validation a run warns of names that none of its sample sites has; of a trace's, only those of latent
    sites count, without auxiliary ones and plates.

    In a chain that has a name, values for single steps and for many at once stand for each other: those of
    ``x_0, ..., x_4`` observe ``x_slice(1, 5, None)``.

    Args:
        data: values by name, or a trace whose values are taken. ``None`` as a value makes a site latent.

    Raises:
        ModelError: if ``data`` is neither.

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


condition = wrap(ConditionMessenger)
