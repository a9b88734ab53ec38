"""Sweeps stay on the device of their tables and never wait for its numbers; on a GPU they give what they give on a CPU.

Where there is no GPU, a dispatch mode looks out for the operations that would wait for one, and for tensors made
elsewhere than on the tables' device: shapes alone, on the ``meta`` device, tell these apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sumout import infer
from sumout.execute import MAX_SUM, execute, log_sweep, sample, unchecked
from sumout.execute.execute import read_out
from sumout.execute.kernels import Trust
from sumout.execute.linear import Range, linear_sweep
from sumout.factors import FactorGraph
from sumout.infer.rows.batched import BatchedGraph
from sumout.infer.solving.prepared import PreparedGraph
from sumout.plan import EliminationPlan, clear_plan_cache, make_plan

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]

WAITING = {
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select"),
    *("aten::unique_dim", "aten::_unique2", "aten::allclose"),
}


@pytest.fixture(autouse=True)
def _fresh_plans() -> None:
    """What plans have learnt in one test does not count in another."""
    clear_plan_cache()


class Waits(TorchDispatchMode):
    """Collects the operations in which a GPU's numbers would be waited for, and copies between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().split(".")[0]
        devices = {each.device for each in tree_leaves((args, kwargs, out)) if isinstance(each, torch.Tensor)}
        if name in WAITING or len(devices) > 1 or name == "aten::lift_fresh":
            self.found.append(name)
        return out


def grid(side: int, states: int, device: str = "cpu") -> FactorGraph:
    cells = itertools.product(range(side), repeat=2)
    pairs = [
        (cell, other)
        for cell in cells
        for other in ((cell[0] + 1, cell[1]), (cell[0], cell[1] + 1))
        if max(other) < side
    ]
    generator = torch.Generator().manual_seed(7)
    tables = {
        f"{a}{b}": torch.rand(states, states, dtype=torch.float64, generator=generator).to(device)
        for a, b in pairs
    }
    return FactorGraph.from_tables({f"{a}{b}": ([f"x{a}", f"x{b}"], tables[f"{a}{b}"]) for a, b in pairs})


def plated(device: str = "cpu") -> FactorGraph:
    """A mixture in nested plates."""
    generator = torch.Generator().manual_seed(8)

    def table(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(device)

    return FactorGraph.from_tables(
        {
            "a": (["a"], table(4)),
            "b": (["p", "a", "b"], table(5, 4, 3)),
            "c": (["p", "q", "b"], table(5, 6, 3)),
        },
        plates={"p": 5, "q": 6},
        ordinals={"b": ["p"]},
        log=True,
    )


def batched(device: str = "cpu") -> FactorGraph:
    graph = grid(3, 3, device)
    first, *others = graph.factors
    rows = torch.linspace(0.0, 1.0, 7, dtype=torch.float64, device=device)
    first = replace(first, inputs=("rows", *first.inputs), data=first.data + rows[:, None, None])
    return BatchedGraph((first, *others), graph.variables, batch={"rows": 7})


GRAPHS: dict[str, Callable[..., FactorGraph]] = {
    "grid": lambda device="cpu": grid(4, 3, device),
    "plates": plated,
    "batch": batched,
}


def both(graph: FactorGraph) -> tuple[EliminationPlan, EliminationPlan]:
    return make_plan(graph.structure), make_plan(graph.structure, tuple(graph.variables))


def trained(graph: FactorGraph) -> list[torch.Tensor]:
    return [factor.data.clone().requires_grad_() for factor in graph.factors]


def with_tables(graph: FactorGraph, tables: list[torch.Tensor]) -> FactorGraph:
    factors = tuple([replace(factor, data=data) for factor, data in zip(graph.factors, tables, strict=True)])
    return replace(graph, factors=factors)


def runs(graph: FactorGraph) -> dict[str, Callable[[], Any]]:
    """Every kind of sweep."""
    evidence, marginals = both(graph)
    tables = trained(graph)
    leaves = with_tables(graph, tables)

    def second() -> Any:
        value = execute(evidence, leaves).value.sum()
        grads = torch.autograd.grad(value, tables, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in grads), tables)

    found: dict[str, Callable[[], Any]] = {
        "evidence": lambda: execute(evidence, graph).value,
        "marginals": lambda: tuple(execute(marginals, graph).shown.values()),
        "gradients": lambda: torch.autograd.grad(execute(evidence, leaves).value.sum(), tables),
        "second derivatives": second,
        "maximum": lambda: execute(evidence, graph, MAX_SUM).value,
        "assignment": lambda: execute(evidence, graph, MAX_SUM).assignment,
    }
    if not evidence.structure.batch:
        found["max-marginals"] = lambda: tuple(execute(marginals, graph, MAX_SUM).shown.values())
    return found


