"""From what was typed, and from files, to the positions of observed states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sumout.errors import EvidenceError
from sumout.factors import FactorGraph, resolve_evidence
from sumout.factors.evidence import MISSING
from sumout.io import EvidenceRows, parse_evidence, parse_evidence_samples, read_evidence_csv
from sumout.io.evidence import State, is_uai
from sumout.io.source import read_text


@dataclass(frozen=True, eq=False)
class Observed:
    """What was observed, once or many times.

    Attributes:
        columns: node -> positions of its state in each row, shape ``(count,)``; -1 where it was not observed.
        count: how many rows there are.
        many: whether they came as a table, so that the answers are one, even if it has one row.
    """

    columns: Mapping[str, Tensor]
    count: int
    many: bool

    @property
    def always(self) -> frozenset[str]:
        """The nodes that are observed in every row."""
        return frozenset([name for name, column in self.columns.items() if not (column == MISSING).any()])

    def rows(self) -> list[dict[str, int]]:
        """Node -> position of its state, for each row."""
        if not self.columns:
            return [{} for _ in range(self.count)]
        listed = zip(*[column.tolist() for column in self.columns.values()], strict=True)
        return [
            {name: state for name, state in zip(self.columns, row, strict=True) if state != MISSING}
            for row in listed
        ]

    def part(self, rows: slice | Tensor) -> Observed:
        """Some of the rows."""
        count = len(torch.arange(self.count)[rows])
        return Observed({name: column[rows] for name, column in self.columns.items()}, count, self.many)


def gather(graph: FactorGraph, items: Sequence[str], file: str | None, csv_file: str | None) -> Observed:
    """All evidence of one command.

    Args:
        graph: the network.
        items: ``NAME=STATE``, each possibly several with commas between them.
        file: an evidence file; one in UAI's format may have many samples.
        csv_file: a file with a row for each observation. What the items and the file say holds in every row.

    Raises:
        EvidenceError: an item is malformed, a node or state is unknown, or a node has two states.
        ParseError: a file is malformed.

    >>> graph = FactorGraph.from_tables({"rain": (["rain"], [0.8, 0.2])}, states={"rain": ["no", "yes"]})
    >>> gather(graph, ["rain=yes"], None, None).rows()
    [{'rain': 1}]
    """
    always: list[tuple[str, State]] = []
    tables: list[EvidenceRows] = []
    if file is not None:
        text = read_text(file)
        samples = parse_evidence_samples(file, text) if is_uai(text) else None
        if samples is not None and len(samples) > 1:
            tables.append(samples)
        else:
            always += parse_evidence(file, text).items()
    for item in items:
        always += pairs(graph.states, item)
    if csv_file is not None:
        if tables:
            raise EvidenceError(f"{file} has {len(tables[0])} samples and {csv_file} rows: give one of them.")
        tables.append(read_evidence_csv(csv_file))
    return _together(graph, _resolved(graph, always), tables[0] if tables else None)


def pairs(states: Mapping[str, Sequence[str]], item: str) -> Iterator[tuple[str, str]]:
    """The names and states in one item.

    Names and labels may themselves hold ``=`` and ``,``: the first split that gives a known name is taken.
    """
    cuts = [place for place, character in enumerate(item) if character == "="]
    for cut in cuts:
        name, state = item[:cut], item[cut + 1 :]
        if name in states and state and (state in states[name] or "," not in state):
            yield name, state
            return
    parts = item.split(",")
    for part in parts:
        name, equals, state = part.partition("=")
        if not equals or not name.strip() or not state.strip():
            raise EvidenceError(f"The evidence {part!r} is malformed: write NAME=STATE.")
        yield name.strip(), state.strip()


def _resolved(graph: FactorGraph, items: Iterable[tuple[str, State]]) -> dict[str, int]:
    evidence: dict[str, int] = {}
    for name, state in items:
        index = resolve_evidence(graph, {name: state})[name]
        assert isinstance(index, int)  # a node is in no plate
        if evidence.setdefault(name, index) != index:
            raise _two_states(graph, name, evidence[name], index)
    return evidence


def _together(graph: FactorGraph, always: Mapping[str, int], table: EvidenceRows | None) -> Observed:
    """The rows of a table, each with what always holds."""
    count = 1 if table is None else len(table)
    columns = {} if table is None else table.columns(graph)
    for name, state in always.items():
        column = columns.get(name)
        if column is not None:
            other = (column != MISSING) & (column != state)
            if other.any():
                assert table is not None
                row = int(other.nonzero()[0])
                where = f"{table.path}:{table.lines[row]}: "
                raise _two_states(graph, name, state, int(column[row]), where)
        columns[name] = torch.full((count,), state)
    seen = {name: column for name, column in columns.items() if (column != MISSING).any()}
    if table is not None and not seen:  # a table of no columns would be no table
        seen = {next(iter(graph.variables)): torch.full((count,), MISSING)}
    return Observed(seen, count, table is not None)


def _two_states(graph: FactorGraph, name: str, first: int, second: int, where: str = "") -> EvidenceError:
    both = " and ".join(repr(graph.states[name][each]) for each in (first, second))
    return EvidenceError(f"{where}The evidence gives {name!r} two states, {both}: give one.")
