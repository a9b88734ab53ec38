"""The answers to all rows of a table of evidence, put together from those of its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from sumout.errors import ImpossibleEvidenceError
from sumout.execute import MAX_SUM
from sumout.factors import FactorGraph
from sumout.infer.queries.question import check_names, refuse_nan
from sumout.infer.rows.batches import Batch, solve_rows
from sumout.infer.rows.read import EvidenceTable
from sumout.plan import EliminationPlan
from sumout.plan.structure import Readout

R = TypeVar("R", bound=Readout)


def log_evidence_of_rows(graph: FactorGraph, table: EvidenceTable) -> Tensor:
    """The log-evidence of each row, shape ``(rows,)``."""
    batches = solve_rows(graph, table)
    _, values, _ = _together(graph, batches, (), lambda batch, name: batch.result.value, possible=False)
    return values


def hidden_in(graph: FactorGraph, table: EvidenceTable) -> list[str]:
    """The variables that are not observed in all rows."""
    seen = {name for name, column in table.columns.items() if not (column < 0).any()}
    return [name for name in graph.variables if name not in seen]


def marginals_of_rows(
    graph: FactorGraph, table: EvidenceTable, wanted: Sequence[Readout] | None
) -> tuple[dict[Readout, Tensor], EliminationPlan, Tensor]:
    """Tables of probabilities with the rows first; a plan that was run; the log-evidence of each row."""
    hidden = hidden_in(graph, table)
    asked = tuple(hidden if wanted is None else wanted)
    check_names(hidden, asked)

    def read(batch: Batch, each: Readout) -> Tensor:
        if each not in batch.observed:
            return batch.result.marginal(each).probs
        assert isinstance(each, str)
        certain = torch.nn.functional.one_hot(batch.observed[each], graph.variables[each].size)
        return certain.to(batch.result.value)

    tables, values, plan = _together(graph, solve_rows(graph, table, wanted=asked), asked, read)
    return tables, plan, values


def map_of_rows(
    graph: FactorGraph, table: EvidenceTable
) -> tuple[dict[str, Tensor], EliminationPlan, Tensor]:
    """State indices of what is not observed in all rows, the rows first; a plan that was run; log-probabilities."""

    def read(batch: Batch, name: str) -> Tensor:
        here = batch.observed.get(name)
        return batch.result.assignment[name].states if here is None else here.to(batch.result.value.device)

    states, values, plan = _together(graph, solve_rows(graph, table, MAX_SUM), hidden_in(graph, table), read)
    return states, plan, values


def _together(
    graph: FactorGraph,
    batches: Iterable[Batch],
    names: Sequence[R],
    read: Callable[[Batch, R], Tensor],
    *,
    possible: bool = True,
) -> tuple[dict[R, Tensor], Tensor, EliminationPlan]:
    """What is read of all batches by name, their values, and the plan of the last; rows that a batch repeats go.

    Raises:
        ImpossibleEvidenceError: naming rows of probability zero, if all are to be ``possible``.
    """
    rows: list[Tensor] = []
    values: list[Tensor] = []
    found: dict[R, list[Tensor]] = {each: [] for each in names}
    plan = None
    for batch in batches:
        count, plan = len(batch.rows), batch.result.plan
        rows.append(batch.rows)
        values.append(batch.result.value[:count])
        if possible:
            _refuse_impossible(graph, values[-1], batch.rows)
        for each, parts in found.items():
            parts.append(read(batch, each)[:count])
    assert plan is not None
    value = _in_order(values, rows)
    refuse_nan(graph, value.sum())
    return {each: _in_order(parts, rows) for each, parts in found.items()}, value, plan


def _in_order(parts: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
    """The parts one after another, in the order of their rows."""
    together = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    numbers = torch.cat(list(rows))
    if torch.equal(numbers, torch.arange(len(numbers))):
        return together
    return together[numbers.argsort().to(together.device)]


def _refuse_impossible(graph: FactorGraph, value: Tensor, rows: Tensor) -> None:
    impossible = rows[(value == -torch.inf).cpu()].tolist()
    if impossible:
        more = f" and {len(impossible) - 5} more" if len(impossible) > 5 else ""
        raise ImpossibleEvidenceError(
            f"The observations of rows {', '.join(map(str, impossible[:5]))}{more} have probability zero under the "
            "model, so they have no posterior. log_evidence gives -inf for them: leave such rows out."
        )
