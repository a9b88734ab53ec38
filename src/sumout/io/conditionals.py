"""Conditional tables, one a variable, become a Bayesian network: the checks that every directed format needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sumout.errors import nearest
from sumout.io.network import (
    MOST_DIMS,
    Complaint,
    Network,
    Room,
    Table,
    conditional_name,
    cycle,
    normalised,
    row_states,
)


class Conditionals:
    """Collects variables and p(child | parents), each checked as it comes.

    Every variable is declared before a table mentions it. A method takes the ``Complaint`` of the place in the
    file that it was called for.
    """

    def __init__(self) -> None:
        self.states: dict[str, tuple[str, ...]] = {}
        self.tables: dict[str, tuple[tuple[str, ...], Table]] = {}
        self.parents: dict[str, list[str]] = {}
        self._room = Room()
        self._declared: dict[str, Complaint] = {}
        self._defined: dict[str, Complaint] = {}

    def declare(self, name: str, states: Iterable[str], complaint: Complaint) -> None:
        """A new variable with its state labels."""
        if name in self.states:
            raise complaint(f"expected a new variable, found {name!r} again")
        labels: dict[str, None] = {}
        for label in states:
            if label in labels:
                raise complaint(f"expected a new state of variable {name!r}, found {label!r} again")
            labels[label] = None
        if not labels:
            raise complaint(f"expected states of variable {name!r}, found none")
        self.states[name], self._declared[name] = tuple(labels), complaint

    def known(self, name: str, complaint: Complaint) -> str:
        """Checks that a variable is declared."""
        if name not in self.states:
            raise complaint(f"expected a variable, found unknown {name!r}.{nearest(name, self.states)}")
        return name

    def scope(self, child: str, parents: Sequence[str], complaint: Complaint) -> tuple[int, ...]:
        """The sizes of a conditional table: one a parent, then the child's."""
        self.known(child, complaint)
        if child in self.parents:
            raise complaint(f"expected one table of {child!r}, found another")
        seen = {child}
        for parent in parents:
            if self.known(parent, complaint) in seen:
                raise complaint(f"expected each variable once, found {parent!r} again")
            seen.add(parent)
        if len(parents) >= MOST_DIMS:
            raise complaint(f"expected fewer than {MOST_DIMS} parents of {child!r}, found {len(parents)}")
        return tuple(len(self.states[name]) for name in (*parents, child))

    def define(
        self,
        child: str,
        parents: Sequence[str],
        values: Sequence[float] | Table,
        complaint: Complaint,
        at_value: Callable[[int], Complaint],
    ) -> None:
        """The table of p(child | parents): the parents in order, the child varying fastest.

        Args:
            child, parents: variables.
            values: finite, not negative.
            complaint: where the table stands.
            at_value: the same for an entry, by its number.

        Raises:
            ParseError: too many or too few values, a row whose sum is off 1 by more than 1e-3, a second table.
        """
        shape = self.scope(child, parents, complaint)
        if len(values) != math.prod(shape):
            over = " x ".join(map(str, shape))
            raise complaint(
                f"expected {math.prod(shape)} probabilities of {child!r} ({over}), found {len(values)}"
            )
        self._room.take(complaint, child, len(values))
        rows, off, total = normalised(np.reshape(np.array(values, dtype=np.float64), (-1, shape[-1])))
        if off is not None:
            where = row_states(off, [(parent, self.states[parent]) for parent in parents])
            given = f" given {where}" if parents else ""
            raise at_value(off * shape[-1])(
                f"expected probabilities of {child!r}{given} that sum to 1, found {total:.6g}"
            )
        self.parents[child], self._defined[child] = list(parents), complaint
        name = conditional_name(child, parents)
        while name in self.tables:  # names with " | " in them
            name += "'"
        self.tables[name] = (*parents, child), rows.reshape(shape)

    def certain(self, child: str, chosen: Sequence[str], at_state: Callable[[int], Complaint]) -> Table:
        """The entries of a table that gives one state, by label, for every row: zeros and ones."""
        labels = self.states[child]
        position = {label: place for place, label in enumerate(labels)}
        for number, label in enumerate(chosen):
            if label not in position:
                raise at_state(number)(
                    f"expected a state of {child!r}, found unknown {label!r}.{nearest(label, labels)}"
                )
        self._room.take(at_state(0), child, len(chosen) * len(labels))
        entries = np.zeros((len(chosen), len(labels)))
        entries[np.arange(len(chosen)), [position[label] for label in chosen]] = 1
        return entries.ravel()

    def network(self, end: Complaint) -> Network:
        """The network, checked: there are variables, each has a table, and the parents form no cycle."""
        if not self.states:
            raise end("expected a variable, found none")
        for name in self.states:
            if name not in self.parents:
                raise self._declared[name](
                    f"expected a table of probabilities for {name!r} in the file, found none"
                )
        if loop := cycle(self.parents):
            raise self._defined[loop[0]](f"expected no cycle, found {' -> '.join(loop)}")
        return Network(self.states, self.tables, directed=True)
