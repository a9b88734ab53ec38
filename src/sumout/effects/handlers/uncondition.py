"""Forgetting observations."""

from __future__ import annotations

from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger


class UnconditionMessenger(Messenger):
    """Draws observed sites from their distributions instead, for instance to predict.

    The observation is kept in the site: ``infer["was_observed"]`` is true and ``infer["obs"]`` the value.

    >>> import torch
    >>> from sumout.distributions import Normal
    >>> from sumout.effects.handlers.trace import trace
    >>> from sumout.effects.primitives import sample
    >>> def model():
    ...     return sample("x", Normal(0.0, 1.0), obs=torch.tensor(1.0))
    >>> site = trace(uncondition(model)).get_trace().nodes["x"]
    >>> site["is_observed"], site["infer"]["obs"]
    (False, tensor(1.))
    """

    def _pyro_sample(self, msg: Message) -> None:
        if msg.is_observed:
            msg.infer["was_observed"] = True
            msg.infer["obs"] = msg.value
            msg.is_observed = False
            msg.value = None
            msg.done = False


uncondition = wrap(UnconditionMessenger)
