"""What is computed once for each plan and forgotten with it.

Plans are compared by all that they hold, which takes time that a sweep does not have: here they count by identity.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from sumout.plan import EliminationPlan

T = TypeVar("T")


class PerPlan(Generic[T]):
    """A function of plans that remembers its values as long as the plans live.

    >>> from sumout.plan import Structure, make_plan
    >>> calls = []
    >>> steps = PerPlan(lambda plan: calls.append(plan) or len(plan.steps))
    >>> plan = make_plan(Structure((), (("x", 2),), (("x", frozenset()),)))
    >>> steps(plan), steps(plan), len(calls)
    (1, 1, 1)
    """

    def __init__(self, make: Callable[[EliminationPlan], T]) -> None:
        self._make = make
        self._kept: dict[int, tuple[weakref.ref[EliminationPlan], T]] = {}

    def __call__(self, plan: EliminationPlan) -> T:
        key = id(plan)
        found = self._kept.get(key)
        if found is not None and found[0]() is plan:
            return found[1]
        kept = self._kept
        value = self._make(plan)
        kept[key] = (weakref.ref(plan, lambda _: kept.pop(key, None)), value)
        return value
