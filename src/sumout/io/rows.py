"""Tables of evidence: many observations of one network, with empty cells where nothing was seen."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from sys import intern

import torch

from sumout.errors import EvidenceError, ParseError
from sumout.factors.evidence import MISSING, resolve_evidence
from sumout.factors.parts import GraphData
from sumout.io.evidence import State, parse_samples
from sumout.io.source import read_text


@dataclass(frozen=True)
class EvidenceRows:
    """A table of evidence: a column per variable, a row per observation, ``None`` where nothing was observed.

    Attributes:
        path: the file it came from, for errors.
        names: the variables.
        cells: for each row, a state of each variable: a label (``str``) or a position (``int``), or None.
        lines: the line of the file that each row begins at.

    >>> rows = EvidenceRows("seen.csv", ("rain", "wet"), ((None, "yes"), ("no", "yes")), (2, 3))
    >>> list(rows)
    [{'wet': 'yes'}, {'rain': 'no', 'wet': 'yes'}]
    """

    path: str
    names: tuple[str, ...]
    cells: tuple[tuple[State | None, ...], ...]
    lines: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[dict[str, State]]:
        for row in self.cells:
            yield {name: cell for name, cell in zip(self.names, row, strict=True) if cell is not None}

    def columns(self, graph: GraphData) -> dict[str, torch.Tensor]:
        """The table as queries take it: for each variable the index of its state in each row.

        Labels become indices by the rules of ``resolve_evidence``; an entry that is missing is -1.

        Returns:
            Name -> integers of shape ``(rows,)``: ``infer.marginals(graph)(evidence=rows.columns(graph))``.

        Raises:
            EvidenceError: a variable or state is unknown; the message begins with file and line.
        """
        places: list[list[int]] = [[] for _ in self.names]
        known: list[dict[State | None, int]] = [{None: MISSING} for _ in self.names]
        for row, line in zip(
            self.cells, self.lines, strict=True
        ):  # row by row: the first mistake is named first
            for name, cell, found, of_name in zip(self.names, row, places, known, strict=True):
                if cell not in of_name:
                    of_name[cell] = self._index(graph, name, cell, line)
                found.append(of_name[cell])
        return {name: torch.tensor(found) for name, found in zip(self.names, places, strict=True)}

    def _index(self, graph: GraphData, name: str, cell: State | None, line: int) -> int:
        try:
            index = resolve_evidence(graph, {name: cell})[name]
        except EvidenceError as error:
            raise EvidenceError(f"{self.path}:{line}: {error}") from None
        assert isinstance(index, int)  # one value, not in plates
        return index


def read_evidence_csv(path: str | os.PathLike[str]) -> EvidenceRows:
    """Reads rows of evidence: the first line names the variables, each further line is one observation.

    Cells are state labels; an empty one was not observed. Lines without anything on them are skipped.

    Args:
        path: the file; commas separate cells, and double quotes may stand around them.

    Raises:
        ParseError: there is no header, a variable has two columns, or a line has another number of cells.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "seen.csv"
    >>> _ = path.write_text("smoke,xray\\nyes,\\nno,yes\\n")
    >>> list(read_evidence_csv(path))
    [{'smoke': 'yes'}, {'smoke': 'no', 'xray': 'yes'}]
    """
    return parse_evidence_csv(path, read_text(path))


def parse_evidence_csv(path: str | os.PathLike[str], text: str) -> EvidenceRows:
    """The rows that a CSV text states; ``path`` is named in errors."""
    reader = csv.reader(StringIO(text), strict=True)
    names: tuple[str, ...] | None = None
    cells: list[tuple[str | None, ...]] = []
    lines: list[int] = []
    line = 1
    try:
        for row in reader:
            words = tuple(cell.strip() for cell in row)
            if not words:
                pass
            elif names is None:
                names = _header(path, words, line)
            elif len(words) != len(names):
                raise ParseError(path, line, f"expected {len(names)} cells, found {len(words)}")
            else:
                cells.append(tuple([intern(word) if word else None for word in words]))
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise ParseError(path, line, f"expected CSV, found a mistake: {error}") from None
    if names is None:
        raise ParseError(path, 1, "expected a line with the names of variables, found the end of the file")
    return EvidenceRows(os.fspath(path), names, tuple(cells), tuple(lines))


def _header(path: str | os.PathLike[str], words: Sequence[str], line: int) -> tuple[str, ...]:
    seen: set[str] = set()
    for place, word in enumerate(words):
        if not word:
            raise ParseError(
                path, line, f"expected the name of a variable in column {place + 1}, found nothing"
            )
        if word in seen:
            raise ParseError(path, line, f"expected one column per variable, found {word!r} again")
        seen.add(word)
    return tuple(words)


def read_evidence_samples(path: str | os.PathLike[str]) -> EvidenceRows:
    """Reads a UAI evidence file with any number of samples: ``samples``, then for each ``count variable state ...``.

    Without the number of samples before it, one ``count variable state ...`` is one sample.

    Args:
        path: the file.

    Raises:
        ParseError: the file is malformed, or gives one variable two states in a sample.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "seen.evid"
    >>> _ = path.write_text("2\\n1 7 0\\n2 7 1 11 1\\n")
    >>> list(read_evidence_samples(path))
    [{'7': 0}, {'7': 1, '11': 1}]
    """
    return parse_evidence_samples(path, read_text(path))


def parse_evidence_samples(path: str | os.PathLike[str], text: str) -> EvidenceRows:
    """The samples that a UAI evidence text states; ``path`` is named in errors."""
    samples = parse_samples(path, text)
    names = tuple(dict.fromkeys(name for sample, _ in samples for name in sample))
    return EvidenceRows(
        os.fspath(path),
        names,
        tuple(tuple(sample.get(name) for name in names) for sample, _ in samples),
        tuple(line for _, line in samples),
    )
