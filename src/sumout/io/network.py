"""What a network file says, before it becomes a factor graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import numpy as np
import numpy.typing as npt
import torch

from sumout.errors import MemoryLimitError, SumoutError
from sumout.factors import FactorGraph
from sumout.settings import settings

Table = npt.NDArray[np.float64]

ROW_TOLERANCE = 1e-3
"""How far from 1 a conditional row may sum. Three times 0.333 is still fine: rounding gets 1e-9 on top."""


MOST_DIMS = 32
"""Variables in one table: what an array can have as dims, far more than a table that fits into memory has."""


@dataclass(frozen=True)
class Network:
    """Names, states and tables of a discrete network.

    Attributes:
        states: the state labels of every variable, in the file's order.
        tables: name of a table -> its variables and its entries (not their logarithms), one dim per variable.
        directed: whether it is a Bayesian network; each table is then p(last variable | the others).
    """

    states: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, tuple[tuple[str, ...], Table]]
    directed: bool

    def to_graph(self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> FactorGraph:
        """The factor graph: one log-space factor per table."""
        with np.errstate(divide="ignore"):  # log 0 = -inf is meant
            tables = {
                # The logarithm of a table over no variables is a number, not an array.
                name: (scope, torch.from_numpy(np.asarray(np.log(entries))).to(device, dtype))
                for name, (scope, entries) in self.tables.items()
            }
        return FactorGraph.from_tables(tables, states=self.states, log=True)


def conditional_name(child: str, parents: Sequence[str]) -> str:
    """The name of a conditional table.

    >>> conditional_name("x", ["a", "b"])
    'x | a, b'
    """
    return f"{child} | {', '.join(parents)}" if parents else child


def normalised(rows: Table) -> tuple[Table, int | None, float]:
    """Rows divided by their sums, the first row (or None) whose sum is too far from 1, and that sum.

    >>> normalised(np.array([[0.25, 0.75], [0.5, 0.4]]))[1:]
    (1, 0.9)
    """
    sums = rows.sum(-1, keepdims=True)
    off = np.flatnonzero(~(np.abs(sums[:, 0] - 1) <= ROW_TOLERANCE + 1e-9))
    if len(off):
        return rows, int(off[0]), float(sums[off[0], 0])
    return rows / sums, None, 1.0


def row_states(row: int, parents: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The parents' states of a row in words, the last parent varying fastest.

    >>> row_states(2, [("a", ["no", "yes"]), ("b", ["low", "high"])])
    'a=yes, b=low'
    """
    words = []
    for name, states in reversed(parents):
        row, state = divmod(row, len(states))
        words.append(f"{name}={states[state]}")
    return ", ".join(reversed(words))


def cycle(parents: Mapping[str, Iterable[str]]) -> list[str]:
    """A directed cycle among child -> parents, first node repeated at the end; empty when there is none.

    >>> cycle({"a": ["b"], "b": []}), cycle({"a": ["a"]})
    ([], ['a', 'a'])
    """
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


Complaint = Callable[[str], SumoutError]
"""Makes the error for a problem at some place of a file, or of a model that another library made."""


class Room:
    """Counts the entries of a network's tables, and refuses those that a short text would blow up.

    >>> room = Room()
    >>> room.take(SumoutError, "x", 10**6)
    >>> room.entries
    1000000
    """

    def __init__(self) -> None:
        self.entries = 0

    def take(self, complaint: Complaint, name: str, entries: int) -> None:
        """Called before a table is made; raises `MemoryLimitError` when all of them are beyond the limit."""
        self.entries += entries
        if 8 * self.entries > settings.memory_limit:
            after = "" if self.entries == entries else f", after {self.entries - entries:.3g} of other tables"
            problem = (
                f"the table of {name!r} has {entries:.3g} entries{after}, more than the memory limit allows"
            )
            raise MemoryLimitError(str(complaint(problem)))
