"""The answers to all rows of a table of evidence, put together from those of its batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sumout.errors import ImpossibleEvidenceError
from sumout.execute import MAX_SUM
from sumout.factors import FactorGraph
from sumout.infer.queries.question import check_names, refuse_nan
from sumout.infer.rows.batches import solve_rows
from sumout.infer.rows.read import EvidenceTable
from sumout.plan import EliminationPlan
from sumout.plan.structure import Readout


def log_evidence_of_rows(graph: FactorGraph, table: EvidenceTable) -> Tensor:
    """The log-evidence of each row, shape ``(rows,)``."""
    rows, values = [], []
    for batch in solve_rows(graph, table):
        rows.append(batch.rows)
        values.append(batch.result.value[: len(batch.rows)])
    value = _in_order(values, rows)
    refuse_nan(graph, value.sum())
    return value


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
    rows, values = [], []
    found: dict[Readout, list[Tensor]] = {each: [] for each in asked}
    plan = None
    for batch in solve_rows(graph, table, wanted=asked):
        count, result = len(batch.rows), batch.result
        plan = result.plan
        value = result.value[:count]
        _refuse_impossible(graph, value, batch.rows)
        rows.append(batch.rows)
        values.append(value)
        for each in asked:
            if each in batch.observed:
                assert isinstance(each, str)
                found[each].append(_certain(graph, batch.observed[each], each).to(value))
            else:
                found[each].append(result.marginal(each).probs[:count])
    assert plan is not None
    tables = {each: _in_order(parts, rows) for each, parts in found.items()}
    return tables, plan, _in_order(values, rows)


def map_of_rows(
    graph: FactorGraph, table: EvidenceTable
) -> tuple[dict[str, Tensor], EliminationPlan, Tensor]:
    """State indices of what is not observed in all rows, the rows first; a plan that was run; log-probabilities."""
    names = hidden_in(graph, table)
    rows, values = [], []
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    plan = None
    for batch in solve_rows(graph, table, MAX_SUM):
        count, result = len(batch.rows), batch.result
        plan = result.plan
        value = result.value[:count]
        _refuse_impossible(graph, value, batch.rows)
        rows.append(batch.rows)
        values.append(value)
        for name in names:
            here = batch.observed.get(name)
            states = result.assignment[name].states[:count] if here is None else here.to(value.device)
            found[name].append(states)
    assert plan is not None
    return {name: _in_order(parts, rows) for name, parts in found.items()}, plan, _in_order(values, rows)


def _in_order(parts: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
    """The parts one after another, in the order of their rows."""
    together = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    numbers = torch.cat(list(rows))
    if torch.equal(numbers, torch.arange(len(numbers))):
        return together
    return together[numbers.argsort().to(together.device)]


def _certain(graph: FactorGraph, column: Tensor, name: str) -> Tensor:
    """Probabilities of an observed variable: one for its state, zero for others."""
    return torch.nn.functional.one_hot(column, graph.variables[name].size)


def _refuse_impossible(graph: FactorGraph, value: Tensor, rows: Tensor) -> None:
    refuse_nan(graph, value.sum())
    impossible = rows[(value == -torch.inf).cpu()].tolist()
    if impossible:
        more = f" and {len(impossible) - 5} more" if len(impossible) > 5 else ""
        raise ImpossibleEvidenceError(
            f"The observations of rows {', '.join(map(str, impossible[:5]))}{more} have probability zero under the "
            "model, so they have no posterior. log_evidence gives -inf for them: leave such rows out."
        )
