"""The engine against brute force, on random plated factor graphs, in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import oracles
from strategies import factor_graphs, to_problem
from sumout.execute import LOG_SUM_EXP, MAX_SUM, execute
from sumout.execute.algebra import LogSum
from sumout.factors import FactorGraph
from sumout.plan import ORDERS, make_plan

ORDER = st.sampled_from([tuple(ORDERS), *((order,) for order in ORDERS)])
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def with_tables(graph: FactorGraph, tables: list[torch.Tensor]) -> FactorGraph:
    """The same graph over other numbers."""
    factors = tuple(dataclasses.replace(f, data=data) for f, data in zip(graph.factors, tables, strict=True))
    return FactorGraph(factors, graph.variables, graph.plates)


@given(factor_graphs(scales=True), ORDER)
@settings(max_examples=300)
def test_log_z(graph: FactorGraph, orders: tuple[str, ...]) -> None:
    value = execute(make_plan(graph.structure, orders=orders), graph, LOG_SUM_EXP).value
    # Without a factor the engine answers in torch's default dtype.
    precision = EXACT if graph.factors else {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(value.double(), oracles.log_z(to_problem(graph)), **precision)


@given(factor_graphs(), ORDER)
@settings(max_examples=300)
def test_marginals_and_log_z_with_them(graph: FactorGraph, orders: tuple[str, ...]) -> None:
    assume(graph.factors)
    problem = to_problem(graph)
    log_z = oracles.log_z(problem)
    assume(log_z > -torch.inf)
    result = execute(make_plan(graph.structure, tuple(graph.variables), orders), graph)
    torch.testing.assert_close(result.value, log_z, **EXACT)
    for name, expected in oracles.marginals(problem).items():
        marginal = result.marginal(name)
        assert marginal.plates == tuple(sorted(graph.variables[name].plates))
        torch.testing.assert_close(marginal.probs, expected, **EXACT)


@given(factor_graphs(), ORDER)
@settings(max_examples=300)
def test_map_is_a_maximum(graph: FactorGraph, orders: tuple[str, ...]) -> None:
    assume(graph.factors)
    problem = to_problem(graph)
    _, best = oracles.max_assignment(problem)
    result = execute(make_plan(graph.structure, orders=orders), graph, MAX_SUM)
    torch.testing.assert_close(result.value, best, **EXACT)
    assume(best > -torch.inf)
    values = {}
    for name, variable in graph.variables.items():
        choice = result.assignment[name]
        plates = sorted(variable.plates)
        index = choice.states.permute([choice.plates.index(each) for each in plates if each in choice.plates])
        shape = [graph.plates[each].size if each in choice.plates else 1 for each in plates]
        values[name] = index.reshape(shape).expand([graph.plates[each].size for each in plates])
    # There may be ties, so the assignment is judged by its probability and not by its states.
    torch.testing.assert_close(oracles.score_assignment(problem, values), best, **EXACT)


@given(factor_graphs(zeros=False, scales=True), ORDER)
@settings(max_examples=150)
def test_gradients_of_log_z(graph: FactorGraph, orders: tuple[str, ...]) -> None:
    assume(graph.factors)
    tables = [factor.data.clone().requires_grad_() for factor in graph.factors]
    tracked = with_tables(graph, tables)
    ours = torch.autograd.grad(execute(make_plan(graph.structure, orders=orders), tracked).value, tables)
    expected = torch.autograd.grad(oracles.log_z(to_problem(tracked)), tables)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@given(factor_graphs(max_variables=4, zeros=False), st.data())
@settings(max_examples=100)
def test_gradients_of_marginals(graph: FactorGraph, data: st.DataObject) -> None:
    assume(graph.factors and graph.variables)
    name = data.draw(st.sampled_from(sorted(graph.variables)))
    tables = [factor.data.clone().requires_grad_() for factor in graph.factors]
    tracked = with_tables(graph, tables)
    probs = execute(make_plan(graph.structure, (name,)), tracked).marginal(name).probs
    weights = torch.rand_like(probs)
    expected = _marginal_by_enumeration(tracked, name)
    ours = torch.autograd.grad((probs * weights).sum(), tables, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(
        (expected * weights).sum(), tables, allow_unused=True, materialize_grads=True
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def _marginal_by_enumeration(graph: FactorGraph, name: str) -> torch.Tensor:
    """Differentiable marginals, by summing the joint over the assignments that agree on one copy."""
    problem = to_problem(graph)
    assignments = oracles.assignment_table(problem)
    weights = torch.softmax(oracles.log_joint(problem, assignments), 0)
    rows = []
    for column, (each, _) in enumerate(problem.copies()):
        if each == name:
            states = range(problem.sizes[name])
            rows.append(torch.stack([weights[assignments[:, column] == state].sum() for state in states]))
    plates = [graph.plates[plate].size for plate in sorted(graph.variables[name].plates)]
    return torch.stack(rows).reshape(*plates, -1)


@given(factor_graphs(max_variables=3, zeros=False))
@settings(max_examples=50)
def test_second_derivatives_of_log_z(graph: FactorGraph) -> None:
    assume(graph.factors)
    tables = [factor.data.clone().requires_grad_() for factor in graph.factors]
    plan = make_plan(graph.structure)

    def value(*each: torch.Tensor) -> torch.Tensor:
        return execute(plan, with_tables(graph, list(each))).value

    assert torch.autograd.gradgradcheck(value, tables)


def test_beliefs_are_the_gradient_even_where_probabilities_are_zero() -> None:
    logs = torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]]).double().requires_grad_()
    graph = FactorGraph.from_tables(
        {"f": (["x", "y"], logs), "g": (["y", "z"], torch.zeros(2, 3).double())}, log=True
    )
    (grad,) = torch.autograd.grad(execute(make_plan(graph.structure), graph).value, logs)
    assert grad.tolist() == [[1.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [100.0, 600.0, 5000.0])
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


def test_an_impossible_graph_is_minus_infinity_without_nan() -> None:
    tables = {"f": (["x"], [1.0, 0.0]), "g": (["x", "y"], [[0.0, 0.0], [0.5, 0.5]])}
    graph = FactorGraph.from_tables(tables)
    assert execute(make_plan(graph.structure), graph).value == -torch.inf
    assert execute(make_plan(graph.structure), graph, MAX_SUM).value == -torch.inf


def test_a_plan_of_another_structure_is_refused() -> None:
    graph = FactorGraph.from_tables({"f": (["x"], [1.0, 1.0])})
    other = FactorGraph.from_tables({"f": (["y"], [1.0, 1.0])})
    with pytest.raises(ValueError, match="another structure"):
        execute(make_plan(other.structure), graph)


def test_only_a_maximum_has_an_assignment() -> None:
    graph = FactorGraph.from_tables({"f": (["x"], [1.0, 1.0])})
    with pytest.raises(ValueError, match="MAX_SUM"):
        _ = execute(make_plan(graph.structure), graph).assignment


def test_tables_that_lie_backwards_in_one_storage() -> None:
    tables = torch.randn(3, 40, 40, dtype=torch.float64)
    graph = FactorGraph.from_tables({f"f{i}": ([f"x{i}", f"y{i}"], tables[i]) for i in (2, 1, 0)}, log=True)
    with torch.no_grad():
        value = execute(make_plan(graph.structure), graph).value
    torch.testing.assert_close(value, tables.logsumexp((1, 2)).sum(), rtol=1e-12, atol=0)


@given(factor_graphs(), st.data())
@settings(max_examples=100)
def test_only_what_is_asked_for_is_handed_back(graph: FactorGraph, data: st.DataObject) -> None:
    assume(graph.factors and graph.variables)
    names = sorted(graph.variables)
    some = tuple(data.draw(st.lists(st.sampled_from(names), unique=True, max_size=3)))
    plan, whole = make_plan(graph.structure, some), make_plan(graph.structure)
    found = execute(plan, graph)
    assume(found.value > -torch.inf)
    assert set(found.shown) == {number for _, number in plan.readouts}
    expected = oracles.marginals(to_problem(graph))
    for name in some:
        torch.testing.assert_close(found.marginal(name).probs, expected[name], **EXACT)
    trained = data.draw(st.lists(st.booleans(), min_size=len(graph.factors), max_size=len(graph.factors)))
    assume(any(trained))
    tables = [f.data.clone().requires_grad_(each) for f, each in zip(graph.factors, trained, strict=True)]
    wanted = [table for table in tables if table.requires_grad]
    beliefs = execute(whole, graph, beliefs=True).beliefs
    grads = torch.autograd.grad(execute(whole, with_tables(graph, tables)).value, wanted)
    for grad, number in zip(grads, [n for n, each in enumerate(trained) if each], strict=True):
        torch.testing.assert_close(grad, beliefs[number], **EXACT)


def test_groups_that_lead_to_nothing_that_is_asked_for_are_not_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two chains that share nothing, one is asked about."""
    pair = torch.rand(3, 3, dtype=torch.float64)
    graph = FactorGraph.from_tables(
        {
            f"{name}{step}": ([f"{name}{step}", f"{name}{step + 1}"], pair)
            for name in "ab"
            for step in range(6)
        }
    )
    plan = make_plan(graph.structure, ("a3",), orders=("min_fill",))
    passed = []
    original = LogSum.backward
    monkeypatch.setattr(
        LogSum,
        "backward",
        lambda self, group, *rest: passed.append(group) or original(self, group, *rest),
    )
    execute(plan, graph)
    variables = {name for group in passed for dims in group.dims for names in dims for name in names}
    assert len(passed) < len(plan.schedule.groups)
    assert "a3" in variables
