"""Memory, counted: what marginals take beside the evidence alone, and what plans say beforehand.

A dispatch mode sees every tensor that an operation makes and, by weak references to their storages, how many bytes of
them are alive after it. Tables that are given are counted apart.
"""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import itertools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from strategies import factor_graphs
from sumout.execute import LOG_SUM_EXP, MAX_SUM, execute, log_sweep, sample
from sumout.execute.execute import read_out
from sumout.execute.kernels import Trust
from sumout.execute.linear import Range, linear_sweep
from sumout.factors import FactorGraph
from sumout.infer.solving.prepared import PreparedGraph
from sumout.infer.solving.solve import solve
from sumout.io import read_bif
from sumout.plan import EliminationPlan, clear_plan_cache, make_plan

NETWORKS = Path(__file__).parent.parent / "data" / "networks"


@pytest.fixture(autouse=True)
def _fresh_plans() -> None:
    """What plans have learnt in one test does not count in another."""
    clear_plan_cache()


class Peak(TorchDispatchMode):
    """The most bytes alive at once in tensors that operations made.

    Args:
        given: tables that are there already, which are not counted.
    """

    def __init__(self, given: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.given = {each.untyped_storage()._cdata for each in given}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor):
                storage = each.untyped_storage()
                if storage._cdata not in self.given:
                    self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: found for key, found in self.alive.items() if not found[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return out


def peak(given: Iterable[torch.Tensor], run: Callable[[], Any]) -> int:
    """The bytes that a second run makes; what is made once and kept is not counted."""
    run()
    with Peak(given) as found:
        kept = run()
    del kept
    return found.most


def tables_of(graph: FactorGraph) -> list[torch.Tensor]:
    return [factor.data for factor in graph.factors]


def grid(side: int, states: int) -> FactorGraph:
    cells = itertools.product(range(side), repeat=2)
    pairs = [
        (cell, other)
        for cell in cells
        for other in ((cell[0] + 1, cell[1]), (cell[0], cell[1] + 1))
        if max(other) < side
    ]
    return FactorGraph.from_tables(
        {f"{a}{b}": ([f"x{a}", f"x{b}"], torch.rand(states, states, dtype=torch.float64)) for a, b in pairs}
    )


def chains(sequences: int, steps: int, states: int) -> FactorGraph:
    pair = torch.randn(states, states, dtype=torch.float64)
    single = torch.randn(steps, sequences, states, dtype=torch.float64)
    entries = {f"single{t}": (["sequences", f"x{t}"], single[t]) for t in range(steps)}
    entries |= {f"pair{t}": ([f"x{t}", f"x{t + 1}"], pair) for t in range(steps - 1)}
    ordinals = {f"x{t}": ["sequences"] for t in range(steps)}
    return FactorGraph.from_tables(entries, plates={"sequences": sequences}, ordinals=ordinals, log=True)


def tree(nodes: int, states: int) -> FactorGraph:
    return FactorGraph.from_tables(
        {
            f"f{node}": ([f"x{(node - 1) // 2}", f"x{node}"], torch.rand(states, states))
            for node in range(1, nodes)
        }
    )


def carried_by_pgmpy(name: str) -> FactorGraph:
    found = importlib.util.find_spec("pgmpy")
    packed = Path(found.origin or "").parent / f"utils/example_models/{name}.bif.gz" if found else None
    if packed is None or not packed.exists():
        pytest.skip("pgmpy, which carries the network, is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.bif"
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        return read_bif(path)


GRAPHS: dict[str, Callable[[], FactorGraph]] = {
    "one long chain": lambda: chains(1, 500, 8),
    "many chains": lambda: chains(64, 100, 16),
    "many chains of many states": lambda: chains(8, 60, 40),
    "grid": lambda: grid(9, 3),
    "grid of many states": lambda: grid(5, 8),
    "tree": lambda: tree(200, 10),
    **{
        path.stem: lambda path=path: read_bif(path)  # type: ignore[misc]
        for path in sorted(NETWORKS.glob("*.bif"))
    },
    **{
        name: lambda name=name: carried_by_pgmpy(name)  # type: ignore[misc]
        for name in ("hepar2", "mildew", "diabetes")
    },
}


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> FactorGraph:
    return GRAPHS[request.param]()


def test_marginals_take_three_times_the_evidence(graph: FactorGraph) -> None:
    given = tables_of(graph)
    # A table that several factors share is there once.
    tables = sum({each.untyped_storage()._cdata: each.untyped_storage().nbytes() for each in given}.values())
    evidence, marginals = make_plan(graph.structure), make_plan(graph.structure, tuple(graph.variables))
    with torch.no_grad():
        forward = peak(given, lambda: execute(evidence, graph).value)
        both = peak(given, lambda: execute(marginals, graph))
    assert tables + both <= 3 * (tables + forward)


@pytest.mark.parametrize("name", ["grid", "tree", "water", "win95pts"])
def test_on_probabilities_too(name: str) -> None:
    graph = GRAPHS[name]()
    kept = PreparedGraph(graph)
    size = sum(each.nbytes for each in kept.tables)
    forward, both = [
        peak(kept.tables, lambda wanted=wanted: on_probabilities(kept, graph, wanted))  # type: ignore[misc]
        for wanted in ((), tuple(graph.variables))
    ]
    assert size + both <= 3 * (size + forward)


def on_probabilities(kept: PreparedGraph, graph: FactorGraph, wanted: tuple[str, ...]) -> Any:
    plan = make_plan(graph.structure, wanted)
    sizes = dict(plan.structure.sizes)
    probes = [kept.tables[0].new_ones([sizes[each] for each in probe.inputs]) for probe in plan.probes]
    ranges = [*kept.ranges, *[Range(0.0, 0.0)] * len(probes)]
    return linear_sweep(plan, [*kept.tables, *probes], ranges, read_out(plan))


def trained(graph: FactorGraph) -> FactorGraph:
    factors = [dataclasses.replace(f, data=f.data.clone().requires_grad_()) for f in graph.factors]
    return FactorGraph(tuple(factors), graph.variables, graph.plates)


def ways(graph: FactorGraph) -> Iterable[tuple[str, EliminationPlan, int, Callable[[], Any]]]:
    """Every way of running plans of a graph, with the bytes that are foretold."""
    evidence, marginals = make_plan(graph.structure), make_plan(graph.structure, tuple(graph.variables))
    size = graph.factors[0].data.element_size()
    kept = evidence.bytes(size, backward=True)
    yield "forward", evidence, evidence.bytes(size), lambda: execute(evidence, graph).value
    yield "marginals", marginals, marginals.bytes(size, backward=True), lambda: execute(marginals, graph)
    yield "map", evidence, kept, lambda: execute(evidence, graph, MAX_SUM).assignment
    yield (
        "max-marginals",
        marginals,
        marginals.bytes(size, backward=True),
        lambda: execute(marginals, graph, MAX_SUM),
    )
    for count in (1, 100):
        foretold = evidence.bytes(size, samples=count)
        yield f"{count} samples", evidence, foretold, lambda count=count: sample(evidence, graph, count)


def test_plans_foretell_it(graph: FactorGraph) -> None:
    given = tables_of(graph)
    for name, _, foretold, run in ways(graph):
        with torch.no_grad():
            assert peak(given, run) <= foretold, name
    plan, leaves = make_plan(graph.structure), trained(graph)
    given = tables_of(leaves)
    counted = peak(given, lambda: torch.autograd.grad(execute(plan, leaves).value, given))
    assert counted <= plan.bytes(given[0].element_size(), backward=True)


@pytest.mark.parametrize("trust", Trust)
@pytest.mark.parametrize("name", ["many chains of many states", "grid", "insurance"])
def test_however_products_are_made(name: str, trust: Trust) -> None:
    graph = GRAPHS[name]()
    given = tables_of(graph)
    for what, plan, foretold, run in ways(graph):
        log_sweep.trust_in(plan)[False][:] = [trust] * len(plan.schedule.groups)
        with torch.no_grad():
            assert peak(given, run) <= foretold, what


@given(factor_graphs(max_variables=7), st.sampled_from(Trust))
@settings(max_examples=40)
def test_of_random_graphs_too(graph: FactorGraph, trust: Trust) -> None:
    assume(graph.factors)
    given = tables_of(graph)
    for name, plan, foretold, run in ways(graph):
        log_sweep.trust_in(plan)[False][:] = [trust] * len(plan.schedule.groups)
        with torch.no_grad():
            assert peak(given, run) <= foretold, name


@given(factor_graphs(plates=False, max_variables=7))
@settings(max_examples=40)
def test_on_probabilities_they_do_so_too(graph: FactorGraph) -> None:
    assume(graph.factors)
    assume(all(each.isfinite().any() for each in tables_of(graph)))
    kept = PreparedGraph(graph)
    for wanted in ((), tuple(graph.variables)):
        plan = make_plan(graph.structure, wanted)
        foretold = plan.bytes(8, backward=bool(wanted))
        assert peak(kept.tables, lambda wanted=wanted: on_probabilities(kept, graph, wanted)) <= foretold


def grid_with_a_tail(side: int, states: int, length: int) -> FactorGraph:
    """A grid from whose corner a chain hangs: where the grid is sliced, the chain is the same in all slices."""
    whole = grid(side, states)
    rows = [f"x{(0, 0)}", *(f"t{each}" for each in range(length))]
    tables = {factor.name: (list(factor.inputs), factor.data.exp()) for factor in whole.factors}
    tail = {
        f"{a}-{b}": ([a, b], torch.rand(states, states, dtype=torch.float64))
        for a, b in itertools.pairwise(rows)
    }
    return FactorGraph.from_tables(tables | tail)


@pytest.mark.parametrize("share", [2, 5])
@pytest.mark.parametrize(
    "make", [lambda: grid(4, 3), lambda: grid_with_a_tail(4, 3, 20)], ids=["grid", "tail"]
)
def test_of_slices(make: Callable[[], FactorGraph], share: int) -> None:
    graph = make()
    whole = make_plan(graph.structure, tuple(graph.variables))
    limit = whole.bytes(8, backward=True) // share
    plan = make_plan(graph.structure, tuple(graph.variables), memory_limit=limit, backward=True)
    assert plan.sliced
    given = tables_of(graph)
    for semiring in (LOG_SUM_EXP, MAX_SUM):
        with torch.no_grad():
            most = peak(given, lambda semiring=semiring: solve(graph, semiring, plan=plan))
        assert most <= plan.bytes(8, backward=True) <= limit
    forward = make_plan(graph.structure, memory_limit=make_plan(graph.structure).bytes(8) // 2)
    assert forward.sliced
    with torch.no_grad():
        assert peak(given, lambda: solve(graph, plan=forward).value) <= forward.bytes(8)
    leaves = trained(graph)
    plan = make_plan(graph.structure, memory_limit=limit, backward=True)
    given = tables_of(leaves)
    counted = peak(given, lambda: torch.autograd.grad(solve(leaves, plan=plan).value, given))
    assert counted <= plan.bytes(8, backward=True)
