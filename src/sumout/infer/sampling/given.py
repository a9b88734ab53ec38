"""What importance weights cannot be made of: values that handlers gave and nothing drew, draws that no density of the
model stands against."""

from __future__ import annotations

import math

import torch

from sumout.distributions import Delta
from sumout.distributions.families import innermost
from sumout.effects import Message, Messenger, Trace
from sumout.effects.random_state import RandomState, get_rng_state
from sumout.effects.steps import is_lookback, names_of_steps
from sumout.effects.trace import sample_sites, site_is_subsample
from sumout.errors import ModelError, nearest

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
    """Raises ``ModelError`` for a site that a handler gave a value, but where it could have no other (``Delta``)."""
    if not is_given(site) or site_is_subsample(site) or site.infer.get("_deterministic"):
        return
    logs = torch.as_tensor(site["log_prob"])
    # A Delta may have a density: that of what its value is a function of.
    other = logs == -math.inf if isinstance(innermost(site.plain_fn), Delta) else logs != 0
    if bool(other.any()):
        raise ModelError(
            f"Site {site.name!r} has a value that a handler gives (replay), and that neither the guide nor the prior "
            "drew: it has no weight. Observe it, condition(model, data={"
            f"{site.name!r}: value}}), or draw it in the guide."
        )


def refuse_extra(guide: Trace, model: Trace) -> None:
    """Raises ``ModelError`` if the guide draws what is no latent site of the model.

    Weights would be divided by a density that nothing stands against, and their mean would be no evidence.
    """
    latent = {
        name
        for site in sample_sites(model)
        if not site.is_observed and not is_lookback(site)
        for name in (site.name or "", *names_of_steps(site))
    }
    extra = {}
    determined = False
    for name, site in guide.nodes.items():
        if site.infer.get("_deterministic") or site_is_subsample(site) or is_lookback(site):
            continue
        known = not latent.isdisjoint((name, *names_of_steps(site)))
        certain = isinstance(innermost(site.plain_fn), Delta)
        determined |= known and certain
        if not known and not certain:
            extra[name] = bool(site.infer.get("is_auxiliary"))
    for name, auxiliary in extra.items():
        if not auxiliary:
            raise ModelError(
                f"Site {name!r} is in the guide but is no latent site of the model (in all of its runs)."
                f"{nearest(name, latent)} Its density has no place in a weight: leave it out, or mark it "
                "infer={'is_auxiliary': True} if sites of the model are functions of it (Delta)."
            )
        if not determined:
            raise ModelError(
                f"Site {name!r} of the guide is auxiliary, and no site of the model is a function of it: the guide "
                "draws none from a Delta. Weights need the density of what is drawn with the auxiliary site "
                "integrated out."
            )
