"""What it costs to plan, and what the plans are worth, beside cotengra's hyper-optimizer in one run.

``pytest benchmarks/bench_plan.py`` times the planner alone. ``python benchmarks/bench_plan.py [NAME ...]`` makes the
table of ``RESULTS.md``: of each network the time of a default search and its flops, those of one second of search, and
those that cotengra finds in ten. Networks come from ``tests/data`` and, if pgmpy is installed, from its package data.
"""

from __future__ import annotations

import gzip
import importlib.util
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from sumout.io import read_bif, read_uai
from sumout.plan import FLOPS_ALONE, EliminationPlan, FactorShape, Structure, clear_plan_cache, make_plan

DATA = Path(__file__).parents[1] / "tests" / "data"


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


def bif(path: Path) -> Structure:
    """Of a file that may be packed."""
    if path.suffix != ".gz":
        return read_bif(path).structure
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder) / path.stem
        unpacked.write_bytes(gzip.decompress(path.read_bytes()))
        return read_bif(unpacked).structure


def networks() -> Iterator[tuple[str, Callable[[], Structure]]]:
    """All that there are, by name: networks first, then models in UAI's format, then made ones."""
    found = {path.stem: path for path in (DATA / "networks").glob("*.bif")}
    pgmpy = importlib.util.find_spec("pgmpy")
    if pgmpy is not None and pgmpy.origin is not None:
        packed = (Path(pgmpy.origin).parent / "utils" / "example_models").glob("*.bif.gz")
        found |= {path.name.removesuffix(".bif.gz"): path for path in packed}
    for name, path in sorted(found.items()):
        yield name, lambda path=path: bif(path)  # type: ignore[misc]
    for path in sorted((DATA / "uai").glob("*.uai")):
        yield path.stem, lambda path=path: read_uai(path).structure  # type: ignore[misc]
    yield "chain of 100", lambda: chain(100, 16)
    yield "grid 10 x 10", lambda: grid(10)
    yield "random network of 100", lambda: network(100)
    yield "random network of 1000", lambda: network(1000)


ALL = dict(networks())
TIMED = ("alarm", "hailfinder", "win95pts", "Promedus_24", *(name for name in ALL if " " in name))
SEARCHED = ("alarm", "hailfinder", "win95pts", "random network of 100")


def note(benchmark: BenchmarkFixture, plan: EliminationPlan) -> None:
    benchmark.extra_info.update(
        order=plan.order,
        width=plan.width,
        flops=plan.flops,
        launches=plan.cost.launches,
        estimate=plan.seconds(),
    )


@pytest.mark.parametrize("name", TIMED)
def test_plan(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = "plan, as it is done by default"
    graph = ALL[name]()
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
    graph = ALL[name]()

    def plan() -> EliminationPlan:
        return fewest_flops(graph, order, float(limit.removesuffix(" s")))

    note(benchmark, benchmark.pedantic(plan, rounds=1))


def test_plan_again(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "plan that was made before"
    graph = ALL["alarm"]()
    make_plan(graph)
    benchmark(make_plan, graph)


def fewest_flops(graph: Structure, order: str, seconds: float) -> EliminationPlan:
    clear_plan_cache()
    orders = ("cotengra",) if order == "cotengra" else None
    return make_plan(graph, orders=orders, machine=FLOPS_ALONE, time_limit=seconds)


def searched(graph: Structure) -> tuple[EliminationPlan, EliminationPlan]:
    """What a search of one second and cotengra's of ten find, in processor time.

    Where others use the machine too, both are given longer by the share of a processor that the first search had.
    """
    start, since = time.process_time(), time.perf_counter()
    mine = fewest_flops(graph, "random", 1.0)
    share = min(1.0, (time.process_time() - start) / (time.perf_counter() - since))
    if share < 0.9:
        mine = fewest_flops(graph, "random", 1.0 / share)
    return mine, fewest_flops(graph, "cotengra", 10.0 / share)


class Row(NamedTuple):
    """A network, and what was found for it; flops and widths of the default, of one second, and of cotengra's ten."""

    name: str
    variables: int
    factors: int
    milliseconds: float
    estimate: float
    default: EliminationPlan
    searched: EliminationPlan
    peer: EliminationPlan

    @property
    def ratio(self) -> float:
        return self.searched.flops / self.peer.flops

    def cells(self) -> Iterator[str]:
        yield from (self.name, str(self.variables), str(self.factors))
        yield from (f"{self.milliseconds:.1f}", f"{1e3 * self.estimate:.3g}")
        yield from (f"{plan.flops:.3g}" for plan in (self.default, self.searched, self.peer))
        yield f"{self.default.width}, {self.searched.width}, {self.peer.width}"
        yield f"{self.ratio:.3g}"


def measured(name: str, repeats: int = 5) -> Row:
    """All of one network, one after the other in this process; times are processor time, the least of some."""
    graph = ALL[name]()
    marginals = tuple([each for each, _ in graph.variables])
    times = []
    for _ in range(repeats):
        clear_plan_cache()
        start = time.process_time()
        usual = make_plan(graph, marginals)
        times.append(time.process_time() - start)
    return Row(
        name,
        len(graph.variables),
        len(graph.factors),
        1e3 * statistics.median(times),
        usual.seconds(),
        fewest_flops(graph, "default", 0.0),
        *searched(graph),
    )


def main(names: Sequence[str]) -> None:
    columns = [
        *("network", "variables", "factors", "default search, ms", "sweep, estimated, ms"),
        *("flops: default", "1 s", "cotengra, 10 s", "widths", "flops: 1 s to cotengra"),
    ]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    rows = []
    for name in names or ALL:
        rows.append(measured(name))
        print(f"| {' | '.join(rows[-1].cells())} |", flush=True)

    def mean(ratios: Sequence[float]) -> float:
        return math.exp(statistics.fmean(map(math.log, ratios)))

    found = [row.ratio for row in rows]
    never_far = [max(each, 0.1) for each in found]
    print(
        f"\nFlops beside cotengra's, geometric mean: {mean(found):.3f}; {mean(never_far):.3f} if no network counts "
        f"for more than ten to one; most: {max(found):.2f}. Of the default search: "
        f"{mean([max(row.default.flops / row.peer.flops, 0.1) for row in rows]):.3f}, counted like that."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
