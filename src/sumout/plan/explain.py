"""A plan in words: what was considered, why it won, and everything that it does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from sumout.plan.cost import in_bytes
from sumout.plan.record import PlanRecord
from sumout.text import aligned


def explained(plan: PlanRecord) -> str:
    """The text of ``EliminationPlan.explain``."""
    return "\n\n".join(["\n".join(_summary(plan)), _considered(plan), _steps(plan)])


def _summary(plan: PlanRecord) -> Iterator[str]:
    asked, cost = plan.asked, plan.cost
    yield (
        f"A plan for {_counted(len(asked.factors), 'factor')}, {_counted(len(asked.variables), 'variable')} and "
        f"{_counted(len(asked.plates), 'plate')}, found by {plan.order}."
    )
    once = ", each slice" if plan.sliced else ""
    kept = in_bytes(plan.bytes(backward=True))
    yield from _aligned(
        [
            ("flops", f"{plan.flops:,} multiply-adds"),
            ("launches", f"{cost.launches:,} groups of {_counted(len(plan.steps), 'step')}{once}"),
            ("largest table", f"{plan.largest:,} entries over {_some(plan.largest_dims) or 'nothing'}"),
            ("induced width", str(plan.width)),
            ("peak memory", f"{in_bytes(plan.bytes())} in float64, {kept} with marginals or gradients"),
            ("estimated time", f"{1e3 * plan.seconds():.3g} ms for a forward sweep"),
        ]
    )
    yield from _simplified(plan)


def _simplified(plan: PlanRecord) -> Iterator[str]:
    found = plan.simplified
    if plan.unrolled:
        yield (
            f"Unrolled: the plates {_some(plan.unrolled)} are not tree-shaped with the rest. Written out, they make "
            f"{len(plan.structure.variables) + len(plan.sliced):,} variables and "
            f"{len(plan.structure.factors):,} factors of {len(plan.asked.variables):,} and {len(plan.asked.factors):,}."
        )
    if plan.sliced:
        yield (
            f"Sliced: {_some([name for name, _ in plan.sliced])} {'is' if len(plan.sliced) == 1 else 'are'} fixed to "
            f"{plan.slices:,} joint states, one after the other, because the plan would not fit into memory otherwise."
        )
    if plan.frugal:
        yield "Frugal: steps run one by one, because batches of them would not fit into memory."
    if found.alone:
        yield f"Simplified: {_counted(found.alone, 'variable')} summed out of the only table that has it, at once."
    if found.safe:
        yield (
            f"Simplified: {_counted(found.safe, 'variable')} eliminated first, because no order does better "
            "(simplicial and series variables)."
        )
    if found.contractions > found.distinct:
        yield f"Searched: {found.distinct} of {found.contractions} contractions, which differ by more than names."
    if plan.maximised:
        yield f"Constrained: {_some(plan.maximised)} maximised after all others are summed out."


def _considered(plan: PlanRecord) -> str:
    if not plan.considered:
        return "Considered: nothing, for the plan was loaded."
    best = min(each.seconds for each in plan.considered)
    rows = [("considered", "estimate", "flops", "launches", "")]
    for each in plan.considered:
        why = "chosen: the cheapest" if each.order == plan.order and each.seconds == best else ""
        rows.append(
            (each.order, f"{1e3 * each.seconds:.3g} ms", f"{each.flops:.3g}", str(each.launches), why)
        )
    machine = plan.machine
    rule = (
        f"An estimate is flops / {machine.flops_per_second:.3g} + entries / {machine.entries_per_second:.3g} + "
        f"launches * {machine.seconds_per_launch:.3g}, in seconds, of the contractions alone."
    )
    return f"{aligned(rows)}\n{rule}"


def _steps(plan: PlanRecord) -> str:
    rows = [("group", "step", "operation", "over", "result", "entries", "flops")]
    sizes = dict(plan.structure.sizes)
    for number, group in enumerate(plan.schedule.groups):
        for row, step in enumerate(group.steps):
            kind = "max" if step.maximum else step.kind
            rows.append(
                (
                    str(number) if row == 0 else "",
                    f"{number}.{row}",
                    kind if step.times == 1.0 else f"{kind} to the power {step.times:g}",
                    " ".join(step.over),
                    " ".join(step.out),
                    f"{math.prod([sizes[each] for each in step.out]):,}",
                    f"{group.work // group.rows:,}",
                )
            )
    return aligned(rows)


def _aligned(rows: Iterable[tuple[str, str]]) -> list[str]:
    return ["  " + line for line in aligned(list(rows)).splitlines()]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _some(names: Iterable[str], limit: int = 8) -> str:
    shown = list(names)
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more
