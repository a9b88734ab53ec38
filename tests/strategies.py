"""Hypothesis strategies: random plated factor graphs that brute force can still answer."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st

from oracles import Problem, Table
from sumout.factors import Factor, FactorGraph, Plate, Variable

Draw = st.DrawFn


def to_problem(graph: FactorGraph) -> Problem:
    """The same graph as the plain data that ``oracles`` takes."""
    return Problem(
        sizes={name: variable.size for name, variable in graph.variables.items()},
        ordinals={name: variable.plates for name, variable in graph.variables.items()},
        plates={name: (plate.size, plate.scale) for name, plate in graph.plates.items()},
        tables=tuple(Table(f.inputs, f.data, f.plates, f.scale) for f in graph.factors),
    )


@st.composite
def tables(draw: Draw, shape: tuple[int, ...], zeros: bool = True) -> torch.Tensor:
    """Log-values in float64: coarse numbers of a few magnitudes, so that failures shrink to readable ones."""
    count = math.prod(shape)
    tenths = draw(st.lists(st.integers(-30, 30), min_size=count, max_size=count))
    shift = draw(st.sampled_from([0.0, 0.0, 0.0, -50.0, 200.0]))
    values = torch.tensor(tenths, dtype=torch.float64) / 10 + shift
    if zeros and draw(st.integers(0, 3)) == 0:
        impossible = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        values = torch.where(torch.tensor(impossible, dtype=torch.bool), -math.inf, values)
    return values.reshape(shape)


@st.composite
def factor_graphs(
    draw: Draw,
    max_variables: int = 6,
    plates: bool = True,
    zeros: bool = True,
    scales: bool = False,
    max_assignments: int = 4000,
) -> FactorGraph:
    """A random graph with tree-shaped plates, at most ``max_assignments`` joint assignments when unrolled.

    Among them: nested and sibling plates, plates and variables of size 1, factors constant along plates that
    they live in (also along plates that none of their variables lives in), variables in one factor or in
    none, factors without variables, several components, and with ``zeros`` probabilities of exactly zero.
    With ``scales``, plates and components have random powers.
    """
    plate_sizes: dict[str, int] = {}
    paths: list[frozenset[str]] = [
        frozenset()
    ]  # the ordinals that keep plates tree-shaped: paths from the root
    for name in ["p", "q", "r"][: draw(st.integers(0, 3)) if plates else 0]:
        plate_sizes[name] = draw(st.sampled_from([2, 3, 1]))
        paths.append(draw(st.sampled_from(paths)) | {name})

    variables: dict[str, Variable] = {}
    budget = max_assignments
    for name in "abcdefghijkl"[: draw(st.integers(0, max_variables))]:
        ordinal, size = draw(st.sampled_from(paths)), draw(st.sampled_from([2, 3, 2, 4, 1]))
        cost = size ** math.prod(plate_sizes[plate] for plate in ordinal)
        if cost <= budget:
            variables[name] = Variable(size, ordinal)
            budget //= cost

    sizes = {name: variable.size for name, variable in variables.items()} | plate_sizes
    factors: list[Factor] = []
    for number in range(draw(st.integers(0, max_variables + 2))):
        ordinal = draw(st.sampled_from(paths))
        scope = _subset(draw, [name for name, variable in variables.items() if variable.plates <= ordinal], 3)
        if plate_sizes and draw(st.integers(0, 4)) == 0:
            # One more plate than a path has: the factor is repeated along it, its variables are not.
            ordinal |= {draw(st.sampled_from(sorted(plate_sizes)))}
        inputs = draw(st.permutations([*scope, *_subset(draw, sorted(ordinal), 3)]))
        data = draw(tables(tuple(sizes[name] for name in inputs), zeros=zeros))
        factors.append(Factor(f"f{number}", tuple(inputs), data, ordinal))

    powers = st.sampled_from([1.0, 0.5, 2.0, 7.5]) if scales else st.just(1.0)
    all_plates = {name: Plate(size, draw(powers)) for name, size in plate_sizes.items()}
    return FactorGraph(tuple(_scaled(draw, factors, set(variables), powers)), variables, all_plates)


def _subset(draw: Draw, names: list[str], most: int) -> list[str]:
    """Some of the names: in order, so that smaller draws are simpler graphs."""
    if not names:
        return []
    return draw(st.lists(st.sampled_from(names), unique=True, max_size=most))


def _scaled(
    draw: Draw, factors: list[Factor], variables: set[str], powers: st.SearchStrategy[float]
) -> list[Factor]:
    """The factors with a scale for each component."""
    scale_of: dict[str, float] = {}
    groups = {name: {name} for name in variables}
    for factor in factors:
        joined = set().union(*(groups[name] for name in factor.inputs if name in variables))
        groups |= dict.fromkeys(joined, joined)
    for name in sorted(variables):
        scale_of[name] = scale_of.get(min(groups[name]), 0.0) or draw(powers)
    scaled = []
    for factor in factors:
        names = [name for name in factor.inputs if name in variables]
        scale = scale_of[names[0]] if names else draw(powers)
        scaled.append(Factor(factor.name, factor.inputs, factor.data, factor.plates, scale))
    return scaled
