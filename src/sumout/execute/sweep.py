"""The forward sweep over a plan's groups, and the backward sweep that brings something back to every factor.

A sweep works on raw tensors and knows a plan's groups, not what they stand for; what is done at each group is an
algebra's. Every row of a group's result is used exactly once, so the backward sweep assigns and never accumulates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sumout.execute.algebra import Algebra, Record, Sides
from sumout.execute.per_plan import PerPlan
from sumout.execute.rows import Back, Indices, gather, stack_rows
from sumout.execute.run_shape import Shape, shape_of
from sumout.execute.scan import Scan, scan_adjoint
from sumout.plan import EliminationPlan, Group, Rows, Run, runs_of

Keep = Literal["adjoint", "operands", "results"]
"""What is recorded: for the backward sweep; for a walk in reverse; for that and for max-marginals."""


_runs: PerPlan[dict[int, tuple[Run, Shape]]] = PerPlan(
    lambda plan: {start: (run, shape_of(run)) for start, run in runs_of(plan.schedule.groups).items()}
)


class Tape(NamedTuple):
    """A forward sweep: the answer (of the batch's shape), and a record for every group if asked for; of runs that were
    made at once, by the number of the last group, another."""

    value: Tensor
    records: list[Record]
    scans: dict[int, Scan]


class Ahead(NamedTuple):
    """What of a sliced plan is the same in every slice: for each group that runs once, its result if a slice reads it,
    and its record; nothing for the others."""

    results: list[Tensor | None]
    records: list[Record]


_indices: PerPlan[Indices] = PerPlan(lambda plan: {})


Way = tuple[Sides, ...]
"""For each group, to which of its operands something has to go back."""

_ways: PerPlan[dict[frozenset[int], Way]] = PerPlan(lambda plan: {})


def way_back(plan: EliminationPlan, wanted: frozenset[int]) -> Way:
    """Where a backward sweep has to pass to reach some factors, given by their numbers."""
    ways = _ways(plan)
    found = ways.get(wanted)
    if found is None:
        passed: list[bool] = []
        sides: list[Sides] = []
        for group in plan.schedule.groups:
            sides.append(tuple([_leads_to(side, wanted, passed) for side in group.operands]))
            passed.append(any(sides[-1]))
        found = ways[wanted] = tuple(sides)
    return found


def _leads_to(side: tuple[Rows, ...], wanted: frozenset[int], passed: Sequence[bool]) -> bool:
    return any(
        not wanted.isdisjoint(part.numbers) if part.group is None else passed[part.group] for part in side
    )


def forward(
    plan: EliminationPlan,
    tables: Sequence[Tensor],
    algebra: Algebra,
    keep: Keep | None = None,
    wanted: frozenset[int] | None = None,
    ahead: Ahead | None = None,
) -> Tape:
    """Runs a plan.

    Args:
        plan: from ``make_plan``.
        tables: log-tables of all factors, the plan's probes included.
        algebra: what is done at each group.
        keep: what is recorded; if nothing, results are freed as soon as they have been read.
        wanted: the factors to which a backward sweep will go, by number, so that no more is kept than it needs; all if
            ``None``.
        ahead: what was run ahead, with the same ``keep`` and ``wanted``, if the tables are one slice of the plan's.
    """
    scans: dict[int, Scan] = {}
    results, records = _run(plan, tables, algebra, keep, wanted, ahead, scans)
    return Tape(_total(plan, tables, results, algebra), records, scans)


def forward_ahead(
    plan: EliminationPlan,
    tables: Sequence[Tensor],
    algebra: Algebra,
    keep: Keep | None = None,
    wanted: frozenset[int] | None = None,
) -> Ahead:
    """Runs the groups of a sliced plan that are the same in every slice; tables that differ are not looked at."""
    return Ahead(*_run(plan, tables, algebra, keep, wanted, None, None))


def _run(
    plan: EliminationPlan,
    tables: Sequence[Tensor],
    algebra: Algebra,
    keep: Keep | None,
    wanted: frozenset[int] | None,
    ahead: Ahead | None,
    scans: dict[int, Scan] | None,
) -> tuple[list[Tensor | None], list[Record]]:
    """All groups, or without ``scans``, which is filled with runs that were made at once, those that run once."""
    groups, indices = plan.schedule.groups, _indices(plan)
    way = None if wanted is None else way_back(plan, wanted)
    results: list[Tensor | None] = []
    records: list[Record] = []
    unread = [group.rows for group in groups]
    runs = _runs(plan) if scans is not None and ahead is None and keep in (None, "adjoint") else {}
    for number, group in enumerate(groups):
        if number < len(results):
            continue  # It was made with those before it.
        if scans is None and not group.once:
            results.append(None)
            records.append(Record())
            continue
        if ahead is not None and group.once:
            results.append(ahead.results[number])
            records.append(ahead.records[number])
            continue
        if number in runs:
            made = _scanned(*runs[number], algebra, tables, results, indices)
            if made is not None:
                assert scans is not None
                count = len(made.run.groups)
                results += [*[None] * (count - 1), made.result]
                records += [Record()] * count
                if keep is not None and (way is None or any(map(any, way[number : number + count]))):
                    scans[number + count - 1] = made
                for each in made.run.groups:
                    _free(each, results, unread)
                continue
        operands = tuple([stack_rows(side, tables, results, indices) for side in group.operands])
        result, record = algebra.forward(number, group, operands)
        results.append(result)
        if keep is None or (way is not None and not any(way[number])):
            records.append(Record())
        elif keep == "adjoint":
            records.append(record)
        else:
            records.append(Record(operands, result=result if keep == "results" else None))
        del operands, result, record  # Or they would live until the next group has run.
        _free(group, results, unread)
    return results, records


def _scanned(
    run: Run,
    shape: Shape,
    algebra: Algebra,
    tables: Sequence[Tensor],
    results: Sequence[Tensor | None],
    indices: Indices,
) -> Scan | None:
    """A run made at once, if the algebra makes it so."""
    if not algebra.scans(run):
        return None
    others = []
    for place, (parts, first) in enumerate(zip(run.others, run.first_others, strict=True)):
        cycles = len(run.numbers(place))
        if all(_repeated(part, cycles, tables) for part in parts):
            parts, cycles = first, 1
        stacked = [stack_rows((part,), tables, results, indices) for part in parts]
        pieces = [each.reshape(cycles, -1, *each.shape[1:]) for each in stacked]
        others.append(pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1))
    return algebra.scan(run, shape, stack_rows(run.head, tables, results, indices), others)


def _repeated(part: Rows, cycles: int, tables: Sequence[Tensor]) -> bool:
    """Whether all cycles of a run take the same tables."""
    if part.group is not None:
        return False
    found = [tables[number] for number in part.numbers]
    first = found[: len(found) // cycles]
    return all(each is first[place % len(first)] for place, each in enumerate(found))


def _total(
    plan: EliminationPlan, tables: Sequence[Tensor], results: Sequence[Tensor | None], algebra: Algebra
) -> Tensor:
    """The answer: the weighted sum of all totals."""
    schedule, batch, indices = plan.schedule, plan.structure.batch, _indices(plan)
    sizes = dict(plan.structure.sizes)
    shape = [sizes[each] for each in batch]
    if not any(schedule.total_dims):
        scalars = algebra.total(stack_rows(schedule.totals, tables, results, indices))
        if any(weight != 1.0 for weight in schedule.weights):
            scalars = scalars * scalars.new_tensor(schedule.weights)
        return scalars.sum().expand(shape)
    value: Tensor | float = 0.0
    for part, dims, weight in zip(schedule.totals, schedule.total_dims, schedule.weights, strict=True):
        total = algebra.total(stack_rows((part,), tables, results, indices)[0])
        total = total.permute([dims.index(each) for each in batch if each in dims])
        total = total.reshape([sizes[each] if each in dims else 1 for each in batch])
        value = value + (total if weight == 1.0 else total * weight)
    assert isinstance(value, Tensor)
    return value.expand(shape)


def _free(group: Group, results: list[Tensor | None], unread: list[int]) -> None:
    for side in group.operands:
        for rows in side:
            if rows.group is not None:
                unread[rows.group] -= len(rows.numbers)
                if unread[rows.group] == 0:
                    results[rows.group] = None


def backward(
    plan: EliminationPlan,
    tape: Tape,
    algebra: Algebra,
    seeds: Sequence[Tensor],
    wanted: frozenset[int],
    alike: Sequence[int] | None = None,
) -> dict[int, Tensor]:
    """Goes through the groups in reverse and hands back from results to operands, where that leads to wanted factors.

    The tape is used up: every record is dropped when it has been read.

    Args:
        plan: the plan that ``tape`` was recorded from.
        tape: the forward sweep, with what ``algebra`` needs.
        algebra: what is done at each group.
        seeds: what comes back for each of the schedule's totals.
        wanted: the factors, by number, to which something is to come back.
        alike: for each factor the number that its table goes by, where the sum of what comes back to the factors of one
            table is wanted.

    Returns:
        What came back to each of them, in the shape of its table; or to each table.
    """
    groups, indices, way = plan.schedule.groups, _indices(plan), way_back(plan, wanted)
    back = Back([any(sides) for sides in way], wanted, alike)
    start = 0
    for part in plan.schedule.totals:
        stop = start + len(part.numbers)
        back.hand((part,), torch.stack(list(seeds[start:stop])))
        start = stop
    passed = {
        number for last, made in tape.scans.items() for number in range(last + 1 - len(made.run.groups), last)
    }
    for number in range(len(groups) - 1, -1, -1):
        sides = way[number]
        if number in tape.scans:
            _back_through(tape.scans.pop(number), back, way, indices)
        elif any(sides) and number not in passed:
            group = groups[number]
            of_result = gather(back.take(number), group, indices)
            outgoing = algebra.backward(group, tape.records[number], of_result, sides)
            del of_result
            tape.records[number] = Record()
            for side, of_operand, leads in zip(group.operands, outgoing, sides, strict=True):
                if leads:
                    assert of_operand is not None
                    back.hand(side, of_operand)
            del outgoing, of_operand
    missing = (wanted if alike is None else {alike[each] for each in wanted}).difference(back.of_factors)
    assert not missing, missing  # Every factor is an operand of exactly one step.
    return back.of_factors


def _back_through(made: Scan, back: Back, way: Way, indices: Indices) -> None:
    """The way back through a run."""
    run = made.run
    incoming = gather(back.take(run.stop - 1), run.groups[-1], indices)
    leads = [
        any(way[number][1 - side] for number in run.numbers(place)) for place, side in enumerate(run.sides)
    ]
    summed = back.alike is not None
    head, others = scan_adjoint(made, incoming, leads, summed)
    for place, beliefs in enumerate(others):
        if beliefs is None:
            continue
        start = 0
        for part in run.first_others[place] if summed and made.same[place] else run.others[place]:
            stop = start + len(part.numbers) // len(beliefs)
            back.hand((part,), beliefs[:, start:stop].flatten(0, 1))
            start = stop
    if way[run.start][run.head_side]:
        back.hand(run.head, head)


def seeds(plan: EliminationPlan, grad: Tensor) -> list[Tensor]:
    """For each total, the derivative by it of the answer, times ``grad`` of the answer's shape."""
    schedule, batch = plan.schedule, plan.structure.batch
    if not batch:
        return [grad if weight == 1.0 else grad * weight for weight in schedule.weights]
    found = []
    for dims, weight in zip(schedule.total_dims, schedule.weights, strict=True):
        gone = tuple(place for place, each in enumerate(batch) if each not in dims)
        left = [each for each in batch if each in dims]
        each = (grad.sum(gone) if gone else grad) * weight
        found.append(each.permute([left.index(name) for name in dims]))
    return found
