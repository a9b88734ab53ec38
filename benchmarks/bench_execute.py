"""Running a plan on tensors: chains of several shapes, evidence and gradient, beside a loop by hand."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from sumout.execute import LOG_SUM_EXP, execute
from sumout.factors import FactorGraph
from sumout.plan import make_plan

SHAPES = [(1, 1000, 8), (10, 40, 16), (64, 200, 32)]  # sequences, steps, states


def tables(sequences: int, steps: int, states: int) -> tuple[Tensor, Tensor]:
    """Log-potentials of pairs, the same in all steps, and of single states, a table for each step."""
    pair = torch.randn(states, states).log_softmax(-1).requires_grad_()
    single = torch.randn(steps, sequences, states).requires_grad_()
    return pair, single


def by_hand(pair: Tensor, single: Tensor) -> Tensor:
    message = single[0]
    for here in single[1:]:
        message = torch.logsumexp(message.unsqueeze(-1) + pair, -2) + here
    return message.logsumexp(-1).sum()


def graph_of(pair: Tensor, single: Tensor) -> FactorGraph:
    steps, sequences, _ = single.shape
    entries = {f"single{t}": (["sequences", f"x{t}"], single[t]) for t in range(steps)}
    entries |= {f"pair{t}": ([f"x{t}", f"x{t + 1}"], pair) for t in range(steps - 1)}
    ordinals = {f"x{t}": ["sequences"] for t in range(steps)}
    return FactorGraph.from_tables(entries, plates={"sequences": sequences}, ordinals=ordinals, log=True)


@pytest.mark.parametrize("library", ["sumout", "loop by hand"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_chain(benchmark: BenchmarkFixture, library: str, shape: tuple[int, int, int]) -> None:
    benchmark.group = f"log evidence and gradient of {shape[0]} chains of {shape[1]} steps, {shape[2]} states"
    pair, single = tables(*shape)
    graph = graph_of(pair, single)
    plan = make_plan(graph.structure)

    def step() -> float:
        pair.grad = single.grad = None
        value = execute(plan, graph, LOG_SUM_EXP).value if library == "sumout" else by_hand(pair, single)
        value.backward()
        return value.item()

    assert step() == pytest.approx(by_hand(pair, single).item(), rel=1e-4)
    benchmark(step)
