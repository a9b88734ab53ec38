"""The plan as a value: frozen, hashable, printable, made before anything is paid for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from sumout.errors import MemoryLimitError
from sumout.plan.cost import Cost
from sumout.plan.eliminate import Elimination, Step
from sumout.plan.schedule import Schedule
from sumout.plan.structure import FactorShape, Readout, Structure
from sumout.text import aligned, memory


@dataclass(frozen=True)
class EliminationPlan:
    """How to eliminate the variables of a structure.

    Attributes:
        structure: what was planned.
        readouts: for each variable or group whose marginal is wanted, the factor whose belief shows it.
        probes: factors of ones that the executor adds after the structure's own (see ``plan.readouts``).
        order: the heuristic that won, a key of ``plan.ORDERS``.
        schedule: the batched groups that the executor runs.
        cost: flops, entries and launches.

    Printing a plan shows its totals and its steps.
    """

    structure: Structure
    readouts: tuple[tuple[Readout, int], ...]
    probes: tuple[FactorShape, ...]
    order: str
    elimination: Elimination = field(repr=False, compare=False)
    schedule: Schedule = field(repr=False, compare=False)
    cost: Cost = field(compare=False)
    considered: tuple[tuple[str, float], ...] = field(default=(), compare=False)
    """Every heuristic that was tried, with the seconds that the cost model gave it."""

    @property
    def flops(self) -> int:
        """Multiply-adds of a forward sweep."""
        return self.cost.flops

    @cached_property
    def _largest(self) -> tuple[int, tuple[str, ...]]:
        sizes = dict(self.structure.sizes)
        candidates = [*(factor.inputs for factor in self.structure.factors), *self.elimination.dims]
        scopes = [(math.prod(sizes[each] for each in dims), dims) for dims in candidates]
        return max(scopes, key=lambda each: each[0], default=(1, ()))

    @property
    def largest(self) -> int:
        """Entries of the largest table that is given or made."""
        return self._largest[0]

    @property
    def largest_dims(self) -> tuple[str, ...]:
        """The variables and plates of the largest table."""
        return self._largest[1]

    @cached_property
    def width(self) -> int:
        """The induced width: variables in the largest scope that a step meets, less one."""
        variables = {each for each, _ in self.structure.variables}
        return max((len(variables & self.scope(step)) for step in self.elimination.steps), default=1) - 1

    @property
    def steps(self) -> tuple[Step, ...]:
        """The single steps, before they are grouped."""
        return self.elimination.steps

    def scope(self, step: Step) -> set[str]:
        """All dimensions that a step runs over."""
        return set().union(*(self.elimination.dims[arg] for arg in step.args))

    def bytes(self, itemsize: int = 8, backward: bool = False) -> int:
        """The memory that running the plan needs, the factors themselves not counted.

        Args:
            itemsize: bytes of a number; 8 for float64.
            backward: whether marginals or gradients are wanted, for which the forward sweep is kept.
        """
        entries = self.cost.peak_entries
        if backward:
            entries += self.cost.entries + max((2 * group.read for group in self.schedule.groups), default=0)
        return entries * itemsize

    def check_memory(self, limit: int, itemsize: int = 8, backward: bool = False) -> None:
        """Refuses a plan that is too large, before anything is allocated.

        Raises:
            MemoryLimitError: naming the variables of the largest table.
        """
        needed = self.bytes(itemsize, backward)
        if needed > limit:
            names = ", ".join(map(repr, self.largest_dims[:12])) + (
                ", ..." if len(self.largest_dims) > 12 else ""
            )
            raise MemoryLimitError(
                f"The plan needs {memory(needed)} and the limit is {memory(limit)}. Its largest table has "
                f"{self.largest:,} entries over {names} (induced width {self.width}). "
                "Observe one of these variables, or raise the limit: settings.override(memory_limit=...)."
            )

    def __str__(self) -> str:
        total = (
            f"plan by {self.order}: {len(self.steps)} steps in {self.cost.launches} groups, {self.flops:.3g} flops, "
            f"width {self.width}, largest table {self.largest:,} entries, {memory(self.bytes())}"
        )
        rows = [("round", "steps", "operation", "over", "result", "entries")]
        for number, group in enumerate(self.schedule.groups):
            step = group.steps[0]
            rows.append(
                (
                    str(number),
                    str(group.rows),
                    step.kind,
                    _names(step.over),
                    _names(step.out),
                    f"{math.prod(group.result_shape[1:]):,}",
                )
            )
        return f"{total}\n{aligned(rows)}"


def _names(names: tuple[str, ...], limit: int = 40) -> str:
    text = " ".join(names)
    return text if len(text) <= limit else text[: limit - 3] + "..."
