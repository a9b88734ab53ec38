"""What it costs to plan, and what the plans are worth: flops, width and estimated time are in the extra info of the
JSON output; beside cotengra's hyper-optimizer where it is installed.
"""

from __future__ import annotations

import importlib.util
import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from sumout.io import read_bif, read_uai
from sumout.plan import FLOPS_ALONE, EliminationPlan, FactorShape, Structure, clear_plan_cache, make_plan

NETWORKS = "tests/data/networks"
MODELS = "tests/data/uai"


def structure(scopes: list[tuple[str, ...]], states: int) -> Structure:
    names = list(dict.fromkeys(name for scope in scopes for name in scope))
    return Structure(
        tuple(map(FactorShape, scopes)),
        tuple((n, states) for n in names),
        tuple((n, frozenset()) for n in names),
    )


def chain(length: int, states: int) -> Structure:
    return structure([(f"x{t}", f"x{t + 1}") for t in range(length - 1)], states)


def grid(side: int) -> Structure:
    cells = [(row, column) for row in range(side) for column in range(side)]
    pairs = [
        (f"x{row}_{column}", f"x{other[0]}_{other[1]}")
        for row, column in cells
        for other in ((row + 1, column), (row, column + 1))
        if max(other) < side
    ]
    return structure(pairs, 2)


def network(nodes: int) -> Structure:
    """A random Bayesian network: every node has up to three parents among the twelve before it."""
    draw = random.Random(0)
    scopes = []
    for node in range(nodes):
        near = range(max(0, node - 12), node)
        parents = draw.sample(near, min(len(near), draw.choice((0, 1, 1, 2, 2, 3))))
        scopes.append(tuple(f"x{each}" for each in (*parents, node)))
    return structure(scopes, 3)


STRUCTURES = {
    "chain of 100": lambda: chain(100, 16),
    "grid 8 x 8": lambda: grid(8),
    "alarm": lambda: read_bif(f"{NETWORKS}/alarm.bif").structure,
    "hailfinder": lambda: read_bif(f"{NETWORKS}/hailfinder.bif").structure,
    "win95pts": lambda: read_bif(f"{NETWORKS}/win95pts.bif").structure,
    "random network of 100": lambda: network(100),
    "random network of 1000": lambda: network(1000),
    "Promedus_24": lambda: read_uai(f"{MODELS}/Promedus_24.uai").structure,
}
SEARCHED = ("alarm", "hailfinder", "win95pts", "grid 8 x 8", "random network of 100")


def note(benchmark: BenchmarkFixture, plan: EliminationPlan) -> None:
    benchmark.extra_info.update(
        order=plan.order,
        width=plan.width,
        flops=plan.flops,
        launches=plan.cost.launches,
        estimate=plan.seconds(),
    )


@pytest.mark.parametrize("name", STRUCTURES)
def test_plan(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = "plan, as it is done by default"
    graph = STRUCTURES[name]()
    marginals = tuple(each for each, _ in graph.variables)
    benchmark.pedantic(make_plan, (graph, marginals), setup=clear_plan_cache, rounds=7, warmup_rounds=1)
    note(benchmark, make_plan(graph, marginals))


@pytest.mark.parametrize("by", ["random, 1 s", "cotengra, 10 s"])
@pytest.mark.parametrize("name", SEARCHED)
def test_search(benchmark: BenchmarkFixture, name: str, by: str) -> None:
    benchmark.group = f"fewest flops for {name}"
    order, limit = by.split(", ")
    if order == "cotengra" and not importlib.util.find_spec("cotengra"):
        pytest.skip("cotengra is not installed")
    graph = STRUCTURES[name]()
    orders = ("greedy",) if order == "random" else (order,)

    def plan() -> EliminationPlan:
        clear_plan_cache()
        return make_plan(
            graph, orders=orders, machine=FLOPS_ALONE, time_limit=float(limit.removesuffix(" s"))
        )

    note(benchmark, benchmark.pedantic(plan, rounds=1))


def test_plan_again(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "plan that was made before"
    graph = STRUCTURES["alarm"]()
    make_plan(graph)
    benchmark(make_plan, graph)
