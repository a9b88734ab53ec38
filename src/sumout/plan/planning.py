"""How plans are made: which heuristics, which rates, how much time; changed for a while by a context manager."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sumout.plan.cost import Machine
from sumout.plan.orders import DEFAULT, ORDERS
from sumout.plan.search import SEARCHES


@dataclass(frozen=True)
class Planning:
    """How plans are made.

    Attributes:
        orders: the heuristics to try, keys of ``ORDERS`` and ``SEARCHES``.
        machine: the rates by which costs are compared.
        time_limit: seconds of further search: by those of ``orders`` that take time, else by ``random``.
        patience: seconds that all slices of a plan may be estimated to take.
    """

    orders: tuple[str, ...] = DEFAULT
    machine: Machine = Machine()  # noqa: RUF009  (frozen)
    time_limit: float = 0.0
    patience: float = 3600.0

    def __post_init__(self) -> None:
        if not self.orders:
            raise ValueError(f"No heuristic was given; there are {', '.join((*ORDERS, *SEARCHES))}.")
        for each in self.orders:
            if each not in ORDERS and each not in SEARCHES:
                raise ValueError(
                    f"There is no heuristic {each!r}; there are {', '.join((*ORDERS, *SEARCHES))}."
                )
        if not self.time_limit >= 0.0:
            raise ValueError(f"time_limit is {self.time_limit!r}: it is a number of seconds.")

    def changed(
        self,
        orders: Sequence[str] | None = None,
        machine: Machine | None = None,
        time_limit: float | None = None,
        patience: float | None = None,
    ) -> Planning:
        """The same but for what is given."""
        return Planning(
            self.orders if orders is None else tuple(orders),
            self.machine if machine is None else machine,
            self.time_limit if time_limit is None else time_limit,
            self.patience if patience is None else patience,
        )


class _InForce(threading.local):
    """The way of planning in this thread."""

    def __init__(self) -> None:
        self.planning = Planning()


_in_force = _InForce()


def in_force() -> Planning:
    """How plans are made in this thread if nothing else is said."""
    return _in_force.planning


@contextmanager
def planning(
    *,
    orders: Sequence[str] | None = None,
    machine: Machine | None = None,
    time_limit: float | None = None,
    patience: float | None = None,
) -> Iterator[Planning]:
    """Changes how plans are made inside a ``with`` block, by all queries of this thread; see ``Planning``.

    >>> with planning(time_limit=0.5) as how:
    ...     how.time_limit
    0.5
    """
    before = _in_force.planning
    _in_force.planning = before.changed(orders, machine, time_limit, patience)
    try:
        yield _in_force.planning
    finally:
        _in_force.planning = before
