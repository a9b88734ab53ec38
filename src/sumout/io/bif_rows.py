"""The body of a BIF probability block: rows, a table or a default become one conditional table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from sumout.errors import ParseError, nearest
from sumout.io.network import Room, Table, normalised, row_states
from sumout.io.source import Source


class ConditionalRows:
    """Collects p(child | parents) entry by entry, each checked as it comes.

    Args:
        source: the file.
        child, parents: variables, all of them known.
        states: the state labels of each variable.
        index: the same, label -> position.
        block: the token that names the child in its block, for errors.
        room: what the tables before it have taken.
    """

    def __init__(
        self,
        source: Source,
        child: str,
        parents: Sequence[str],
        states: Mapping[str, tuple[str, ...]],
        index: Mapping[str, Mapping[str, int]],
        block: int,
        room: Room,
    ) -> None:
        self.source, self.child, self.parents, self.block = source, child, parents, block
        self.states, self.index, self.room = states, index, room
        self.size = len(states[child])
        self.count = math.prod(len(states[parent]) for parent in parents)
        self.rows: dict[int, int] = {}  # row -> the token it starts at
        self.values: list[float] = []  # of these rows, one after the other
        self.default: list[float] = []
        self.default_at = 0
        self.whole_at: int | None = None  # the token `table`

    def entry(self, at: int, stop: int) -> int:
        """Reads the entry at token ``at`` of a body that ends at ``stop``; the number of the next token."""
        source, keyword = self.source, self.source.tokens[at]
        start, wanted = at + 1, self.size
        if keyword == "(":
            close = source.find(")", start, stop)
            row = self._row(start, close)
            start = close + 1
        elif keyword == "table":
            row, wanted = 0, self.size * self.count
        elif keyword == "default":
            row = -1
        else:
            raise source.expected(
                at, f"'(', 'table', 'default', a property or '}}' in the block of {self.child!r}"
            )
        end = source.find(";", start, stop)
        values = source.numbers(start, end, f"a probability of {self.child!r} or ';'")
        if len(values) != wanted:
            raise source.error(
                end if end == stop else at,
                f"expected {wanted} probabilities of {self.child!r}{self._where(keyword, row)}, "
                f"found {len(values)}",
            )
        if end == stop:
            raise source.expected(stop, "';'")
        self._store(keyword, row, at, values)
        return end + 1

    def _row(self, start: int, close: int) -> int:
        """The row of the states in tokens ``start`` to ``close``, the last parent varying fastest."""
        source = self.source
        tokens = source.tokens[start:close]
        row = 0
        for offset, (parent, state) in enumerate(zip(self.parents, tokens, strict=False)):
            positions = self.index[parent]
            position = positions.get(state)
            if position is None:
                state = state.strip('"')
                position = positions.get(state)
            if position is None:
                known = f"{nearest(state, positions)} It has {', '.join(positions)}."
                raise source.error(
                    start + offset, f"expected a state of parent {parent!r}, found unknown {state!r}.{known}"
                )
            row = row * len(positions) + position
        if len(tokens) != len(self.parents):
            wanted = f"expected the states of {len(self.parents)} parents ({', '.join(self.parents)})"
            raise source.error(
                min(close, start + len(self.parents)), f"{wanted} and ')', found {len(tokens)}"
            )
        return row

    def _where(self, keyword: str, row: int) -> str:
        if keyword != "(":
            return f" in its {keyword}"
        return f" given {self._given(row)}" if self.parents else ""

    def _given(self, row: int) -> str:
        return row_states(row, [(parent, self.states[parent]) for parent in self.parents])

    def _store(self, keyword: str, row: int, at: int, values: list[float]) -> None:
        if keyword == "default":
            if self.default:
                raise self._again(at, "default", self.default_at)
            self.default, self.default_at = values, at
        elif self.whole_at is not None:
            raise self._again(at, "table or row", self.whole_at)
        elif keyword == "table":
            if self.rows:
                raise self._again(at, "table or row", next(iter(self.rows.values())))
            self.whole_at = at
            # The child varies slowest here, and fastest in the rows.
            self.values = np.reshape(values, (self.size, self.count)).T.ravel().tolist()
            self.rows = dict.fromkeys(range(self.count), at)
        elif row in self.rows:
            raise self._again(at, f"row ({self._given(row)})", self.rows[row])
        else:
            self.rows[row] = at
            self.values += values

    def _again(self, at: int, what: str, first: int) -> ParseError:
        return self.source.error(
            at,
            f"expected one {what} of {self.child!r}, found another (first: line {self.source.line(first)})",
        )

    def table(self) -> Table:
        """The normalised table: one dim per parent, then the child's.

        Raises:
            ParseError: a row is missing, or its sum is off 1 by more than 1e-3.
        """
        source = self.source
        if len(self.rows) < self.count and not self.default:
            missing = next(row for row in range(self.count) if row not in self.rows)
            given = f" given {self._given(missing)}" if self.parents else ""
            left = self.count - len(self.rows)
            raise source.error(
                self.block,
                f"expected probabilities of {self.child!r}{given}, found none "
                f"({left} of {self.count} rows missing)",
            )
        self.room.take(partial(source.error, self.block), self.child, self.count * self.size)
        table = np.empty((self.count, self.size))
        if self.default:
            table[:] = self.default
        table[list(self.rows)] = np.reshape(self.values, (-1, self.size))
        table, off, total = normalised(table)
        if off is not None:
            given = f" given {self._given(off)}" if self.parents else ""
            raise source.error(
                self.rows.get(off, self.default_at),
                f"expected probabilities of {self.child!r}{given} that sum to 1, found {total:.6g}",
            )
        return table.reshape([len(self.states[name]) for name in (*self.parents, self.child)])
