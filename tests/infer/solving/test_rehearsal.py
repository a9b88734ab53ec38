"""The plan of a query without its answer: the same that is run, and nothing run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import sumout
import sumout.distributions as dist
from sumout import infer
from sumout.errors import EvidenceError, MemoryLimitError
from sumout.factors import FactorGraph
from sumout.infer.rows import ways
from sumout.infer.solving import prepared, solve
from sumout.settings import settings


def chain(length: int = 6) -> FactorGraph:
    """Three states each; a directed chain, so that what is at its end and not asked for is barren."""
    generator = torch.Generator().manual_seed(0)
    tables: dict[str, Any] = {}
    for place in range(length):
        shape = (3,) if place == 0 else (3, 3)
        table = torch.rand(shape, generator=generator, dtype=torch.float64)
        names = [f"x{place}"] if place == 0 else [f"x{place - 1}", f"x{place}"]
        tables[f"f{place}"] = (names, table / table.sum(-1, keepdim=True))
    return FactorGraph.from_tables(tables)


ROWS = {"x1": [0, 2, 1], "x3": [1, None, 0]}
QUERIES: dict[str, tuple[Callable[[FactorGraph], Any], dict[str, Any]]] = {
    "log_evidence": (infer.log_evidence, {}),
    "marginals": (infer.marginals, {}),
    "marginals of some": (lambda graph: infer.marginals(graph, ["x0", ("x0", "x2")]), {}),
    "map_assignment": (infer.map_assignment, {}),
    "marginal_map": (lambda graph: infer.marginal_map(graph, ["x0", "x4"]), {}),
    "posterior_samples": (lambda graph: infer.posterior_samples(graph, 3), {}),
    "entropy": (infer.entropy, {}),
    "entropy of some": (lambda graph: infer.entropy(graph, ["x0", "x2"]), {}),
    "k_best": (lambda graph: infer.k_best(graph, 3), {}),
    "max_marginals": (infer.max_marginals, {}),
    "log_evidence of rows": (infer.log_evidence, {"evidence": ROWS}),
    "marginals of rows": (infer.marginals, {"evidence": ROWS}),
    "map_assignment of rows": (infer.map_assignment, {"evidence": ROWS}),
}


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("something was run")

    for module in (solve, ways):
        monkeypatch.setattr(module, "execute", fail)
    monkeypatch.setattr(solve, "execute_sample", fail)
    monkeypatch.setattr(prepared, "linear_sweep", fail)
    monkeypatch.setattr(prepared.FlatProgram, "log_evidence", fail)
    monkeypatch.setattr(prepared.FlatProgram, "marginals", fail)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("name", QUERIES)
def test_nothing_is_run(name: str) -> None:
    query, asked = QUERIES[name]
    plan = infer.plan_of(query(chain()))(**{"evidence": {"x1": 0}, **asked})
    assert plan.flops > 0


@pytest.mark.parametrize("name", [name for name in QUERIES if "entropy" not in name and "log" not in name])
@pytest.mark.parametrize("limit", [2**40, 900])
def test_it_is_the_plan_that_is_run(name: str, limit: int) -> None:
    query, asked = QUERIES[name]
    asked = {"evidence": {"x1": 0}, **asked}
    graph = chain()
    with settings.override(memory_limit=limit):
        try:
            plan = infer.plan_of(query(graph))(**asked)
        except MemoryLimitError:
            with pytest.raises(MemoryLimitError):
                query(graph)(**asked)
            return
        assert query(graph)(**asked).plan == plan


def test_of_a_program() -> None:
    def model(data: torch.Tensor) -> None:
        state = torch.tensor(0)
        for step in sumout.markov(range(len(data))):
            state = sumout.sample(f"x{step}", dist.Bernoulli(torch.tensor([0.2, 0.7])[state.long()]))
            sumout.sample(f"y{step}", dist.Normal(state, 1.0), obs=data[step])

    data = torch.randn(5, generator=torch.Generator().manual_seed(0))
    query = infer.marginals(infer.config_enumerate(model))
    assert infer.plan_of(query)(data) == query(data).plan


def test_afterwards_queries_run_again() -> None:
    graph = chain()
    with pytest.raises(EvidenceError):
        infer.plan_of(infer.log_evidence(graph))(evidence={"y": 0})
    infer.plan_of(infer.log_evidence(graph))()
    assert infer.log_evidence(graph)().item() == pytest.approx(0.0, abs=1e-12)


def test_what_has_no_plan() -> None:
    with pytest.raises(ValueError, match=r"ran no plan\. Give what infer\.marginals"):
        infer.plan_of(lambda: 0)()
