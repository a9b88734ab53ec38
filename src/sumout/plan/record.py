"""What a plan holds, and the numbers that follow from it; what can be done with it is in ``plan``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from sumout.plan.choose import Considered
from sumout.plan.cost import Cost, Machine
from sumout.plan.eliminate import Elimination, Step
from sumout.plan.groups import Schedule
from sumout.plan.memory import walk_bytes
from sumout.plan.problem import Path
from sumout.plan.structure import FactorShape, Readout, Structure


class Simplified(NamedTuple):
    """What was found out before any order was searched."""

    contractions: int
    """Components of one ordinal with more than one operand."""
    distinct: int
    """Contractions that differ by more than names."""
    alone: int
    """Variables that are summed out of the one table that has them, before anything is multiplied."""
    safe: int
    """Variables whose elimination no order does better later."""


@dataclass(frozen=True)
class PlanRecord:
    """How to eliminate the variables of a structure.

    Attributes:
        structure: what the plan runs on: ``asked``, with plates written out and variables fixed.
        readouts: for each variable or group whose marginal is wanted, the factor whose belief shows it.
        probes: factors of ones that the executor adds after the structure's own (see ``plan.readouts``).
        order: the heuristic that won, a key of ``plan.ORDERS`` or of ``plan.SEARCHES``; ``refined`` if parts of its
            path were rearranged.
        paths: for each contraction that differs from those before by more than names, the pairs to multiply.
        asked: what was to be planned.
        marginals: the readouts that were asked for.
        maximised: variables that are maximised after all others were summed out.
        unrolled: plates that are written out, because the plates of ``asked`` are not tree-shaped.
        sliced: variables, with their sizes, that are fixed to one joint state after the other, because the plan would
            not fit into memory without.
        frugal: whether steps run one by one, which takes less memory than batches and more launches.
        shared: whether the parts that are the same in all slices run once, and their results wait for the slices.
        put_together: entries of the tables that are added up over slices: derivatives by all tables, or marginals.
        schedule: the batched groups that the executor runs.
        cost: flops, entries and launches, of one slice.
        considered: all ways of ordering that were tried.
    """

    structure: Structure
    readouts: tuple[tuple[Readout, int], ...]
    probes: tuple[FactorShape, ...]
    order: str
    paths: tuple[Path, ...] = field(repr=False, hash=False)
    asked: Structure = field(repr=False, hash=False)
    marginals: tuple[Readout, ...]
    maximised: tuple[str, ...]
    unrolled: tuple[str, ...]
    sliced: tuple[tuple[str, int], ...]
    frugal: bool
    shared: bool
    put_together: int = field(repr=False, compare=False)
    elimination: Elimination = field(repr=False, compare=False)
    schedule: Schedule = field(repr=False, compare=False)
    cost: Cost = field(compare=False)
    considered: tuple[Considered, ...] = field(repr=False, compare=False)
    simplified: Simplified = field(repr=False, compare=False)
    machine: Machine = field(repr=False, compare=False)

    @property
    def flops(self) -> int:
        """Multiply-adds of a forward sweep, all slices together."""
        return self.cost.flops * self.slices - (self.slices - 1) * self.once.flops

    @cached_property
    def slices(self) -> int:
        """How often the plan runs: once for each joint state of the variables that are fixed."""
        return math.prod([size for _, size in self.sliced])

    @cached_property
    def _largest(self) -> tuple[int, tuple[str, ...]]:
        sizes = dict(self.structure.sizes)
        candidates = [*(factor.inputs for factor in self.structure.factors), *self.elimination.dims]
        scopes = [(math.prod([sizes[each] for each in dims]), dims) for dims in candidates]
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

    def seconds(self, machine: Machine | None = None) -> float:
        """About how long a forward sweep takes, all slices together."""
        machine = machine or self.machine
        return self.slices * self.cost.seconds(machine) - (self.slices - 1) * self.once.seconds(machine)

    @cached_property
    def once(self) -> Cost:
        """What the parts cost that run once for all slices; their memory is counted with the rest."""
        groups = [group for group in self.schedule.groups if group.once]
        return Cost(
            sum([group.work for group in groups]),
            sum([group.read + group.written for group in groups]),
            len(groups),
            0,
            0,
        )

    def bytes(self, itemsize: int = 8, backward: bool = False, samples: int = 0) -> int:
        """The memory that running the plan needs at most, the factors themselves not counted.

        Args:
            itemsize: bytes of a number; 8 for float64.
            backward: whether marginals, gradients or a best assignment are wanted, for which the forward sweep is kept.
            samples: how many are drawn.
        """
        made = self.cost.peak_entries
        if backward or samples:
            made = self.cost.peak_with_backward + self.put_together
        walk = walk_bytes(self.schedule, self._copies, itemsize, samples) if samples else 0
        return (made + self._given_for_it) * itemsize + walk

    @cached_property
    def _copies(self) -> dict[str, int]:
        """How many copies each variable has."""
        sizes, batch = dict(self.structure.sizes), self.structure.batch
        return {
            name: math.prod([sizes[each] for each in (*batch, *ordinal)])
            for name, ordinal in self.structure.variables
        }

    @cached_property
    def _given_for_it(self) -> int:
        """Entries of factors that are there for this plan alone: probes, and tables of a batch."""
        sizes, batch = dict(self.structure.sizes), set(self.structure.batch)
        factors = [each for each in self.structure.factors if not batch.isdisjoint(each.inputs)]
        return sum(
            [math.prod([sizes[each] for each in factor.inputs]) for factor in (*self.probes, *factors)]
        )
