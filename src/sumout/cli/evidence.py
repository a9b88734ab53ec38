"""From what was typed, and from files, to the positions of observed states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sumout.errors import EvidenceError
from sumout.factors import FactorGraph, resolve_evidence
from sumout.io import EvidenceRows, parse_evidence, parse_evidence_samples, read_evidence_csv
from sumout.io.evidence import State, is_uai
from sumout.io.source import read_text


@dataclass(frozen=True)
class Observed:
    """What was observed.

    Attributes:
        rows: node -> position of its state, for each observation.
        many: whether they came as a table, so that the answers are one, even if it has one row.
    """

    rows: tuple[dict[str, int], ...]
    many: bool


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
    >>> gather(graph, ["rain=yes"], None, None)
    Observed(rows=({'rain': 1},), many=False)
    """
    always: dict[str, int] = {}
    tables: list[EvidenceRows] = []
    if file is not None:
        text = read_text(file)
        if is_uai(text):
            samples = parse_evidence_samples(file, text)
            if len(samples) == 1:
                _add(graph, always, samples.indices(graph)[0], f"{file}: ")
            else:
                tables.append(samples)
        else:
            for name, state in parse_evidence(file, text).items():
                _add(graph, always, _index(graph, name, state))
    for item in items:
        for name, state in pairs(graph.states, item):
            _add(graph, always, _index(graph, name, state))
    if csv_file is not None:
        if tables:
            raise EvidenceError(f"{file} has {len(tables[0])} samples and {csv_file} rows: give one of them.")
        tables.append(read_evidence_csv(csv_file))
    if not tables:
        return Observed((always,), many=False)
    rows = []
    for found, line in zip(tables[0].indices(graph), tables[0].lines, strict=True):
        row = dict(always)
        _add(graph, row, found, f"{tables[0].path}:{line}: ")
        rows.append(row)
    return Observed(tuple(rows), many=True)


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


def _index(graph: FactorGraph, name: str, state: State) -> dict[str, int]:
    return {each: int(index) for each, index in resolve_evidence(graph, {name: state}).items()}


def _add(graph: FactorGraph, evidence: dict[str, int], found: Mapping[str, int], where: str = "") -> None:
    for name, index in found.items():
        if evidence.setdefault(name, index) != index:
            both = " and ".join(repr(graph.states[name][each]) for each in (evidence[name], index))
            raise EvidenceError(f"{where}The evidence gives {name!r} two states, {both}: give one.")
