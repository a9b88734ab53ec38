"""What it costs to plan; the width and flops that were found are in the extra info of the JSON output."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from sumout.factors import FactorGraph
from sumout.io import read_bif
from sumout.plan import clear_plan_cache, make_plan

NETWORKS = "tests/data/networks"


def chain(length: int, states: int) -> FactorGraph:
    pair = torch.zeros(states, states)
    tables = {f"f{t}": ([f"x{t}", f"x{t + 1}"], pair) for t in range(length - 1)}
    return FactorGraph.from_tables(tables, log=True)


def grid(side: int) -> FactorGraph:
    pair = torch.zeros(2, 2)
    tables = {}
    for row in range(side):
        for column in range(side):
            here = f"x{row}_{column}"
            if row + 1 < side:
                tables[f"down{row}_{column}"] = ([here, f"x{row + 1}_{column}"], pair)
            if column + 1 < side:
                tables[f"right{row}_{column}"] = ([here, f"x{row}_{column + 1}"], pair)
    return FactorGraph.from_tables(tables, log=True)


GRAPHS = {
    "chain of 100": lambda: chain(100, 16),
    "grid 8 x 8": lambda: grid(8),
    "alarm": lambda: read_bif(f"{NETWORKS}/alarm.bif"),
    "hailfinder": lambda: read_bif(f"{NETWORKS}/hailfinder.bif"),
    "win95pts": lambda: read_bif(f"{NETWORKS}/win95pts.bif"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_plan(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = "plan"
    structure = GRAPHS[name]().structure
    benchmark.pedantic(make_plan, (structure,), setup=clear_plan_cache, rounds=5)
    plan = make_plan(structure)
    benchmark.extra_info.update(width=plan.width, flops=plan.flops, largest=plan.largest)


def test_plan_again(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "plan"
    structure = GRAPHS["alarm"]().structure
    make_plan(structure)
    benchmark(make_plan, structure)
