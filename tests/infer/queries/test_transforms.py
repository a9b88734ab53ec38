"""Queries under ``torch.func``: derivatives of every kind are those of a count; ``vmap`` is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.autograd import forward_ad

import sumout.distributions as dist
from sumout import infer, sample
from sumout.errors import ModelError
from sumout.factors import FactorGraph
from sumout.settings import settings

# What torch.func.jvp imports from torch warns about itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")

EXACT = {"rtol": 1e-9, "atol": 1e-9}

WEIGHTS = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def graph_of(table: torch.Tensor) -> FactorGraph:
    prior = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    return FactorGraph.from_tables(
        {"f": (["x", "y"], table), "g": (["y"], prior), "h": (["y", "z"], table)}, log=True
    )


def counted(table: torch.Tensor) -> torch.Tensor:
    prior = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    return table[:, :, None] + prior[:, None] + table[None]


def of_x(table: torch.Tensor) -> torch.Tensor:
    return torch.softmax(counted(table).reshape(-1), 0).reshape(3, 3, 3).sum((1, 2))


def entropy_of(table: torch.Tensor) -> torch.Tensor:
    probs = torch.softmax(counted(table).reshape(-1), 0)
    return -(probs * probs.log()).sum()


FUNCTIONS: dict[
    str, tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]
] = {
    "log_evidence": (
        lambda t: infer.log_evidence(graph_of(t))(),
        lambda t: counted(t).reshape(-1).logsumexp(0),
    ),
    "marginals": (
        lambda t: (infer.marginals(graph_of(t), "x")().tables["x"] * WEIGHTS).sum(),
        lambda t: (of_x(t) * WEIGHTS).sum(),
    ),
    "entropy": (lambda t: infer.entropy(graph_of(t))(), entropy_of),
    "expectation": (
        lambda t: infer.expectation(graph_of(t), "x", WEIGHTS)(),
        lambda t: (of_x(t) * WEIGHTS).sum(),
    ),
    "map_assignment": (lambda t: infer.map_assignment(graph_of(t))().log_prob, lambda t: counted(t).max()),
    "marginal_map": (
        lambda t: infer.marginal_map(graph_of(t), "x")().log_prob,
        lambda t: counted(t).logsumexp((1, 2)).max(),
    ),
    "max_marginals": (
        lambda t: (infer.max_marginals(graph_of(t))()["x"] * WEIGHTS).sum(),
        lambda t: (counted(t).amax((1, 2)) * WEIGHTS).sum(),
    ),
    "k_best": (
        lambda t: (infer.k_best(graph_of(t), 3)().log_prob * WEIGHTS).sum(),
        lambda t: (counted(t).reshape(-1).sort(descending=True).values[:3] * WEIGHTS).sum(),
    ),
}


@pytest.mark.parametrize(
    ("name", "limit"),
    [(name, limit) for name in FUNCTIONS for limit in (None, 600) if (name, limit) != ("marginal_map", 600)],
)
def test_derivatives(name: str, limit: int | None) -> None:
    ours, exact = FUNCTIONS[name]
    table = torch.randn(3, 3, dtype=torch.float64)
    direction = torch.randn(3, 3, dtype=torch.float64)
    first = torch.autograd.functional.jacobian(exact, table)
    with settings.override(memory_limit=limit):
        torch.testing.assert_close(torch.func.grad(ours)(table), first, **EXACT)
        torch.testing.assert_close(torch.func.jacrev(ours)(table), first, **EXACT)
        _, forward = torch.func.jvp(ours, (table,), (direction,))
        torch.testing.assert_close(forward, (first * direction).sum(), **EXACT)
        with forward_ad.dual_level():
            value = ours(forward_ad.make_dual(table, direction))
            torch.testing.assert_close(
                forward_ad.unpack_dual(value).tangent, (first * direction).sum(), **EXACT
            )
        torch.testing.assert_close(
            torch.func.jacrev(torch.func.jacrev(ours))(table),
            torch.autograd.functional.hessian(exact, table),
            **EXACT,
        )


def test_derivatives_of_a_program() -> None:
    def model(p: torch.Tensor) -> None:
        z = sample("z", dist.Bernoulli(p))
        sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=torch.tensor(1.0))

    p = torch.tensor(0.3, dtype=torch.float64)
    expected = 0.6 / (0.2 + 0.6 * p)
    torch.testing.assert_close(torch.func.grad(infer.log_evidence(model))(p), expected)


def test_vmap_is_refused() -> None:
    graph = graph_of(torch.zeros(3, 3, dtype=torch.float64))

    def model(p: torch.Tensor) -> None:
        sample("z", dist.Bernoulli(p))

    for mapped, over in (
        (lambda y: infer.log_evidence(graph)(evidence={"y": y}), torch.arange(3)),
        (lambda y: infer.posterior_samples(graph, 2)(evidence={"y": y})["x"], torch.arange(3)),
        (lambda p: infer.marginals(model)(p)["z"].probs, torch.rand(3)),
    ):
        with pytest.raises(ModelError, match="inside torch.vmap.*table of evidence.*plate"):
            torch.vmap(mapped)(over)
