"""Random plated factor graphs from a seed: larger and wilder than ``strategies``, and quicker to make."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import torch

from sumout.factors import Factor, FactorGraph, Plate, Variable

TABLES = (
    "plain",
    "plain",
    "plain",
    "zeros",
    "far",
    "far zeros",
    "certain",
    "constant",
    "shifted",
    "conditional",
)
"""Kinds of tables; ``far`` ones have entries between ``e^-300`` and ``e^300``."""


def random_table(draw: random.Random, shape: tuple[int, ...], kind: str) -> torch.Tensor:
    """Log-values in float64."""
    generator = torch.Generator().manual_seed(draw.randrange(2**31))

    def uniform() -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    if kind == "constant":
        return torch.full(shape, draw.choice([0.0, -2.5]), dtype=torch.float64)
    logs = 600 * uniform() - 300 if kind.startswith("far") else 4 * uniform() - 2
    if kind == "shifted":
        logs = logs + draw.choice([-300.0, 200.0])
    if kind.endswith("zeros"):
        logs = logs.masked_fill(uniform() < 0.25, -math.inf)
    if kind == "conditional" and shape:
        logs = logs.log_softmax(-1)
    if kind == "certain" and shape:  # One state possible for each of the rest.
        best = logs.argmax(-1, keepdim=True)
        logs = torch.full_like(logs, -math.inf).scatter(-1, best, 0.0)
    return logs


def random_graph(seed: int, assignments: int = 400, scales: bool = False, far: bool = True) -> FactorGraph:
    """A graph of at most so many joint assignments when all plates are written out.

    Among them: nested, sibling and crossed plates, plates and variables of size 1, factors constant along plates that
    they live in (also along plates that none of their variables lives in), variables of one factor or of none,
    factors without variables, factors that share a tensor, several components, no factors or no variables at all, and
    tables of all ``TABLES``.

    Args:
        seed: the same graph for the same seed.
        assignments: how many there are at most.
        scales: whether plates and components have powers.
        far: whether some tables have a dynamic range of ``e^600``.
    """
    draw = random.Random(seed)
    sizes = {name: draw.choice([2, 2, 3, 1]) for name in "pqr"[: draw.choice([0, 0, 1, 2, 2, 3])]}
    crossed = not scales and draw.random() < 0.5  # Powers of crossed plates are refused.
    paths = [frozenset[str]()]
    for name in sizes:
        above = [draw.choice(paths)] if not crossed else list(paths)
        paths += [each | {name} for each in above]
    variables: dict[str, Variable] = {}
    budget = assignments
    for name in random.Random(draw.random()).sample(
        "abcdefgh", draw.choice([0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8])
    ):
        home, size = draw.choice(paths), draw.choice([2, 2, 3, 4, 1])
        cost = size ** math.prod(sizes[plate] for plate in home)
        if cost <= budget:
            variables[name] = Variable(size, home)
            budget //= cost
    kinds = [kind for kind in TABLES if far or not kind.startswith("far")]
    if draw.random() < 0.5:  # Few graphs have a posterior when many tables have zeros.
        kinds = [kind for kind in kinds if kind in ("plain", "far", "constant", "shifted", "conditional")]
    factors: list[Factor] = []
    for number in range(draw.choice([0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9])):
        path = draw.choice(paths) if scales else frozenset(sizes)
        inside = {name: variable for name, variable in variables.items() if variable.plates <= path}
        factor = _factor(draw, f"f{number}", inside, sizes, kinds)
        alike = [each.data for each in factors if each.data.shape == factor.data.shape]
        if alike and draw.random() < 0.3:
            factor = replace(factor, data=draw.choice(alike))  # Parameters may be shared.
        factors.append(factor)
    plates = {name: Plate(size) for name, size in sizes.items()}
    graph = FactorGraph(tuple(factors), variables, plates)
    return _with_powers(draw, graph) if scales else graph


def _factor(
    draw: random.Random, name: str, variables: dict[str, Variable], plates: dict[str, int], kinds: list[str]
) -> Factor:
    scope = draw.sample(sorted(variables), min(len(variables), draw.choice([0, 1, 2, 2, 2, 3])))
    home = frozenset[str]().union(*(variables[each].plates for each in scope))
    if plates and draw.random() < 0.2:
        home |= {draw.choice(sorted(plates))}  # The factor is repeated along it, its variables are not.
    along = [plate for plate in sorted(home) if draw.random() < 0.6]
    inputs = draw.sample([*scope, *along], len(scope) + len(along))
    shape = tuple(variables[each].size if each in variables else plates[each] for each in inputs)
    return Factor(name, tuple(inputs), random_table(draw, shape, draw.choice(kinds)), home)


def _with_powers(draw: random.Random, graph: FactorGraph) -> FactorGraph:
    """The graph with a power for each plate, and one for each component."""
    powers = (1.0, 0.5, 2.0, 7.5)
    group = {name: name for name in graph.variables}
    for factor in graph.factors:
        joined = {group[name] for name in factor.inputs if name in group}
        group = {name: min(joined) if each in joined else each for name, each in group.items()}
    of_group = {each: draw.choice(powers) for each in sorted(set(group.values()))}
    factors = []
    for factor in graph.factors:
        names = [name for name in factor.inputs if name in group]
        scale = of_group[group[names[0]]] if names else draw.choice(powers)
        factors.append(replace(factor, scale=scale))
    plates = {name: Plate(plate.size, draw.choice(powers)) for name, plate in graph.plates.items()}
    return FactorGraph(tuple(factors), graph.variables, plates)


def groups(graph: FactorGraph, seed: int, count: int) -> list[tuple[str, ...]]:
    """Random groups of one to three variables, also of several plates that are not nested."""
    draw = random.Random(seed)
    names = sorted(graph.variables)
    possible = [group for size in (1, 2, 3) for group in itertools.permutations(names, size)]
    return draw.sample(possible, min(count, len(possible)))


def described(graph: FactorGraph) -> str:
    """All that is needed to make the graph again."""
    lines = [f"variables {dict(graph.variables)}", f"plates {dict(graph.plates)}"]
    lines += [
        f"{factor.name} {factor.inputs} in {sorted(factor.plates)} to the {factor.scale}: {factor.data.tolist()}"
        for factor in graph.factors
    ]
    return "\n".join(lines)
