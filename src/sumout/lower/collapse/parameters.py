"""Which of a distribution's parameters are delayed."""

from __future__ import annotations

from typing import Any

from sumout.effects.delayed import Delayed


def delayed_parameters(fn: Any) -> list[Delayed]:
    """All delayed tensors that a distribution was made with.

    >>> import torch, sumout.distributions as dist
    >>> delayed_parameters(dist.Normal(Delayed.of_site("x", torch.zeros(2)), 1.0).to_event(1))
    [Delayed(site 'x', shape (2,))]
    """
    found: dict[int, Delayed] = {}
    seen: set[int] = set()
    waiting = [fn]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Delayed):
            found[id(each)] = each
        elif hasattr(each, "__dict__") and hasattr(each, "log_prob"):
            waiting += list(vars(each).values())
        elif isinstance(each, (list, tuple)):
            waiting += list(each)
    return list(found.values())
