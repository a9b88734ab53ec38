"""Which of a distribution's parameters are delayed, and the distribution with numbers in their place."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from sumout.effects.delayed import Delayed


def delayed_parameters(fn: Any) -> list[Delayed]:
    """All delayed tensors that a distribution was made with.

    >>> import torch, sumout.distributions as dist
    >>> delayed_parameters(dist.Normal(Delayed.of_site("x", torch.zeros(2)), 1.0).to_event(1))
    [Delayed(site 'x', shape (2,))]
    """
    found: dict[int, Delayed] = {}
    _collect([fn], found, set())
    return list(found.values())


_WITHOUT = frozenset([Tensor, Parameter, torch.Size, int, float, bool, str, type(None)])
"""Types of most attributes of distributions, in which nothing has to be looked for."""


def _collect(values: Iterable[Any], found: dict[int, Delayed], seen: set[int]) -> None:
    for each in values:
        kind = type(each)
        if kind in _WITHOUT:
            continue
        if kind is Delayed:
            found[id(each)] = each
        elif kind is list or kind is tuple:
            _collect(each, found, seen)
        elif hasattr(each, "log_prob") and hasattr(each, "__dict__") and id(each) not in seen:
            seen.add(id(each))
            _collect(vars(each).values(), found, seen)


def with_numbers(fn: Any, numbers: Callable[[Delayed], Tensor]) -> Any:
    """A distribution with other tensors in the place of delayed ones.

    >>> import torch, sumout.distributions as dist
    >>> fn = dist.Normal(Delayed.of_site("x", torch.zeros(2)), 1.0).to_event(1)
    >>> with_numbers(fn, lambda value: value.probe + 1).mean
    tensor([1., 1.])
    """
    if isinstance(fn, Delayed):
        return numbers(fn)
    if isinstance(fn, (list, tuple)):
        changed = [with_numbers(each, numbers) for each in fn]
        return fn if all(map(operator.is_, changed, fn)) else type(fn)(changed)
    if not hasattr(fn, "__dict__") or not hasattr(fn, "log_prob"):
        return fn
    found = copy.copy(fn)
    for name, each in vars(fn).items():
        changed = with_numbers(each, numbers)
        if changed is not each:
            vars(found)[name] = changed
    return found
