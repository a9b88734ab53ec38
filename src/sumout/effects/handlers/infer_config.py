"""Configuring inference site by site, from outside the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger


class InferConfigMessenger(Messenger):
    """Updates ``infer`` of ``sample`` and ``param`` sites.

    Args:
        config_fn: a function of a site that gives the entries to add.

    >>> from sumout.distributions import Bernoulli
    >>> from sumout.effects.handlers.trace import trace
    >>> from sumout.effects.primitives import sample
    >>> def model():
    ...     sample("z", Bernoulli(0.5))
    >>> configured = infer_config(model, config_fn=lambda site: {"enumerate": "parallel"})
    >>> trace(configured).get_trace().nodes["z"]["infer"]["enumerate"]
    'parallel'
    """

    def __init__(self, config_fn: Callable[[Message], Mapping[str, Any]]) -> None:
        self.config_fn = config_fn

    def _pyro_sample(self, msg: Message) -> None:
        msg.infer.update(self.config_fn(msg))

    def _pyro_param(self, msg: Message) -> None:
        msg.infer.update(self.config_fn(msg))


infer_config = wrap(InferConfigMessenger)
