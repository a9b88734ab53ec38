"""All marginals take at most three times the memory of the evidence alone, tables included."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sumout.execute import execute
from sumout.execute.linear import Range, linear_sweep
from sumout.factors import FactorGraph
from sumout.infer.solving.prepared import PreparedGraph
from sumout.plan import make_plan


class Peak(TorchDispatchMode):
    """The most bytes alive at once in tensors that operations made."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor):
                storage = each.untyped_storage()
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: found for key, found in self.alive.items() if not found[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return out


def peak(run: Callable[[], Any]) -> int:
    run()  # What is made once and kept is not counted.
    with Peak() as found:
        kept = run()
    del kept
    return found.most


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


GRAPHS = {
    "one long chain": lambda: chains(1, 500, 8),
    "many chains": lambda: chains(64, 100, 16),
    "grid": lambda: grid(9, 3),
    "tree": lambda: FactorGraph.from_tables(
        {f"f{node}": ([f"x{(node - 1) // 2}", f"x{node}"], torch.rand(10, 10)) for node in range(1, 200)}
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_marginals_take_three_times_the_evidence(name: str) -> None:
    graph = GRAPHS[name]()
    tables = sum({each.data_ptr(): each.nbytes for each in (f.data for f in graph.factors)}.values())
    evidence, marginals = make_plan(graph.structure), make_plan(graph.structure, tuple(graph.variables))
    with torch.no_grad():
        forward = peak(lambda: execute(evidence, graph).value)
        both = peak(lambda: execute(marginals, graph))
    assert tables + both <= 3 * (tables + forward)


@pytest.mark.parametrize("name", ["grid", "tree"])
def test_on_probabilities_too(name: str) -> None:
    graph = GRAPHS[name]()
    kept = PreparedGraph(graph)
    size = sum(each.nbytes for each in kept.tables)

    def run(wanted: tuple[str, ...]) -> Any:
        plan = make_plan(graph.structure, wanted)
        sizes = dict(plan.structure.sizes)
        probes = [kept.tables[0].new_ones([sizes[each] for each in probe.inputs]) for probe in plan.probes]
        ranges = [*kept.ranges, *[Range(0.0, 0.0)] * len(probes)]
        return linear_sweep(plan, [*kept.tables, *probes], ranges, bool(wanted))

    forward, both = peak(lambda: run(())), peak(lambda: run(tuple(graph.variables)))
    assert size + both <= 3 * (size + forward)