@pytest.mark.parametrize("trust", Trust)
@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_is_waited_for_within_a_sweep(
    name: str, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_sweep, "DEFERRED", True)
    graph = GRAPHS[name]()
    for plan in both(graph):
        for taped in (False, True):
            log_sweep.trust_in(plan)[taped][:] = [trust] * len(plan.schedule.groups)
    for what, run in runs(graph).items():
        run()  # What is made once, index tensors among it, is made now.
        with (
            unchecked() as wrong,
            Waits() as waits,
        ):  # Whether products were right is looked at once, at the end.
            run()
        assert waits.found == [], what
        assert not any(wrong), what


def test_a_sweep_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sweep, "DEFERRED", True)
    looks = []
    monkeypatch.setattr(log_sweep.LogSum, "distrust", lambda self: looks.append(len(self.wrong())) or False)
    graph = grid(4, 3)
    plan = both(graph)[1]
    execute(plan, graph)
    looks.clear()
    with Waits() as waits:
        execute(plan, graph)
    assert len(looks) == 1
    assert looks[0] > 3
    assert waits.found == []


def test_nothing_is_waited_for_on_probabilities() -> None:
    for graph in (grid(4, 3), grid(2, 5)):
        kept = PreparedGraph(graph)
        plan = both(graph)[1]
        sizes = dict(plan.structure.sizes)
        probes = [kept.tables[0].new_ones([sizes[each] for each in probe.inputs]) for probe in plan.probes]
        ranges = [*kept.ranges, *[Range(0.0, 0.0)] * len(probes)]
        linear_sweep(plan, [*kept.tables, *probes], ranges, read_out(plan))
        with Waits() as waits:
            assert linear_sweep(plan, [*kept.tables, *probes], ranges, read_out(plan)) is not None
        assert waits.found == []


def test_sampling_looks_once() -> None:
    """Whether there is anything to draw from."""
    graph = grid(4, 3)
    plan = both(graph)[0]
    sample(plan, graph, 5)
    with unchecked(), Waits() as waits:
        sample(plan, graph, 5)
    assert waits.found == ["aten::_local_scalar_dense"]


@pytest.mark.parametrize("name", GRAPHS)
def test_no_tensor_is_made_elsewhere(name: str) -> None:
    """On the meta device there are shapes alone: a tensor made on the CPU would meet one of these, and fail."""
    graph = GRAPHS[name]()
    graph = with_tables(graph, [factor.data.to("meta") for factor in graph.factors])
    for what, run in runs(graph).items():
        if what == "assignment":  # Its index tensors are copied to the device once.
            continue
        with unchecked(), Waits() as waits:
            found = run()
        made = {each.device.type for each in tree_leaves(found) if isinstance(each, torch.Tensor)}
        assert made == {"meta"}, what
        assert waits.found == [], what


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GRAPHS)
def test_numbers_keep_their_type(name: str, dtype: torch.dtype, default: torch.dtype) -> None:
    graph = GRAPHS[name]()
    graph = with_tables(graph, [factor.data.to(dtype) for factor in graph.factors])
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        for what, run in runs(graph).items():
            types = {each.dtype for each in tree_leaves(run()) if isinstance(each, torch.Tensor)}
            assert types == ({torch.int64} if what == "assignment" else {dtype}), what
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_device_gives_the_same(name: str, device: str) -> None:
    expected, found = runs(GRAPHS[name]()), runs(GRAPHS[name](device))
    for what, run in found.items():
        for a, b in zip(tree_leaves(run()), tree_leaves(expected[what]()), strict=True):
            if isinstance(a, torch.Tensor):
                assert a.device.type == device
                torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-9, msg=what)


@pytest.mark.parametrize("device", DEVICES)
def test_queries_on_every_device(device: str) -> None:
    graph, there = grid(4, 3), grid(4, 3, device)
    evidence = {"x(0, 0)": 1, "x(2, 1)": 2}
    answer, expected = infer.marginals(there)(evidence=evidence), infer.marginals(graph)(evidence=evidence)
    torch.testing.assert_close(answer.log_evidence.cpu(), expected.log_evidence, rtol=1e-9, atol=1e-9)
    for name in expected:
        torch.testing.assert_close(answer.tables[name].cpu(), expected.tables[name], rtol=1e-9, atol=1e-9)
    rows = {"x(0, 0)": torch.tensor([0, 1, 2, 1]), "x(2, 1)": torch.tensor([0, -1, 2, 1])}
    ours, theirs = infer.marginals(there)(evidence=rows), infer.marginals(graph)(evidence=rows)
    for name in theirs:
        torch.testing.assert_close(ours.tables[name].cpu(), theirs.tables[name], rtol=1e-9, atol=1e-9)
    drawn = infer.posterior_samples(there, 10)()
    assert drawn.log_prob.device.type == device
    best = infer.map_assignment(there)()
    torch.testing.assert_close(best.log_prob.cpu(), infer.map_assignment(graph)().log_prob)
