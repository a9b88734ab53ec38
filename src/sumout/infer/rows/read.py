"""Tables of evidence: many rows of observations, with entries that may be missing, as tensors of state indices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from sumout.errors import EvidenceError
from sumout.factors import FactorGraph
from sumout.factors.evidence import MISSING, resolve_evidence


@dataclass(frozen=True, eq=False)
class EvidenceTable:
    """Observations, one set a row.

    Attributes:
        count: how many rows.
        columns: for each observed variable its state indices, shape ``(count, *plates)`` with the plates in sorted
            order; ``MISSING`` where nothing was observed.
    """

    count: int
    columns: Mapping[str, Tensor]


def is_table(graph: FactorGraph, evidence: Any) -> bool:
    """Whether evidence is a table: a DataFrame, a matrix, a list of mappings, or a mapping with a column of rows."""
    if isinstance(evidence, Mapping):
        return any(_has_rows(graph, name, value) for name, value in evidence.items())
    return True


def read_table(graph: FactorGraph, evidence: Any, columns: Sequence[str] | None = None) -> EvidenceTable:
    """A table of evidence from any of its forms.

    Args:
        graph: whose variables are observed.
        evidence: a mapping from names to columns (tensors, arrays or lists of a row's length, or one value for all
            rows), a ``DataFrame``, what ``io.read_evidence_csv`` gives, a matrix of integers, or a list of mappings,
            one a row. Entries are state labels or indices; ``None``, NaN and -1 are missing ones. A column of a
            variable in plates has their sizes as further dimensions, the plates in sorted order.
        columns: the names of a matrix's columns.

    Raises:
        EvidenceError: for an unknown variable or state, naming the row; or for columns of unequal length.
    """
    named = _columns(graph, evidence, columns)
    unknown = next((name for name in named if name not in graph.variables), None)
    if unknown is not None:
        resolve_evidence(graph, {unknown: 0})  # Says what is wrong with the name.
    counts = {name: len(value) for name, value in named.items() if _has_rows(graph, name, value)}
    if len(set(counts.values())) > 1:
        short, long = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        raise EvidenceError(
            f"The column {short!r} has {counts[short]} rows and {long!r} has {counts[long]}: all columns of a table "
            "have an entry for each row. Write None, NaN or -1 for what is missing."
        )
    count = next(iter(counts.values()), 0)
    if count == 0:
        raise EvidenceError("The table of evidence has no rows. Give at least one, or evidence={} for none.")
    return EvidenceTable(
        count,
        {
            name: _column(graph, name, value)
            if name in counts
            else _column(graph, name, [value]).expand(count, *_extent(graph, name))
            for name, value in named.items()
        },
    )


def _extent(graph: FactorGraph, name: str) -> list[int]:
    return [graph.plates[plate].size for plate in sorted(graph.variables[name].plates)]


def _columns(graph: FactorGraph, evidence: Any, columns: Sequence[str] | None) -> dict[str, Any]:
    """The table's columns by name, their entries not yet looked at."""
    if isinstance(evidence, Mapping):
        return dict(evidence)
    named = getattr(evidence, "columns", None)
    if callable(named):  # Rows read from a file.
        return dict(named(graph))
    if named is not None and hasattr(evidence, "__getitem__"):  # A DataFrame, of pandas or another library.
        return {str(name): evidence[name].to_list() for name in named}
    if getattr(evidence, "ndim", None) == 2:
        if columns is None or len(columns) != evidence.shape[1]:
            raise EvidenceError(
                f"A matrix of evidence of shape {tuple(evidence.shape)} needs the names of its {evidence.shape[1]} "
                f"columns: columns=[...]; given was {columns!r}."
            )
        return {name: evidence[:, place] for place, name in enumerate(columns)}
    if isinstance(evidence, Sequence) and all(isinstance(row, Mapping) for row in evidence):
        names = dict.fromkeys(name for row in evidence for name in row)
        if evidence and not names:
            raise EvidenceError("The rows of evidence name no variable. Give evidence={} for none.")
        return {name: [row.get(name) for row in evidence] for name in names}
    if isinstance(evidence, (str, PathLike)):
        raise EvidenceError(
            f"Evidence is a mapping, e.g. {{'name': 'state'}}, or a table, not {evidence!r}. Read a file first: "
            "evidence=io.read_evidence_csv(path)."
        )
    raise EvidenceError(
        f"Evidence is a mapping, e.g. {{'name': 'state'}}, or a table (a DataFrame, a mapping to columns, a matrix "
        f"with columns=[...], a list of mappings), not {evidence!r}."
    )


