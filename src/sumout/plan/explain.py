"""A plan in words: what was considered, why it won, and everything that it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from sumout.plan.cost import figure, in_bytes
from sumout.plan.eliminate import Step
from sumout.plan.orders import BATCHING, DEFAULT
from sumout.plan.outline import StuckError, outline
from sumout.plan.record import PlanRecord
from sumout.plan.structure import readouts
from sumout.text import aligned, duration


def explained(plan: PlanRecord) -> str:
    """The text of ``EliminationPlan.explain``."""
    summary = "\n".join([_asked(plan), *_figures(plan), *_simplified(plan)])
    return "\n\n".join([summary, _considered(plan), _steps(plan)])


def compared(mine: PlanRecord, other: PlanRecord) -> str:
    """The text of ``EliminationPlan.compare``."""
    rows = [("", mine.order, other.order, "")]

    def add(what: str, one: float, two: float, show: Callable[[float], str]) -> None:
        ratio = "" if one == two or not one else f"{two / one:.3g} times"
        rows.append((what, show(one), show(two), ratio))

    add("flops", mine.flops, other.flops, figure)
    add("launches", _launches(mine), _launches(other), figure)
    add("largest table", mine.largest, other.largest, figure)
    add("induced width", mine.width, other.width, figure)
    add("peak memory", mine.bytes(), other.bytes(), in_bytes)
    add("with marginals", mine.bytes(backward=True), other.bytes(backward=True), in_bytes)
    add("slices", mine.slices, other.slices, figure)
    add("estimated time", mine.seconds(), other.seconds(mine.machine), duration)
    same = "" if mine.asked == other.asked else "\nThey were made for different structures."
    return aligned(rows, right={1, 2, 3}) + same


def _launches(plan: PlanRecord) -> int:
    """Of all slices together."""
    return plan.slices * plan.cost.launches - (plan.slices - 1) * plan.once.launches


def _asked(plan: PlanRecord) -> str:
    asked = plan.asked
    what = [counted(len(asked.factors), "factor"), counted(len(asked.variables), "variable")]
    what += [counted(len(asked.plates), "plate")] if asked.plates else []
    batch = math.prod([size for name, size in asked.sizes if name in asked.batch])
    of_batch = f", {batch:,} questions at once" if asked.batch else ""
    wanted = f", {counted(len(plan.marginals), 'marginal')} read out" if plan.marginals else ""
    return f"A plan for {', '.join(what[:-1])} and {what[-1]}{of_batch}{wanted}, found by {plan.order}."


def _figures(plan: PlanRecord) -> list[str]:
    cost = plan.cost
    once = ", each slice" if plan.sliced else ""
    kept = in_bytes(plan.bytes(backward=True))
    return _aligned(
        [
            ("flops", f"{figure(plan.flops)} multiply-adds"),
            ("launches", f"{counted(cost.launches, 'group')} of {counted(len(plan.steps), 'step')}{once}"),
            (
                "largest table",
                f"{counted(plan.largest, 'entry')} over {_some(plan.largest_dims) or 'nothing'}",
            ),
            ("induced width", str(plan.width)),
            ("peak memory", f"{in_bytes(plan.bytes())} in float64, {kept} with marginals or gradients"),
            ("estimated time", f"{duration(plan.seconds())} for a forward sweep"),
        ]
    )


def _simplified(plan: PlanRecord) -> Iterator[str]:
    found = plan.simplified
    if plan.unrolled:
        one = len(plan.unrolled) == 1
        plates = f"the {'plate' if one else 'plates'} {_some(plan.unrolled)} {'is' if one else 'are'}"
        why = "not tree-shaped with the rest" if _crossed(plan) else "too large for memory as a whole"
        yield (
            f"Unrolled: {plates} {why}. Written out, {'it makes' if one else 'they make'} "
            f"{len(plan.structure.variables) + len(plan.sliced):,} variables and "
            f"{len(plan.structure.factors):,} factors of {len(plan.asked.variables):,} and {len(plan.asked.factors):,}."
        )
    if plan.sliced:
        yield (
            f"Sliced: {_some([name for name, _ in plan.sliced])} {'is' if len(plan.sliced) == 1 else 'are'} fixed to "
            f"{plan.slices:,} joint states, one after the other, because the plan would not fit into memory otherwise."
        )
    if plan.once.launches:
        yield (
            f"Shared: {counted(plan.once.launches, 'group')} of {figure(plan.once.flops)} flops, which depend on none "
            f"of these, run once and not {plan.slices:,} times."
        )
    if plan.frugal:
        yield "Frugal: steps run one by one, because batches of them would not fit into memory."
    if found.alone:
        yield f"Simplified: {counted(found.alone, 'variable')} summed out of the only table that has it, at once."
    if found.safe and plan.order.split(",")[0] not in BATCHING:
        yield (
            f"Simplified: {counted(found.safe, 'variable')} eliminated first, because no order does better "
            "(simplicial and series variables)."
        )
    if len(plan.elimination.totals) > 1:
        yield f"Split: {len(plan.elimination.totals):,} parts that share no variable, planned one by one."
    if found.contractions > found.distinct:
        yield (
            f"Searched: {counted(found.distinct, 'contraction')}; {found.contractions - found.distinct:,} more "
            "differ from these by names alone."
        )
    if plan.maximised:
        yield f"Constrained: {_some(plan.maximised)} maximised after all others are summed out."


def _crossed(plan: PlanRecord) -> bool:
    """Whether plates had to be written out, whatever the memory."""
    try:
        outline(plan.asked, readouts(plan.asked, plan.marginals)[1], plan.maximised)
    except StuckError:
        return True
    return False


def _considered(plan: PlanRecord) -> str:
    if not plan.considered:
        return "Considered: nothing, for the plan was loaded."
    best = min(each.seconds for each in plan.considered)
    rows = [("considered", "estimate", "", "flops", "launches", "")]
    for each in plan.considered:
        chosen = each.order == plan.order and each.seconds == best
        more = f"{each.seconds / best:.2f} times" if best < each.seconds < math.inf else ""
        why = "chosen: the cheapest" if chosen else ""
        rows.append((each.order, duration(each.seconds), more, figure(each.flops), f"{each.launches:,}", why))
    machine, notes = plan.machine, []
    tried = [each.order for each in plan.considered]
    passed = [each for each in BATCHING if each not in tried]
    if passed and all(each in tried for each in DEFAULT if each not in BATCHING):
        notes.append(f"Passed over: {', '.join(passed)}, which would make no batches that pay.")
    notes.append(
        f"An estimate is flops / {machine.flops_per_second:.3g} + entries / {machine.entries_per_second:.3g} + "
        f"launches * {machine.seconds_per_launch:.3g}, in seconds, of the contractions alone."
    )
    return "\n".join([aligned(rows, right={1, 2, 3, 4}), *notes])


def _steps(plan: PlanRecord) -> str:
    rows = [("step", "operation", "of", "over", "result", "entries", "flops")]
    sizes = dict(plan.structure.sizes)
    name = {each: f"f{each}" for each in range(len(plan.structure.factors))}
    name |= {len(name) + each: f"one{each}" for each in range(len(plan.probes))}
    by_args = {step.args: node for node, step in enumerate(plan.steps, start=len(name))}
    for number, group in enumerate(plan.schedule.groups):
        for row, step in enumerate(group.steps):
            name[_node(by_args, step.args)] = f"{number}.{row}"
            rows.append(
                (
                    f"{number}.{row}",
                    operation(step),
                    " x ".join([name[arg] for arg in step.args]),
                    " ".join(step.over),
                    " ".join(step.out),
                    f"{math.prod([sizes[each] for each in step.out]):,}",
                    f"{group.work // group.rows:,}",
                )
            )
    legend = "Steps of one group, the number before the point, run as one operation; f0 is the first factor."
    return f"{legend}\n{aligned(rows, right={5, 6})}" if len(rows) > 1 else "There is nothing to do."


def _node(by_args: Mapping[tuple[int, ...], int], args: tuple[int, ...]) -> int:
    """The number of a step's result; a schedule may turn a step's operands round."""
    found = by_args.get(args)
    return by_args[args[::-1]] if found is None else found


def operation(step: Step) -> str:
    """What a step does, in words."""
    if step.kind == "product":
        return "product" if step.times == 1.0 else f"product to the power {step.times:g}"
    gone = ("max" if step.maximum else "sum") if step.over else ""
    return ", ".join(each for each in ("multiply" if step.kind == "contract" else "", gone) if each)


def _aligned(rows: Iterable[tuple[str, str]]) -> list[str]:
    return ["  " + line for line in aligned(list(rows)).splitlines()]


def counted(count: int, noun: str) -> str:
    """So many of what a noun names.

    >>> counted(1, "step"), counted(2000, "entry")
    ('1 step', '2,000 entries')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def _some(names: Iterable[str], limit: int = 8) -> str:
    shown = list(names)
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more
