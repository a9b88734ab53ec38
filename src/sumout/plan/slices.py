"""Which variables to fix, one joint state after the other, so that a plan fits into memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from sumout.plan.cost import in_bytes
from sumout.plan.eliminate import Elimination
from sumout.plan.outline import listed
from sumout.plan.plan import EliminationPlan
from sumout.plan.structure import Structure
from sumout.text import duration

_MOST_SLICES = 2**16
"""More joint states are not run one after the other."""


def sliceable(structure: Structure) -> set[str]:
    """Variables that can be fixed: those in no plate, of components whose scale is one.

    A power is taken of the sum over all states of a component, and not of one state's share.
    """
    scaled = {
        name for factor in structure.factors if factor.scale not in (1.0, None) for name in factor.inputs
    }
    # Factors that share a variable have one scale, but a component may hang together by those in plates too.
    reached = True
    while reached and scaled:
        reached = False
        for factor in structure.factors:
            if not scaled.isdisjoint(factor.inputs) and not scaled.issuperset(factor.inputs):
                scaled.update(factor.inputs)
                reached = True
    return {name for name, ordinal in structure.variables if not ordinal and name not in scaled}


def next_to_fix(elimination: Elimination, sizes: Mapping[str, int], candidates: set[str]) -> str | None:
    """The variable of the largest step whose fixing makes the whole work the least, all its states together.

    ``None`` if the largest step has no candidate of more than one state.
    """
    scopes = []
    for step in elimination.steps:
        scope = frozenset().union(*[elimination.dims[arg] for arg in step.args])
        scopes.append((math.prod([sizes[each] for each in scope]), scope))
    if not scopes:
        return None
    largest = max(scopes, key=lambda each: each[0])[1]
    best: tuple[int, int, str] | None = None
    for name in sorted(largest & candidates):
        size = sizes[name]
        if size > 1:
            work = sum([entries if name in scope else size * entries for entries, scope in scopes])
            left = max([entries // size if name in scope else entries for entries, scope in scopes])
            best = min(best or (work, left, name), (work, left, name))
    return None if best is None else best[2]


class Room(NamedTuple):
    """The memory that there is, and the slices that there must be."""

    limit: int
    itemsize: int
    backward: bool
    slices: int

    def holds(self, plan: EliminationPlan) -> bool:
        """Whether a plan fits."""
        return plan.bytes(self.itemsize, self.backward) <= self.limit


def fitted(
    room: Room,
    structure: Structure,
    candidates: set[str],
    make: Callable[[Sequence[str], bool], EliminationPlan],
    patience: float,
) -> EliminationPlan | str:
    """A plan that fits, its steps one by one if need be, then in slices; why there is none if none is found.

    Args:
        room: what there is.
        structure: what is planned, nothing fixed.
        candidates: variables that may be fixed.
        make: the plan with some variables fixed, and whether its steps run one by one.
        patience: the seconds that all slices together may be estimated to take.
    """
    sizes = dict(structure.sizes)
    given = [
        (math.prod([sizes[each] for each in factor.inputs]), factor.inputs) for factor in structure.factors
    ]
    largest, names = max(given, key=lambda each: each[0], default=(0, ()))
    if room.limit < room.itemsize * largest:
        return f"The table over {listed(names)} that is given takes {in_bytes(room.itemsize * largest)} by itself."

    def smallest(names: Sequence[str]) -> EliminationPlan:
        plan = make(names, False)
        return plan if room.holds(plan) else make(names, True)

    fixed: list[str] = []
    plan = smallest(fixed)
    while not room.holds(plan) or plan.slices < room.slices:
        name = next_to_fix(plan.elimination, sizes, candidates)
        if name is None or plan.slices * sizes[name] > _MOST_SLICES:
            return plan if room.holds(plan) else _too_few(room, plan, name)
        fixed.append(name)
        plan = smallest(fixed)
        if plan.seconds() > patience:
            return (
                f"In {plan.slices:,} slices over {listed(fixed)} it would take about {duration(plan.seconds())}, and "
                f"planning(patience=...) allows {duration(patience)}."
            )
    for name in fixed[:-1]:  # What came later may do without what came before.
        fewer = [each for each in fixed if each != name]
        without = smallest(fewer)
        if room.holds(without) and without.slices >= room.slices:
            fixed, plan = fewer, without
    return plan


def _too_few(room: Room, plan: EliminationPlan, name: str | None) -> str:
    """Why no more variables are fixed."""
    needed = in_bytes(plan.bytes(room.itemsize, room.backward))
    fixed = (
        f"In {plan.slices:,} slices over {listed([each for each, _ in plan.sliced])}" if plan.sliced else ""
    )
    so_far = f"{fixed or 'One step at a time'} it still needs {needed}"
    if name is not None:
        return f"{so_far}, and fixing {name!r} too would make more than {_MOST_SLICES:,} slices."
    return f"{so_far}, and no other variable of its largest step can be fixed to one state after the other."


def why_not(structure: Structure, plan: EliminationPlan, last: Collection[str]) -> str:
    """Which variables of a plan's largest table cannot be fixed, and why; empty if there is nothing to say."""
    ordinals, open_to = dict(structure.variables), sliceable(structure)
    variables = [each for each in plan.largest_dims if each in ordinals]
    inside = [each for each in variables if ordinals[each]]
    scaled = [each for each in variables if not ordinals[each] and each not in open_to]
    summed = [each for each in variables if last and each in open_to and each not in last]
    said = []
    if inside:
        plates = sorted(frozenset().union(*[ordinals[each] for each in inside]))
        said.append(
            f"{listed(inside)} {_live(inside)} in the plates {plates}, and fixing all copies to one state leaves out "
            "those whose states differ."
        )
    if scaled:
        said.append(f"A power is taken of the whole sum over {listed(scaled)}, not of one state's share.")
    if summed:
        said.append(f"{listed(summed)} are summed out before the maximum, and a sum may not come after it.")
    return " ".join(said)


def _live(names: Collection[str]) -> str:
    return "lives" if len(names) == 1 else "live"
