"""Which latent sites have a value that handlers gave them, and that was not drawn."""

from __future__ import annotations

import torch

from sumout.effects import Message, Messenger
from sumout.effects.random_state import RandomState, get_rng_state
from sumout.effects.trace import site_is_subsample
from sumout.errors import ModelError

_BEFORE = "_before"
"""The key under which a site has, in a list that copies of it share, the random state before it, until it was drawn."""


class GivenMarked(Messenger):
    """Finds the latent sites for whose values no random numbers were drawn; inside all handlers that give values.

    >>> import sumout
    >>> import sumout.distributions as dist
    >>> from sumout.effects.handlers import replay, trace
    >>> def model():
    ...     sumout.sample("z", dist.Normal(0.0, 1.0))
    >>> before = trace(GivenMarked()(model)).get_trace()
    >>> is_given(before.nodes["z"])
    False
    >>> with replay(trace=before):
    ...     again = trace(GivenMarked()(model)).get_trace()
    >>> is_given(again.nodes["z"])
    True
    """

    def _pyro_sample(self, msg: Message) -> None:
        if not msg.is_observed:
            msg[_BEFORE] = [get_rng_state()]

    def _pyro_post_sample(self, msg: Message) -> None:
        before: list[RandomState] = msg.get(_BEFORE, [])
        if before and not _same(before[0], get_rng_state()):
            before.clear()


def is_given(site: Message) -> bool:
    """Whether a latent site has a value that nothing drew."""
    return bool(site.get(_BEFORE))


def _same(one: RandomState, other: RandomState) -> bool:
    if not torch.equal(one.torch, other.torch) or len(one.cuda) != len(other.cuda):
        return False
    if not all(map(torch.equal, one.cuda, other.cuda)) or one.python != other.python:
        return False
    numpy = one.numpy["state"], other.numpy["state"]
    return numpy[0]["pos"] == numpy[1]["pos"] and bool((numpy[0]["key"] == numpy[1]["key"]).all())


def refuse_given(site: Message) -> None:
    """Raises ``ModelError`` for a site that a handler gave a value, but where the draw is certain (``Delta``)."""
    if not is_given(site) or site_is_subsample(site) or site.infer.get("_deterministic"):
        return
    if bool((torch.as_tensor(site["log_prob"]) != 0).any()):
        raise ModelError(
            f"Site {site.name!r} has a value that a handler gives (replay), and that neither the guide nor the prior "
            "drew: it has no weight. Observe it, condition(model, data={"
            f"{site.name!r}: value}}), or draw it in the guide."
        )
