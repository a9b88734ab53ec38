"""Partial traces: where a run leaves off, and how it may go on.

``all_escape`` and ``discrete_escape`` tell at which site to leave a program; ``enum_extend`` and ``mc_extend`` give
the traces with which to run it again, each with one more site. ``queue`` goes on so until a run is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor

from sumout.effects.enumerate_site import finite_support
from sumout.effects.message import Message
from sumout.effects.stack import default_process_message
from sumout.effects.trace.container import Trace


def all_escape(trace: Trace, msg: Message) -> bool:
    """Whether a site is a latent sample site that the partial trace does not have.

    >>> all_escape(Trace(), Message(type="sample", name="z")), all_escape(Trace(), Message(type="param", name="z"))
    (True, False)
    """
    return bool(
        msg["type"] == "sample"
        and not msg["is_observed"]
        and msg["name"] is not None
        and msg["name"] not in trace
    )


def discrete_escape(trace: Trace, msg: Message) -> bool:
    """Whether a site is a latent site that the partial trace does not have and whose values can be listed.

    >>> from sumout.distributions import Bernoulli, Normal
    >>> sites = [Message(type="sample", name="z", fn=fn) for fn in (Bernoulli(0.5), Normal(0.0, 1.0))]
    >>> [discrete_escape(Trace(), site) for site in sites]
    [True, False]
    """
    fn = msg.plain_fn if isinstance(msg, Message) else msg["fn"]
    return all_escape(trace, msg) and bool(getattr(fn, "has_enumerate_support", False))


def enum_extend(trace: Trace, msg: Message, num_samples: int | None = None) -> list[Trace]:
    """Copies of a partial trace with one more site, one for each value of the site's distribution.

    A site with a batch shape takes every joint assignment of values to its elements: together the copies are all
    there is, as exact inference needs. There are exponentially many in the number of elements. Along the values of
    other sites that are enumerated in parallel its value is the same.

    Args:
        trace: a partial trace; it is not changed.
        msg: the site at which the program was left.
        num_samples: at most so many traces; all if ``None`` or negative.

    Raises:
        EnumerationError: if the site's values cannot be listed.
        DuplicateSiteError: if the trace has the site already.

    >>> from sumout.distributions import Bernoulli
    >>> site = Message(type="sample", name="z", fn=Bernoulli(torch.tensor([0.5, 0.5])))
    >>> [extended.nodes["z"].value.tolist() for extended in enum_extend(Trace(), site)]
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    fn, enumerated = msg["fn"], msg.get("enum_dims") or ()
    support = finite_support(fn, msg["name"], expand=False)
    rank = len(fn.batch_shape)
    # Along the values of a site that is enumerated in parallel there is one element, not several.
    shape = [1 if dim - rank in enumerated else size for dim, size in enumerate(fn.batch_shape)]
    values = _assignments(support.reshape(len(support), *fn.event_shape), torch.Size(shape))
    return _extend(
        trace, msg, (value.expand(fn.batch_shape + fn.event_shape) for value in values), num_samples
    )


def mc_extend(trace: Trace, msg: Message, num_samples: int | None = None) -> list[Trace]:
    """Copies of a partial trace with one more site, whose values are drawn.

    Args:
        trace: a partial trace; it is not changed.
        msg: the site at which the program was left.
        num_samples: how many traces; one if ``None`` or negative.

    Raises:
        DuplicateSiteError: if the trace has the site already.

    >>> from sumout.distributions import Normal
    >>> site = Message(type="sample", name="z", fn=Normal(0.0, 1.0))
    >>> [list(extended) for extended in mc_extend(Trace(), site, num_samples=2)]
    [['z'], ['z']]
    """
    number = 1 if num_samples is None or num_samples < 0 else num_samples
    return _extend(trace, msg, (_draw(msg) for _ in range(number)), number)


def _extend(trace: Trace, msg: Message, values: Iterable[Any], limit: int | None) -> list[Trace]:
    extended = []
    for value in islice(values, None if limit is None or limit < 0 else limit):
        longer = trace.copy()
        longer.record(_site(msg, value))
        extended.append(longer)
    return extended


def _site(msg: Message, value: Any) -> Message:
    """The site with a value, without the marks of the exit: it may be sent to another process."""
    site = msg.copy() if isinstance(msg, Message) else Message.of(msg)
    site.value = value
    site.done = value is not None
    site.stop = False
    site.continuation = None
    site.enum_dim = site.enum_dims = None
    return site


def _draw(msg: Message) -> Any:
    site = _site(msg, None)
    default_process_message(site)
    return site.value


def _assignments(support: Tensor, shape: torch.Size) -> Iterator[Tensor]:
    """Every choice of one of the values for each element; the last element changes first."""
    for choice in product(range(len(support)), repeat=shape.numel()):
        yield support[torch.tensor(choice, dtype=torch.long)].reshape(shape + support.shape[1:])
