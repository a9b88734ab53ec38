"""Observing sites from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.effects.trace import Trace


class ConditionMessenger(Messenger):
    """Observes the named sample sites, as ``obs=`` would in the program.

    Args:
        data: values by name, or a trace whose values are taken. ``None`` as a value makes a site latent.

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
        self.data = data

    def _pyro_sample(self, msg: Message) -> None:
        name = msg.name
        if name is None or name not in self.data:
            return
        msg.value = self.data.nodes[name].value if isinstance(self.data, Trace) else self.data[name]
        msg.is_observed = msg.value is not None
        msg.enum_dim = None  # an enum inside has chosen all values already: what is observed has one


condition = wrap(ConditionMessenger)
