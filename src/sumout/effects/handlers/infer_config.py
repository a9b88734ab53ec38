"""Configuring inference site by site, from outside the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.errors import ModelError


class InferConfigMessenger(Messenger):
    """Updates ``infer`` of ``sample`` and ``param`` sites.

    Args:
        config_fn: a function of a site that gives the entries to add.

    Raises:
        ModelError: if it is no function; at a site that it gives something else for.

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
        if not callable(config_fn):
            raise ModelError(
                f"infer_config takes a function of a site and was given {config_fn!r}. Give one, e.g. "
                "infer_config(model, config_fn=lambda site: {'enumerate': 'parallel'})."
            )
        self.config_fn = config_fn

    def _pyro_sample(self, msg: Message) -> None:
        entries = self.config_fn(msg)
        try:
            msg.infer.update(entries)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"config_fn gave {entries!r} for site {msg.name!r}; it gives a dictionary, {{}} where there is nothing "
                "to add."
            ) from error

    _pyro_param = _pyro_sample


infer_config = wrap(InferConfigMessenger)
