"""Tensor variable elimination: the steps that take a plated factor graph to a number.

From the deepest ordinal to the root (Obermeyer et al. 2019, "Tensor Variable Elimination for Plated Factor
Graphs", algorithm 1): factors that share variables of the ordinal are contracted, those variables are summed
out, and the result is multiplied over the plates that none of its remaining variables lives in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sumout.errors import PlanError
from sumout.plan.components import components
from sumout.plan.problem import PathFinder, Problem
from sumout.plan.structure import FactorShape, Structure


class Step(NamedTuple):
    """One operation on whole tables, in log space.

    ``args`` are the numbers of its operands: first the factors, then the results of earlier steps.
    Two operands are multiplied and ``over`` is summed out; one operand has ``over`` summed out (``sum``) or
    is multiplied over the plates ``over`` and raised to the power ``times`` (``product``).
    ``out`` names the dimensions of the result.
    """

    kind: str
    args: tuple[int, ...]
    over: tuple[str, ...]
    out: tuple[str, ...]
    times: float = 1.0


class Total(NamedTuple):
    """A scalar result and the power at which it enters the answer."""

    node: int
    weight: float


@dataclass(frozen=True)
class Elimination:
    """The steps in an order in which they can run, and the scalars whose weighted sum is the answer."""

    steps: tuple[Step, ...]
    totals: tuple[Total, ...]
    dims: tuple[tuple[str, ...], ...]
    """The dimensions of every factor and result, by number."""


class _Entry(NamedTuple):
    node: int
    scale: float | None
    inputs: tuple[str, ...]


class _Eliminator:
    def __init__(self, structure: Structure, factors: Sequence[FactorShape], find_path: PathFinder) -> None:
        self.sizes = dict(structure.sizes)
        self.ordinals = dict(structure.variables)
        self.weights = dict(structure.plates)
        self.find_path = find_path
        self.dims: list[tuple[str, ...]] = [factor.inputs for factor in factors]
        self.steps: list[Step] = []
        self.pending: dict[frozenset[str], list[_Entry]] = {}
        self.totals: list[Total] = []
        for node, factor in enumerate(factors):
            self.pending.setdefault(factor.plates, []).append(_Entry(node, factor.scale, factor.inputs))

    def run(self) -> Elimination:
        while self.pending:
            # Sorted names make the plan the same for the same structure.
            ordinal = max(self.pending, key=lambda each: (len(each), sorted(each)))
            entries = self.pending.pop(ordinal)
            local = {each for each, home in self.ordinals.items() if home == ordinal}
            for component in components(entries, local):
                self._move_up(ordinal, self._contract(component, local))
        return Elimination(tuple(self.steps), tuple(self.totals), tuple(self.dims))

    def _emit(
        self, kind: str, args: tuple[int, ...], over: Iterable[str], out: Iterable[str], times: float = 1.0
    ) -> int:
        self.steps.append(Step(kind, args, tuple(over), tuple(out), times))
        self.dims.append(self.steps[-1].out)
        return len(self.dims) - 1

    def _contract(self, component: list[_Entry], local: set[str]) -> _Entry:
        """Multiplies the entries of a component and sums its local variables out."""
        scale = self._common_scale(component, local)
        component = sorted(component)
        nodes = [entry.node for entry in component]
        uses: dict[str, int] = {}
        for node in nodes:
            for each in self.dims[node]:
                uses[each] = uses.get(each, 0) + (each in local)
        for place, node in enumerate(nodes):
            alone = [each for each in self.dims[node] if uses[each] == 1]
            if alone:
                nodes[place] = self._emit(
                    "sum", (node,), alone, (x for x in self.dims[node] if x not in alone)
                )
                uses.update(dict.fromkeys(alone, 0))
        if len(nodes) > 1:
            keep = frozenset(each for node in nodes for each in self.dims[node] if each not in local)
            problem = Problem([frozenset(self.dims[node]) for node in nodes], keep, self.sizes)
            for lhs, rhs in self.find_path(problem):
                nodes.append(self._multiply(nodes[lhs], nodes[rhs], uses))
        return _Entry(nodes[-1], scale, self.dims[nodes[-1]])

    def _multiply(self, lhs: int, rhs: int, uses: dict[str, int]) -> int:
        left, right = self.dims[lhs], self.dims[rhs]
        shared = [each for each in left if each in right]
        for each in shared:
            uses[each] -= uses[each] > 0
        over = [each for each in shared if uses[each] == 1]
        batch = [each for each in shared if each not in over]
        out = (*batch, *(x for x in left if x not in shared), *(x for x in right if x not in shared))
        return self._emit("contract", (lhs, rhs), over, out)

    def _move_up(self, ordinal: frozenset[str], entry: _Entry) -> None:
        """Multiplies an entry over the plates that its variables do not live in, and hands it to the parent."""
        dims = entry.inputs
        variables = [each for each in dims if each in self.ordinals]
        parent = frozenset().union(*(self.ordinals[each] for each in variables))
        if parent == ordinal and variables:
            raise PlanError(self._not_a_tree(ordinal, variables))
        gone = ordinal - parent
        if gone:
            present = [each for each in dims if each in gone]
            times = 1.0
            for plate in gone:
                times *= self.weights[plate] * (1 if plate in present else self.sizes[plate])
            if present or times != 1.0:
                rest = tuple(each for each in dims if each not in gone)
                node = self._emit("product", (entry.node,), present, rest, times)
                entry = _Entry(node, entry.scale, rest)
        if parent or variables:
            self.pending.setdefault(parent, []).append(entry)
        else:
            self.totals.append(Total(entry.node, 1.0 if entry.scale is None else entry.scale))

    def _common_scale(self, component: list[_Entry], local: set[str]) -> float | None:
        scales = {entry.scale for entry in component if entry.scale is not None}
        if len(scales) > 1:
            names = sorted({each for entry in component for each in entry.inputs if each in local})
            raise PlanError(
                f"The factors around {_listed(names)} have different scales {sorted(scales)}: the sum over a variable "
                "is defined only where all its factors are raised to one power. Put the same scale around all of "
                "them, or subsample by a plate entered with `with`, whose scale is understood."
            )
        return scales.pop() if scales else None

    def _not_a_tree(self, ordinal: frozenset[str], variables: list[str]) -> str:
        homes = ", ".join(f"{each!r} (plates {sorted(self.ordinals[each])})" for each in sorted(variables))
        return (
            f"The plates {sorted(ordinal)} are not tree-shaped: a factor inside all of them joins {homes}, "
            "and none of these plates can be multiplied out before those variables. "
            "Write one of the plates as a loop, `for i in plate(...)`, so that it is unrolled."
        )


def _listed(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(map(repr, names[:limit]))
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def eliminate(structure: Structure, probes: Sequence[FactorShape], find_path: PathFinder) -> Elimination:
    """Orders the elimination of all variables of a structure.

    Args:
        structure: the factor graph without its numbers.
        probes: factors of ones to be added (see ``readouts``); they follow the structure's factors in number.
        find_path: a heuristic from ``orders.ORDERS``.

    Raises:
        PlanError: if the plates are not tree-shaped, or factors of one variable have different scales.
    """
    return _Eliminator(structure, (*structure.factors, *probes), find_path).run()
