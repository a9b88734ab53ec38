"""The steps that take a factor graph to a number: an outline whose contractions have got their paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sumout.plan.outline import Contract, Multiply, Outline, Total
from sumout.plan.problem import Path, Problem


class Step(NamedTuple):
    """One operation on whole tables, in log space.

    ``args`` are the numbers of its operands: first the factors, then the results of earlier steps.
    Two operands are multiplied and ``over`` is summed out; one operand has ``over`` summed out (``sum``) or
    is multiplied over the plates ``over`` and raised to the power ``times`` (``product``).
    ``out`` names the dimensions of the result. ``maximum`` tells that ``over`` is maxed out even where others are
    summed out.
    """

    kind: str
    args: tuple[int, ...]
    over: tuple[str, ...]
    out: tuple[str, ...]
    times: float = 1.0
    maximum: bool = False


@dataclass(frozen=True)
class Elimination:
    """The steps in an order in which they can run, and the results whose weighted sum is the answer."""

    steps: tuple[Step, ...]
    totals: tuple[Total, ...]
    dims: tuple[tuple[str, ...], ...]
    """The dimensions of every factor and result, by number."""


class _Writer:
    def __init__(self, factors: Sequence[tuple[str, ...]]) -> None:
        self.dims = list(factors)
        self.steps: list[Step] = []

    def emit(self, step: Step) -> int:
        self.steps.append(step)
        self.dims.append(step.out)
        return len(self.dims) - 1

    def multiply_out(self, stage: Multiply, node: int) -> int:
        out = tuple([each for each in self.dims[node] if each not in stage.over])
        return self.emit(Step("product", (node,), stage.over, out, stage.times))

    def contract(self, stage: Contract, nodes: list[int], kept: Iterable[str], pairs: Path) -> int:
        dims = self.dims
        uses: dict[str, float] = {}
        for place, alone in enumerate(stage.alone):
            names = dims[nodes[place]]
            if alone:
                names = tuple([each for each in names if each not in alone])
                nodes[place] = self.emit(Step("sum", (nodes[place],), alone, names, 1.0, stage.maximum))
            for each in names:
                uses[each] = uses.get(each, 0) + 1
        uses.update(dict.fromkeys(kept, math.inf))
        for lhs, rhs in pairs:
            nodes.append(self._multiply(nodes[lhs], nodes[rhs], uses, stage.maximum))
        return nodes[-1]

    def _multiply(self, lhs: int, rhs: int, uses: dict[str, float], maximum: bool) -> int:
        left, right = self.dims[lhs], self.dims[rhs]
        over, batch, of_left = [], [], []
        for each in left:
            if each not in right:
                of_left.append(each)
            elif uses[each] == 2:
                over.append(each)
            else:
                uses[each] -= 1
                batch.append(each)
        out = (*batch, *of_left, *[each for each in right if each not in left])
        return self.emit(Step("contract", (lhs, rhs), tuple(over), out, 1.0, maximum and bool(over)))


def eliminate(outline: Outline, factors: int, path: Callable[[Problem], Path]) -> Elimination:
    """Writes down the steps.

    Args:
        outline: the stages.
        factors: how many factors there are, probes included.
        path: a path for each contraction.
    """
    writer = _Writer(outline.dims[:factors])
    node_of = list(range(factors))
    for stage, kept in zip(outline.stages, outline.dims[factors:], strict=True):
        if isinstance(stage, Multiply):
            node = writer.multiply_out(stage, node_of[stage.arg])
        else:
            nodes = [node_of[each] for each in stage.args]
            pairs = path(stage.problem) if stage.problem is not None else ()
            node = writer.contract(stage, nodes, kept, pairs)
        node_of.append(node)
    totals = tuple([Total(node_of[node], weight) for node, weight in outline.totals])
    return Elimination(tuple(writer.steps), totals, tuple(writer.dims))
