"""A factor graph as one lazy funsor expression: tensor variable elimination, written down but not done.

Obermeyer et al., "Tensor Variable Elimination for Plated Factor Graphs" (ICML 2019), algorithm 1: in the
deepest ordinal, variables that live exactly there are summed out of each component, then the component is
multiplied over the plates that none of its other variables lives in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from funsor import ops
from funsor.domains import Bint
from funsor.interpretations import reflect
from funsor.terms import Binary, Number, Reduce, Variable

from sumout.errors import GraphError
from sumout.factors.parts import Factor, GraphData
from sumout.plan.components import components
from sumout.terms import named_tensor

BOUND = "__BOUND"
"""What funsor appends to the names it binds."""


@dataclass(frozen=True)
class _Piece:
    """A subexpression: its free variables, the plates it varies over, the scale of its component."""

    expression: Any
    inputs: frozenset[str]
    plates: frozenset[str]
    scale: float


def write_expression(graph: GraphData) -> Any:
    """The expression of ``FactorGraph.to_funsor``."""
    for name in (*graph.variables, *graph.plates):
        if BOUND in name:
            raise GraphError(
                f"{name!r} cannot be written as a funsor: {BOUND!r} marks names that funsor binds."
            )
    with reflect:
        return _write(graph)


def _write(graph: GraphData) -> Any:
    pending: dict[frozenset[str], list[_Piece]] = {}
    for factor in (*graph.factors, *_unused_variables(graph)):
        piece = _Piece(
            _leaf(graph, factor),
            frozenset(factor.inputs) & graph.variables.keys(),
            factor.plates,
            factor.scale,
        )
        pending.setdefault(factor.plates, []).append(piece)
    finished: list[Any] = []
    while pending:
        ordinal = max(pending, key=lambda each: (len(each), sorted(each)))
        local = {name for name, variable in graph.variables.items() if variable.plates == ordinal}
        for group in components(pending.pop(ordinal), local):
            piece = _eliminated(graph, group, local, ordinal)
            if piece.plates or piece.inputs:
                pending.setdefault(piece.plates, []).append(piece)
            else:
                finished.append(_times(piece.expression, piece.scale))
    return _sum(finished) if finished else Number(0.0)


def _eliminated(graph: GraphData, group: list[_Piece], local: set[str], ordinal: frozenset[str]) -> _Piece:
    """One component of one ordinal, its local variables and then its own plates reduced."""
    expression = _sum([piece.expression for piece in group])
    names = frozenset[str]().union(*(piece.inputs for piece in group))
    remaining = names - local
    if names & local:
        bound = frozenset(Variable(name, Bint[graph.size(name)]) for name in names & local)
        expression = Reduce(ops.logaddexp, expression, bound)
    outer = frozenset[str]().union(*(graph.variables[name].plates for name in remaining))
    if outer == ordinal and remaining:
        raise GraphError(
            f"The plates {sorted(ordinal)} are not tree-shaped: the variables {sorted(remaining)} live in "
            "different ones of them but share a factor, so no order of sums and products gives the answer."
        )
    scale = group[0].scale
    for plate in sorted(ordinal - outer, reverse=True):
        expression = Reduce(ops.add, expression, frozenset([Variable(plate, Bint[graph.size(plate)])]))
        # A product that meets another factor is told apart from it by its own factor of one.
        if graph.plates[plate].scale != 1 or (scale != 1 and not outer):
            expression = Binary(ops.mul, expression, Number(float(graph.plates[plate].scale)))
    return _Piece(expression, remaining, outer, scale)


def _leaf(graph: GraphData, factor: Factor) -> Any:
    """The table, expanded (a view) to all plates the factor lives in: so it counts once per element."""
    lacking = sorted(factor.plates - set(factor.inputs))
    if not lacking:
        return factor.term
    data = factor.data.expand(*(graph.size(plate) for plate in lacking), *factor.data.shape)
    return named_tensor(data, (*lacking, *factor.inputs))


def _unused_variables(graph: GraphData) -> list[Factor]:
    """Factors of ones for variables that no factor has: they count with their number of states."""
    used = {name for factor in graph.factors for name in factor.inputs}
    like = graph.factors[0].data if graph.factors else torch.zeros(())
    return [
        Factor(name, (name,), like.new_zeros(variable.size), variable.plates)
        for name, variable in graph.variables.items()
        if name not in used
    ]


def _sum(expressions: Sequence[Any]) -> Any:
    """A balanced tree of additions: funsor walks expressions recursively, so depth is what it cannot bear."""
    while len(expressions) > 1:
        pairs = zip(expressions[::2], expressions[1::2], strict=False)
        last = [expressions[-1]] if len(expressions) % 2 else []
        expressions = [Binary(ops.add, lhs, rhs) for lhs, rhs in pairs] + last
    return expressions[0]


def _times(expression: Any, scale: float) -> Any:
    return expression if scale == 1 else Binary(ops.mul, expression, Number(float(scale)))