def _has_rows(graph: FactorGraph, name: str, value: Any) -> bool:
    """Whether a column has an entry for each row: whether it has a dimension more than the variable's plates."""
    plates = len(graph.variables[name].plates) if name in graph.variables else 0
    depth = 0
    while depth <= plates and isinstance(value, (list, tuple)):
        depth, value = depth + 1, next((each for each in value if each is not None), None)
    return depth + getattr(value, "ndim", 0) > plates


def _column(graph: FactorGraph, name: str, value: Any) -> Tensor:
    """State indices, shape (rows, *plates)."""
    extent = _extent(graph, name)
    tensor = _of_numbers(graph, name, value) if hasattr(value, "dtype") else None
    if tensor is None:
        entries = value.tolist() if hasattr(value, "tolist") else list(value)
        flat = torch.tensor(_flat(graph, name, entries, extent), dtype=torch.long)
        fits = len(flat) == len(entries) * math.prod(extent)
        tensor = flat.reshape(len(entries), *extent) if fits else flat
    if list(tensor.shape[1:]) != extent:
        plates = ", ".join(sorted(graph.variables[name].plates))
        raise EvidenceError(
            f"The column {name!r} has shape {tuple(tensor.shape)}: it needs one dimension for the rows"
            + (f", then {tuple(extent)}, the sizes of the variable's plates ({plates})." if extent else ".")
        )
    return tensor


def _of_numbers(graph: FactorGraph, name: str, value: Any) -> Tensor | None:
    """A column that is a tensor or array of numbers; ``None`` for an array of something else."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError):
        return None
    if tensor.dtype == torch.bool:
        return None  # A truth value is the label that reads like it.
    if tensor.dtype.is_floating_point:
        missing = tensor.isnan()
        fractional = ~missing & (tensor != tensor.round())
        if fractional.any():
            raise EvidenceError(
                f"Row {int(fractional.nonzero()[0, 0])} of the column {name!r} is {tensor[fractional][0].item()}: "
                "indices are whole numbers, and NaN is a missing entry."
            )
        tensor = torch.where(missing, MISSING, tensor)
    tensor = tensor.long()
    size = graph.variables[name].size
    wrong = (tensor < MISSING) | (tensor >= size)
    if wrong.any():
        raise EvidenceError(
            f"Row {int(wrong.nonzero()[0, 0])} of the column {name!r} is {int(tensor[wrong][0])}, but its {size} "
            "states count from 0, and -1 is a missing entry."
        )
    return tensor.cpu()


def _flat(graph: FactorGraph, name: str, entries: list[Any], extent: list[int]) -> list[int]:
    """Entries of any kind as indices, nested lists flattened; one that is missing is so for all elements of plates."""
    known: dict[Any, int] = {}
    found: list[int] = []

    def visit(entry: Any, row: int, depth: int) -> None:
        if depth < len(extent) and hasattr(entry, "tolist"):
            entry = entry.tolist()
        if depth < len(extent) and isinstance(entry, (list, tuple)):
            for each in entry:
                visit(each, row, depth + 1)
            return
        key = type(entry), entry if isinstance(entry, (str, int, float)) else None
        if key[1] is None or key not in known:
            known[key] = _state(graph, name, entry, row)
        found.extend([known[key]] * math.prod(extent[depth:]))

    for row, entry in enumerate(entries):
        visit(entry, row, 0)
    return found


def _state(graph: FactorGraph, name: str, entry: Any, row: int) -> int:
    if _is_missing(entry):
        return MISSING
    if isinstance(entry, float) and entry.is_integer():
        entry = int(entry)
    try:
        index = resolve_evidence(graph, {name: entry})[name]
    except EvidenceError as error:
        raise EvidenceError(f"Row {row} of the table: {error}") from None
    assert isinstance(index, int)
    return index


def _is_missing(entry: Any) -> bool:
    if entry is None:
        return True
    if isinstance(entry, (int, float)) and not isinstance(entry, bool):
        return entry != entry or entry == MISSING
    return type(entry).__name__ in {"NAType", "NaTType"}  # Those of pandas.
