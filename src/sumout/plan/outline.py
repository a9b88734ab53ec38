"""Tensor variable elimination: what is contracted and multiplied over plates, whatever the order of contractions.

From the deepest ordinal to the root (Obermeyer et al. 2019, "Tensor Variable Elimination for Plated Factor
Graphs", algorithm 1): factors that share variables of the ordinal are contracted, those variables are summed
out, and the result is multiplied over the plates that none of its remaining variables lives in.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sumout.errors import PlanError
from sumout.plan.components import components
from sumout.plan.problem import Problem, problem
from sumout.plan.structure import FactorShape, Structure


class Contract(NamedTuple):
    """A contraction of ``args``. First ``alone``, for each of them, is summed out of it: what no other has.

    ``problem`` is what is left to do then; ``None`` if there is one operand. ``maximum`` tells that variables are
    maxed out although the others were summed out before.
    """

    args: tuple[int, ...]
    alone: tuple[tuple[str, ...], ...]
    problem: Problem | None
    maximum: bool = False


class Multiply(NamedTuple):
    """One operand is multiplied over the dimensions ``over``, and raised to the power ``times``."""

    arg: int
    over: tuple[str, ...]
    times: float


class Total(NamedTuple):
    """A result without variables and plates, and the power at which it enters the answer."""

    node: int
    weight: float


@dataclass(frozen=True)
class Outline:
    """The stages in an order in which they can run; the numbers of their results follow those of the factors."""

    stages: tuple[Contract | Multiply, ...]
    totals: tuple[Total, ...]
    dims: tuple[tuple[str, ...], ...]
    """The dimensions of every factor and result, by number; those of results in no order."""


_REMEDY = " Write one of the plates as a loop, `for i in plate(...)`, so that it is unrolled."


class StuckError(PlanError):
    """The plates are not tree-shaped.

    ``plates`` are those of which one at least must be unrolled.
    """

    def __init__(self, message: str, plates: frozenset[str]) -> None:
        super().__init__(message)
        self.plates = plates


class _Entry(NamedTuple):
    node: int
    scale: float | None
    inputs: tuple[str, ...]


class _Eliminator:
    def __init__(
        self, structure: Structure, factors: Sequence[FactorShape], maximised: Collection[str]
    ) -> None:
        self.sizes = dict(structure.sizes)
        self.ordinals = dict(structure.variables)
        self.weights = dict(structure.plates)
        self.maximised = frozenset(maximised)
        self.dims: list[tuple[str, ...]] = [factor.inputs for factor in factors]
        self.stages: list[Contract | Multiply] = []
        self.totals: list[Total] = []
        self.problems: dict[object, Problem] = {}
        self.pending: dict[frozenset[str], list[_Entry]] = {}
        for node, factor in enumerate(factors):
            self.pending.setdefault(factor.plates, []).append(_Entry(node, factor.scale, factor.inputs))
        self.at: dict[frozenset[str], set[str]] = {}
        for name, ordinal in structure.variables:
            self.at.setdefault(ordinal, set()).add(name)

    def run(self) -> Outline:
        while self.pending:
            # Sorted names make the plan the same for the same structure.
            ordinal = max(self.pending, key=lambda each: (len(each), sorted(each)))
            entries = self.pending.pop(ordinal)
            local = self.at.get(ordinal, set())
            for component in components(entries, local):
                entry = self._eliminate(component, local) if local else component[0]
                self._move_up(ordinal, entry)
        return Outline(tuple(self.stages), tuple(self.totals), tuple(self.dims))

    def _add(self, stage: Contract | Multiply, dims: Iterable[str]) -> int:
        self.stages.append(stage)
        self.dims.append(tuple(dims))
        return len(self.dims) - 1

    def _eliminate(self, component: list[_Entry], local: set[str]) -> _Entry:
        """Multiplies the entries of a component and sums its local variables out; those to be maximised last."""
        scale = self._common_scale(component, local)
        component = sorted(component)
        last = local & self.maximised
        if last:
            first = local - last
            if any(first.intersection(entry.inputs) for entry in component):
                component = [self._contract(each, first, scale) for each in components(component, first)]
        entry = self._contract(component, last or local, scale, maximum=bool(last))
        if last:
            outer = sorted(self.ordinals.keys() & set(entry.inputs) - self.maximised)
            if outer:
                raise self._summed_too_late(sorted(last), outer)
        return entry

    def _contract(
        self, component: list[_Entry], local: Collection[str], scale: float | None, maximum: bool = False
    ) -> _Entry:
        dims = [entry.inputs for entry in component]
        uses: dict[str, int] = {}
        for inputs in dims:
            for each in inputs:
                if each in local:
                    uses[each] = uses.get(each, 0) + 1
        if len(component) == 1 and not uses:
            return component[0]
        alone = tuple([tuple([each for each in inputs if uses.get(each) == 1]) for inputs in dims])
        kept = dict.fromkeys([each for inputs in dims for each in inputs if each not in uses])
        found = None
        if len(component) > 1:
            left = [[each for each in inputs if uses.get(each) != 1] for inputs in dims]
            found = problem(left, kept, self.sizes)
            found = self.problems.setdefault(found.key, found)
        args = tuple([entry.node for entry in component])
        node = self._add(Contract(args, alone, found, maximum), kept)
        return _Entry(node, scale, self.dims[node])

    def _move_up(self, ordinal: frozenset[str], entry: _Entry) -> None:
        """Multiplies an entry over the plates that its variables do not live in, and hands it to the parent."""
        variables = [each for each in entry.inputs if each in self.ordinals]
        parent = frozenset().union(*[self.ordinals[each] for each in variables])
        if parent == ordinal and variables:
            raise self._not_a_tree(ordinal, variables)
        gone = ordinal - parent
        if gone:
            present = tuple([each for each in entry.inputs if each in gone])
            # Sorted, so that rounding is the same in every process.
            times = math.prod(
                self.weights[plate] * (1 if plate in present else self.sizes[plate]) for plate in sorted(gone)
            )
            if present or times != 1.0:
                rest = tuple([each for each in entry.inputs if each not in gone])
                entry = _Entry(self._add(Multiply(entry.node, present, times), rest), entry.scale, rest)
        if parent or variables:
            self.pending.setdefault(parent, []).append(entry)
        else:
            self.totals.append(Total(entry.node, 1.0 if entry.scale is None else entry.scale))

    def _common_scale(self, component: list[_Entry], local: set[str]) -> float | None:
        scales = {entry.scale for entry in component if entry.scale is not None}
        if len(scales) > 1:
            names = sorted({each for entry in component for each in entry.inputs if each in local})
            raise PlanError(
                f"The factors around {listed(names)} have different scales {sorted(scales)}: the sum over a variable "
                "is defined only where all its factors are raised to one power. Put the same scale around all of "
                "them, or subsample by a plate entered with `with`, whose scale is understood."
            )
        return scales.pop() if scales else None

    def _not_a_tree(self, ordinal: frozenset[str], variables: list[str]) -> StuckError:
        homes = ", ".join(f"{each!r} (plates {sorted(self.ordinals[each])})" for each in sorted(variables))
        return StuckError(
            f"The plates {sorted(ordinal)} are not tree-shaped: a factor (or a group that is asked for) inside all of "
            f"them joins {homes}, "
            f"and none of these plates can be multiplied out before those variables.{_REMEDY}",
            ordinal,
        )

    def _summed_too_late(self, inner: list[str], outer: list[str]) -> StuckError:
        plates = frozenset().union(*[self.ordinals[each] for each in inner])
        return StuckError(
            f"{listed(inner)} would be maximised before {listed(outer)} {'is' if len(outer) == 1 else 'are'} "
            f"summed out, because they live in the plates {sorted(plates)}: that is another number.{_REMEDY}",
            plates,
        )


def listed(names: Sequence[str], limit: int = 5) -> str:
    """Some names for an error message."""
    shown = ", ".join(map(repr, names[:limit]))
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def outline(
    structure: Structure, probes: Sequence[FactorShape] = (), maximised: Collection[str] = ()
) -> Outline:
    """The stages of eliminating all variables of a structure.

    Args:
        structure: the factor graph without its numbers.
        probes: factors of ones to be added (see ``readouts``); they follow the structure's factors in number.
        maximised: variables that are maximised after all others were summed out.

    Raises:
        PlanError: if the plates are not tree-shaped, or factors of one variable have different scales.
    """
    return _Eliminator(structure, (*structure.factors, *probes), maximised).run()
