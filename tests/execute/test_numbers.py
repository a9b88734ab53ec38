"""Numbers of every size: dynamic ranges beyond that of the exponential, hard zeros, maxima that do not line up.

Each test runs in both ways in which a sweep finds out that a product underflowed: at once, as on a CPU, and after
the sweep, as on a GPU.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import oracles
from posteriors import Posterior
from strategies import factor_graphs, to_problem
from sumout.execute import MAX_SUM, execute, kernels, log_sweep, sample, sweep
from sumout.execute.kernels import Trust
from sumout.factors import FactorGraph
from sumout.plan import make_plan

EXACT = {"rtol": 1e-9, "atol": 1e-9}
BOTH_WAYS = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(params=[False, True], ids=["at once", "after the sweep"], autouse=True)
def deferred(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(log_sweep, "DEFERRED", request.param)
    return request.param


def stretched(graph: FactorGraph, seed: int) -> FactorGraph:
    """The graph with entries moved by up to 300 and more, up or down, each by itself."""
    generator = torch.Generator().manual_seed(seed)
    factors = []
    for factor in graph.factors:
        moves = torch.randint(-1, 2, factor.data.shape, generator=generator) * 310.0
        factors.append(dataclasses.replace(factor, data=factor.data + moves))
    return FactorGraph(tuple(factors), graph.variables, graph.plates)


@given(factor_graphs(), st.integers(0, 10**6))
@BOTH_WAYS
def test_wide_ranges(graph: FactorGraph, seed: int) -> None:
    assume(graph.factors)
    graph = stretched(graph, seed)
    posterior = Posterior(to_problem(graph))
    leaves = [factor.data.requires_grad_() for factor in graph.factors]
    result = execute(make_plan(graph.structure, tuple(graph.variables)), graph)
    torch.testing.assert_close(result.value, posterior.log_z, **EXACT)
    assume(posterior.log_z > -torch.inf)
    for name in graph.variables:
        torch.testing.assert_close(result.marginal(name).probs, posterior.joint([name]), **EXACT)
    value = execute(make_plan(graph.structure), graph).value
    torch.testing.assert_close(value, posterior.log_z, **EXACT)
    ours = torch.autograd.grad(value, leaves)
    theirs = torch.autograd.grad(
        oracles.log_z(to_problem(graph)), leaves, allow_unused=True, materialize_grads=True
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, torch.where(b.isnan(), 0.0, b), **EXACT)


@given(factor_graphs(max_variables=4), st.integers(0, 10**6))
@BOTH_WAYS
def test_gradients_of_marginals_are_finite(graph: FactorGraph, seed: int) -> None:
    assume(graph.factors and graph.variables)
    graph = stretched(graph, seed)
    leaves = [factor.data.requires_grad_() for factor in graph.factors]
    result = execute(make_plan(graph.structure, tuple(graph.variables)), graph)
    assume(result.value > -torch.inf)
    total = sum((result.marginal(name).probs[..., 0].sum() for name in graph.variables), torch.zeros(()))
    for grad in torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True):
        assert grad.isfinite().all()


@given(factor_graphs(), st.integers(0, 10**6))
@BOTH_WAYS
def test_samples_are_possible(graph: FactorGraph, seed: int) -> None:
    assume(graph.factors and graph.variables)
    graph = stretched(graph, seed)
    posterior = Posterior(to_problem(graph))
    assume(posterior.log_z > -torch.inf)
    drawn = sample(make_plan(graph.structure), graph, 20)
    rows = posterior.rows_of({name: choice.states for name, choice in drawn.choices.items()})
    assert (posterior.log_joint[rows] > -torch.inf).all()
    torch.testing.assert_close(drawn.log_prob, posterior.log_joint[rows] - posterior.log_z, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [100.0, 600.0, 5000.0, 1e5])
def test_maxima_that_do_not_line_up(dtype: torch.dtype, gap: float) -> None:
    # Each operand's largest entry meets the other's smallest: the product of shifted exponentials is zero.
    lhs = torch.tensor([[0.0, -gap], [0.0, -gap]], dtype=dtype, requires_grad=True)
    rhs = torch.tensor([[-gap, -gap], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    graph = FactorGraph.from_tables({"f": (["x", "y"], lhs), "g": (["y", "z"], rhs)}, log=True)
    value = execute(make_plan(graph.structure), graph).value
    expected = torch.logsumexp((lhs.unsqueeze(-1) + rhs).reshape(-1), 0)
    torch.testing.assert_close(value, expected)
    ours, theirs = torch.autograd.grad(value, (lhs, rhs)), torch.autograd.grad(expected, (lhs, rhs))
    # A logarithm near -gap is rounded by eps * gap, which is then the relative error of a probability.
    rounding = 4 * torch.finfo(dtype).eps * gap
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("gap", [100.0, 330.0, 450.0, 600.0, 800.0])
def test_derivatives_of_adjoints_of_small_entries(gap: float) -> None:
    """They divide by squares of entries, which underflow long before the entries do."""
    x = torch.tensor([[[0.0, -gap], [0.0, -gap]]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[[-gap, 1.0 - gap], [0.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    trust, wrong = Trust.POSITIVE, None
    while wrong is None or wrong:
        _, product, wrong = kernels.log_matmul(x, y, trust)
        if wrong is None:
            break
        trust = Trust(min(trust + 1, Trust.LOGS))
    weights = torch.rand(1, 2, 2, dtype=torch.float64)
    of_x, _ = kernels.log_matmul_adjoint(product, weights)
    expected = (weights.unsqueeze(-2) * (x.unsqueeze(-1) + y.unsqueeze(-3)).softmax(-2)).sum(-1)
    torch.testing.assert_close(of_x, expected, **EXACT)
    ours, theirs = torch.autograd.grad(of_x[0, 0, 0], (x, y)), torch.autograd.grad(expected[0, 0, 0], (x, y))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_an_impossible_graph_is_minus_infinity_without_nan() -> None:
    tables = {"f": (["x"], [1.0, 0.0]), "g": (["x", "y"], [[0.0, 0.0], [0.5, 0.5]])}
    graph = FactorGraph.from_tables(tables)
    assert execute(make_plan(graph.structure), graph).value == -torch.inf
    assert execute(make_plan(graph.structure), graph, MAX_SUM).value == -torch.inf


def wide_chain(gap: float, steps: int = 40) -> FactorGraph:
    """Pair tables whose largest entries lead to where the next table has its smallest."""
    pair = torch.tensor([[-gap, 0.0, -gap], [-gap, -gap, -torch.inf], [0.0, -gap, -gap]], dtype=torch.float64)
    names = [f"x{t}" for t in range(steps + 1)]
    tables = {f"f{t}": ([names[t], names[t + 1]], pair if t % 2 else pair.mT.clone()) for t in range(steps)}
    return FactorGraph.from_tables(tables, log=True)


def test_a_chain_of_products_that_all_underflow() -> None:
    graph = wide_chain(800.0)
    message = torch.zeros(3, dtype=torch.float64)
    for factor in graph.factors:
        message = torch.logsumexp(message.unsqueeze(-1) + factor.data, 0)
    plan = make_plan(graph.structure, ("x0",), orders=("balanced",))
    result = execute(plan, graph)
    torch.testing.assert_close(result.value, message.logsumexp(0), rtol=1e-12, atol=0)
    assert Trust.LOGS in log_sweep.trust_in(plan)[False]


def test_what_a_plan_has_learnt_is_kept(deferred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = wide_chain(700.0, steps=12)
    plan = make_plan(graph.structure)
    first = execute(plan, graph).value
    runs = []
    forward = sweep.forward
    monkeypatch.setattr(sweep, "forward", lambda *args: runs.append(1) or forward(*args))
    assert execute(plan, graph).value == first
    assert len(runs) == 1
    log_sweep.trust_in(plan)[False][:] = [Trust.POSITIVE] * len(plan.schedule.groups)
    assert execute(plan, graph).value == first
    assert (len(runs) > 2) == deferred
