"""Slices over two processes give what one process does."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from sumout import infer
from sumout.execute import MAX_SUM
from sumout.factors import FactorGraph
from sumout.infer.solving.solve import sample, solve
from sumout.infer.solving.spread import spread


def grid(side: int, states: int) -> FactorGraph:
    torch.manual_seed(5)
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


def answers() -> dict[str, Any]:
    """Everything that slices can be asked."""
    graph = grid(4, 3)
    names = tuple(graph.variables)
    found = solve(graph, marginals=names)
    out: dict[str, Any] = {"slices": found.plan.slices, "log_evidence": found.value}
    out["marginals"] = torch.stack([found.marginal(name).probs for name in names])
    data = [factor.data.clone().requires_grad_() for factor in graph.factors]
    tracked = FactorGraph.from_tables(
        {f.name: (f.inputs, each) for f, each in zip(graph.factors, data, strict=True)}, log=True
    )
    result = solve(tracked, marginals=names)
    objective = result.value + result.marginal(names[5]).probs[0] * 3
    out["gradient"] = torch.stack(torch.autograd.grad(objective, data))
    best = solve(graph, MAX_SUM)
    out["best"], out["states"] = best.value, torch.stack([best.assignment[name].states for name in names])
    maxima = solve(graph, MAX_SUM, names)
    out["maxima"] = torch.stack([maxima.marginal(name).probs for name in names])
    out["samples"] = sample(graph, 5, torch.Generator().manual_seed(0)).log_prob.shape
    # Queries of a graph that is asked again and again are quicker by other ways, none of which is spread.
    for number in range(2):
        answer = infer.marginals(graph)(evidence={names[3]: number})
        out[f"query {number}"] = torch.stack([answer.tables[name] for name in answer])
        out[f"evidence {number}"] = infer.log_evidence(graph)(evidence={names[3]: number})
    rows = infer.marginals(graph, names[0])(evidence={names[3]: torch.tensor([0, 1, 2])})
    out["rows"], out["evidence of rows"] = rows.tables[names[0]], rows.log_evidence
    one = graph.factors[0]
    impossible = {f.name: (f.inputs, torch.full_like(f.data, -torch.inf)) for f in (one,)}
    rest = {f.name: (f.inputs, f.data) for f in graph.factors[1:]}
    out["impossible"] = solve(FactorGraph.from_tables({**impossible, **rest}, log=True)).value
    return out


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    with spread() as team:
        assert (team.rank, team.size) == (rank, 2)
        found = answers()
    torch.distributed.destroy_process_group()
    torch.save(found, f"{folder}/{rank}.pt")


def test_two_processes_answer_as_one(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(work, (str(tmp_path),), nprocs=2, start_method="spawn")
    expected = answers()
    assert expected.pop("slices") == 1
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.pop("slices") >= 2
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)


def test_without_processes_there_is_nothing_to_share() -> None:
    with pytest.raises(RuntimeError, match="init_process_group first"), spread():
        pass
