"""Plates that are not tree-shaped: written out, and answered as brute force does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import oracles
import sumout
import sumout.distributions as dist
from strategies import tables, to_problem
from sumout import infer
from sumout.errors import MemoryLimitError, PlanError
from sumout.execute import MAX_SUM
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.factors.unroll import unroll
from sumout.infer.solving.solve import sample, solve
from sumout.plan import make_plan

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@st.composite
def crossed_graphs(draw: st.DrawFn, zeros: bool = True, max_assignments: int = 3000) -> FactorGraph:
    """Random graphs whose variables and factors live in any plates whatever: crossed, nested, shared in part."""
    sizes = {name: draw(st.sampled_from([2, 1, 3])) for name in ["p", "q", "r"][: draw(st.integers(2, 3))]}
    plates = st.frozensets(st.sampled_from(sorted(sizes)), max_size=2)
    variables: dict[str, Variable] = {}
    budget = max_assignments
    for name in "abcde"[: draw(st.integers(2, 5))]:
        ordinal, states = draw(plates), draw(st.sampled_from([2, 3, 1]))
        cost = states ** math.prod(sizes[plate] for plate in ordinal)
        if cost <= budget:
            variables[name] = Variable(states, ordinal)
            budget //= cost
    sizes |= {name: variable.size for name, variable in variables.items()}
    factors = []
    for number in range(draw(st.integers(1, 5))):
        names = st.lists(st.sampled_from(sorted(variables)), unique=True, max_size=3)
        scope = draw(names) if variables else []
        home = draw(plates).union(*(variables[name].plates for name in scope))
        along = draw(st.lists(st.sampled_from(sorted(home)), unique=True)) if home else []
        inputs = tuple(draw(st.permutations([*scope, *along])))
        data = draw(tables(tuple(sizes[name] for name in inputs), zeros=zeros))
        factors.append(Factor(f"f{number}", inputs, data, home))
    all_plates = {name: Plate(size) for name, size in sizes.items() if name not in variables}
    return FactorGraph(tuple(factors), variables, all_plates)


@given(crossed_graphs())
@settings(max_examples=200)
def test_log_z_and_marginals(graph: FactorGraph) -> None:
    graph.check()
    problem = to_problem(graph)
    expected = oracles.log_z(problem)
    torch.testing.assert_close(solve(graph).value, expected, **EXACT)
    assume(expected > -torch.inf)
    result = solve(graph, marginals=tuple(graph.variables))
    torch.testing.assert_close(result.value, expected, **EXACT)
    for name, probs in oracles.marginals(problem).items():
        marginal = result.marginal(name)
        assert marginal.plates == tuple(sorted(graph.variables[name].plates))
        torch.testing.assert_close(marginal.probs, probs, **EXACT)


@given(crossed_graphs())
@settings(max_examples=150)
def test_map_is_a_maximum(graph: FactorGraph) -> None:
    problem = to_problem(graph)
    _, best = oracles.max_assignment(problem)
    result = solve(graph, MAX_SUM)
    torch.testing.assert_close(result.value, best, **EXACT)
    assume(best > -torch.inf)
    torch.testing.assert_close(oracles.score_assignment(problem, states_of(graph, result)), best, **EXACT)


def states_of(graph: FactorGraph, result: infer.solve.Result) -> dict[str, torch.Tensor]:
    values = {}
    for name, variable in graph.variables.items():
        choice = result.assignment[name]
        plates = sorted(variable.plates)
        index = choice.states.permute([choice.plates.index(each) for each in plates if each in choice.plates])
        shape = [graph.plates[each].size if each in choice.plates else 1 for each in plates]
        values[name] = index.reshape(shape).expand([graph.plates[each].size for each in plates])
    return values


@given(crossed_graphs(zeros=False))
@settings(max_examples=100)
def test_gradients_are_the_beliefs_of_all_factors(graph: FactorGraph) -> None:
    data = [factor.data.clone().requires_grad_() for factor in graph.factors]
    tracked = with_tables(graph, data)
    expected = torch.autograd.grad(oracles.log_z(to_problem(tracked)), data)
    for found in (
        torch.autograd.grad(solve(tracked).value, data),
        solve(graph, beliefs=True).beliefs[: len(data)],
    ):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, **EXACT)


@given(crossed_graphs(zeros=False, max_assignments=300))
@settings(max_examples=25)
def test_samples_have_the_posterior_s_frequencies(graph: FactorGraph) -> None:
    problem = to_problem(graph)
    drawn = sample(graph, 2000, torch.Generator().manual_seed(1))
    for name, probs in oracles.marginals(problem).items():
        states = drawn.choices[name].states
        assert states.shape == (2000, *probs.shape[:-1])
        frequency = torch.nn.functional.one_hot(states, probs.shape[-1]).double().mean(0)
        assert (frequency - probs).abs().max() < 0.07  # Six standard deviations.


def with_tables(graph: FactorGraph, data: list[torch.Tensor]) -> FactorGraph:
    factors = tuple(
        Factor(each.name, each.inputs, table, each.plates, each.scale)
        for each, table in zip(graph.factors, data, strict=True)
    )
    return FactorGraph(factors, graph.variables, graph.plates)


def crossed(rows: int, columns: int, states: int = 2) -> FactorGraph:
    data = torch.randn(rows, columns, states, states, dtype=torch.float64)
    return FactorGraph.from_tables(
        {"f": (["row", "column", "a", "b"], data)},
        plates={"row": rows, "column": columns},
        ordinals={"a": ["row"], "b": ["column"]},
        log=True,
    )


def test_the_cheaper_plate_is_written_out() -> None:
    assert make_plan(crossed(3, 7).structure, unroll=True).unrolled == ("row",)
    assert make_plan(crossed(7, 3).structure, unroll=True).unrolled == ("column",)


def test_tables_of_the_copies_are_views() -> None:
    graph = crossed(3, 2)
    copies, _ = unroll(graph, ["row"])
    start, end = graph.factors[0].data.data_ptr(), graph.factors[0].data.numel() * 8
    assert all(0 <= each.data.data_ptr() - start < end for each in copies.factors)
    assert [each.name for each in copies.factors] == ["f[row=0]", "f[row=1]", "f[row=2]"]


def test_only_what_has_variables_in_the_plate_is_copied() -> None:
    graph = FactorGraph.from_tables(
        {
            "f": (["row", "column", "a", "b"], torch.rand(2, 3, 2, 2)),
            "g": (["row", "a"], torch.rand(2, 2)),
            "h": (["column"], torch.rand(3)),
        },
        plates={"row": 2, "column": 3},
        ordinals={"a": ["row"], "b": ["column"]},
    )
    copies, _ = unroll(graph, ["column"])
    assert [each.name for each in copies.factors] == ["f[column=0]", "f[column=1]", "f[column=2]", "g", "h"]


def test_a_joint_marginal_across_plates() -> None:
    graph = crossed(2, 3)
    joint = solve(graph, marginals=[("a", "b")]).marginal(("a", "b"))
    assert joint.plates == ("column", "row")
    problem = to_problem(graph)
    assignments = oracles.assignment_table(problem)
    weights = torch.softmax(oracles.log_joint(problem, assignments), 0)
    copies = problem.copies()
    for row in range(2):
        for column in range(3):
            one, other = copies.index(("a", (row,))), copies.index(("b", (column,)))
            for x in range(2):
                for y in range(2):
                    chosen = (assignments[:, one] == x) & (assignments[:, other] == y)
                    torch.testing.assert_close(joint.probs[column, row, x, y], weights[chosen].sum(), **EXACT)


def test_a_subsampled_plate_is_not_written_out() -> None:
    data = torch.zeros(3, 2, 2, 2)
    graph = FactorGraph.from_tables(
        {"f": (["row", "column", "a", "b"], data)},
        plates={"row": Plate(3, 4.0), "column": Plate(2, 10.0)},
        ordinals={"a": ["row"], "b": ["column"]},
        log=True,
    )
    with pytest.raises(
        PlanError, match=r"'column' is subsampled.*'b' among them, stands for 10.*Take the whole plate"
    ):
        solve(graph)


def test_the_other_plate_is_written_out_where_one_is_subsampled() -> None:
    data = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    graph = FactorGraph.from_tables(
        {"f": (["row", "column", "a", "b"], data)},
        plates={"row": Plate(2, 4.0), "column": 3},
        ordinals={"a": ["row"], "b": ["column"]},
        log=True,
    )
    result = solve(graph)
    assert result.plan.unrolled == ("column",)
    # Given all b, the product over the rows counts four times.
    rows = torch.stack(
        [
            sum(data[row, column, :, b] for column, b in enumerate(bs)).logsumexp(0)
            for bs in torch.cartesian_prod(*[torch.arange(2)] * 3).tolist()
            for row in range(2)
        ]
    ).reshape(8, 2)
    torch.testing.assert_close(result.value, torch.logsumexp(4.0 * rows.sum(1), 0), **EXACT)


def test_what_is_too_large_is_refused_by_name() -> None:
    data = torch.zeros(400, 400, 2, 2)
    graph = FactorGraph.from_tables(
        {"f": (["row", "column", "a", "b"], data)},
        plates={"row": 400, "column": 400},
        ordinals={"a": ["row"], "b": ["column"]},
        log=True,
    )
    with pytest.raises(MemoryLimitError, match=r"'row', 'column'|\['row', 'column'\]|'column'|'row'"):
        solve(graph)


def test_explain_says_what_was_written_out() -> None:
    text = solve(crossed(3, 7)).plan.explain()
    assert "Unrolled: the plate row is not tree-shaped" in text
    assert "4 variables and 3 factors of 2 and 1" in text


def test_a_program_with_crossed_plates() -> None:
    torch.manual_seed(0)
    weights = torch.rand(3, 2, dtype=torch.float64)
    data = torch.randn(3, 2, dtype=torch.float64)

    def program() -> None:
        rows, columns = sumout.plate("rows", 3, dim=-2), sumout.plate("columns", 2, dim=-1)
        with rows:
            x = sumout.sample("x", dist.Bernoulli(weights[:, :1]))
        with columns:
            y = sumout.sample("y", dist.Bernoulli(weights[0]))
        with rows, columns:
            sumout.sample("seen", dist.Normal(x - 2 * y, 1.0), obs=data)

    joint = torch.zeros(2, 2, 2, 2, 2, dtype=torch.float64)
    for index in torch.cartesian_prod(*[torch.arange(2)] * 5).tolist():
        x, y = torch.tensor(index[:3]).double(), torch.tensor(index[3:]).double()
        joint[tuple(index)] = (
            dist.Bernoulli(weights[:, 0]).log_prob(x).sum()
            + dist.Bernoulli(weights[0]).log_prob(y).sum()
            + dist.Normal(x[:, None] - 2 * y, 1.0).log_prob(data).sum()
        )
    torch.testing.assert_close(infer.log_evidence(program)(), joint.logsumexp(tuple(range(5))), **EXACT)
    probs = joint.softmax(-1) if joint.ndim == 1 else (joint - joint.logsumexp(tuple(range(5)))).exp()
    found = infer.marginals(program)()
    for place in range(3):
        others = tuple(each for each in range(5) if each != place)
        torch.testing.assert_close(found["x"].probs[place, 0], probs.sum(others)[1], **EXACT)
    for place in range(2):
        others = tuple(each for each in range(5) if each != 3 + place)
        torch.testing.assert_close(found["y"].probs[..., place].reshape(()), probs.sum(others)[1], **EXACT)
    best = infer.map_assignment(program)()
    torch.testing.assert_close(best.log_prob, joint.max(), **EXACT)
    chosen = (*best["x"].reshape(-1).long().tolist(), *best["y"].reshape(-1).long().tolist())
    assert joint[chosen] == joint.max()
