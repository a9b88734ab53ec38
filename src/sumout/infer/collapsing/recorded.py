"""From a site's distribution to its delayed value."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.conjugacy import GAUSSIAN, POSITIVE
from sumout.distributions.families import innermost
from sumout.effects import Message
from sumout.effects.delayed import Delayed
from sumout.effects.delayed.links import joint_shape
from sumout.errors import EnumerationError

_WITH_MEANS = (dist.Beta, dist.Dirichlet, dist.Gamma)
_MANY = 10_000


def probe_of(fn: Any) -> Tensor:
    """Any value of the support will do, and a million draws take their time."""
    kind = type(innermost(fn))
    found: Tensor
    # Torch warns of each draw of a Wishart distribution, and draws it anew.
    if kind is dist.Wishart or (kind in _WITH_MEANS and math.prod(fn.batch_shape) > _MANY):
        found = fn.mean.clone()
    elif kind in GAUSSIAN and math.prod(fn.shape()) > _MANY:
        found = fn.mean.new_ones(()).expand(fn.shape())  # Not zero, by which programs may divide.
    else:
        found = fn()
    return found


def no_room(name: str | None) -> EnumerationError:
    return EnumerationError(
        f"Site {name!r} is integrated out or depends on sites that are, and so many enumerated sites are in sight that "
        "their joint values have no room in one tensor, or the program moves their dimensions. Tell what depends on "
        "what by markov, leave the site to a guide or to sampling (infer={'collapse': False}), or put collapse around "
        "the part of the program that it belongs to."
    )


def delayed_value(msg: Message) -> Delayed:
    """The delayed value of a site, from what was drawn for it."""
    probe = msg.value
    if isinstance(probe, Delayed):
        probe = probe.probe
    if type(probe) is not Tensor:
        raise no_room(msg.name)
    fn = msg.plain_fn
    event_dim = fn.event_dim
    batch = probe.shape[: probe.dim() - event_dim]
    wanted = joint_shape(batch, msg.batch_shape)
    if batch != wanted:  # There are plates around the context.
        probe = probe.expand(wanted + fn.event_shape)
    plates = {frame.dim for frame in msg.cond_indep_stack if frame.dim is not None}
    rank = probe.dim() - event_dim
    for place in range(rank):
        if place - rank not in plates and probe.shape[place] > 1:
            probe = probe.narrow(place, 0, 1)  # It is one variable for all enumerated values.
    while probe.dim() > event_dim and probe.shape[0] == 1 and event_dim - probe.dim() not in plates:
        probe = probe[0]
    kind = type(innermost(fn))
    return Delayed.of_site(msg.name or "", probe, kind is dist.Dirichlet, kind in POSITIVE)
