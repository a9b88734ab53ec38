"""Plans that do not fit into memory run in slices, and the answers are the same."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, event, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

import oracles
from strategies import factor_graphs, to_problem
from sumout import infer
from sumout.errors import MemoryLimitError
from sumout.execute import LOG_SUM_EXP, MAX_SUM, Semiring, execute
from sumout.execute.algebra import LogSum, Maximum
from sumout.factors import FactorGraph
from sumout.infer.solving.solve import sample, solve
from sumout.plan import EliminationPlan, make_plan, planning
from sumout.settings import settings

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def sliced_plan(graph: FactorGraph, marginals: tuple[str, ...], share: float) -> EliminationPlan:
    """A plan for a share of the memory that it needs whole, or less: in slices, for all but the smallest graphs."""
    plan = whole = make_plan(graph.structure, marginals)
    for smaller in (1.0, 0.6, 0.35, 0.2, 0.1, 0.05):
        limit = int(share * smaller * whole.bytes(8, backward=True))
        try:
            plan = make_plan(graph.structure, marginals, memory_limit=limit, backward=True, unroll=True)
        except MemoryLimitError:
            break
        if plan.sliced:
            break
    event("sliced" if plan.sliced else "whole")
    return plan


def graphs(
    zeros: bool = True, scales: bool = False, max_assignments: int = 1000
) -> st.SearchStrategy[FactorGraph]:
    """Graphs in and without plates: for what lives in a plate to be fixed, the plate is written out."""
    flat = factor_graphs(plates=False, zeros=zeros, scales=scales, max_assignments=max_assignments)
    return flat | factor_graphs(zeros=zeros, scales=scales, max_assignments=max_assignments)


SHARES = st.sampled_from([0.7, 0.5, 0.25])


@given(graphs(scales=True, max_assignments=1000), SHARES)
@hypothesis(max_examples=150)
def test_log_z_and_beliefs(graph: FactorGraph, share: float) -> None:
    assume(graph.factors)
    problem = to_problem(graph)
    plan = sliced_plan(graph, (), share)
    torch.testing.assert_close(solve(graph, plan=plan).value, oracles.log_z(problem), **EXACT)


@given(graphs(max_assignments=1000), SHARES)
@hypothesis(max_examples=150)
def test_marginals(graph: FactorGraph, share: float) -> None:
    assume(graph.factors)
    problem = to_problem(graph)
    assume(oracles.log_z(problem) > -torch.inf)
    plan = sliced_plan(graph, tuple(graph.variables), share)
    result = solve(graph, plan=plan)
    torch.testing.assert_close(result.value, oracles.log_z(problem), **EXACT)
    for name, probs in oracles.marginals(problem).items():
        torch.testing.assert_close(result.marginal(name).probs, probs, **EXACT)


@given(graphs(max_assignments=1000), SHARES)
@hypothesis(max_examples=100)
def test_map_and_max_marginals(graph: FactorGraph, share: float) -> None:
    assume(graph.factors)
    problem = to_problem(graph)
    _, best = oracles.max_assignment(problem)
    plan = sliced_plan(graph, tuple(graph.variables), share)
    result = solve(graph, MAX_SUM, plan=plan)
    torch.testing.assert_close(result.value, best, **EXACT)
    assume(best > -torch.inf)
    whole = solve(graph, MAX_SUM, tuple(graph.variables))
    for name in graph.variables:
        torch.testing.assert_close(result.marginal(name).probs, whole.marginal(name).probs, **EXACT)
    values = {}
    for name, variable in graph.variables.items():
        choice = result.assignment[name]
        plates = sorted(variable.plates)
        shape = [graph.plates[each].size if each in choice.plates else 1 for each in plates]
        index = choice.states.permute([choice.plates.index(each) for each in plates if each in choice.plates])
        values[name] = index.reshape(shape).expand([graph.plates[each].size for each in plates])
    torch.testing.assert_close(oracles.score_assignment(problem, values), best, **EXACT)


def with_tables(graph: FactorGraph, tables: list[torch.Tensor]) -> FactorGraph:
    factors = tuple(replace(f, data=data) for f, data in zip(graph.factors, tables, strict=True))
    return FactorGraph(factors, graph.variables, graph.plates)


@given(graphs(zeros=False, max_assignments=500), SHARES, st.data())
@hypothesis(max_examples=60)
def test_gradients_of_values_and_marginals(graph: FactorGraph, share: float, data: st.DataObject) -> None:
    assume(graph.factors and graph.variables)
    names = tuple(graph.variables)
    plan = sliced_plan(graph, names, share)
    tables = [factor.data.clone().requires_grad_() for factor in graph.factors]
    tracked = with_tables(graph, tables)
    name = data.draw(st.sampled_from(names))
    weights = torch.rand(solve(graph, marginals=names).marginal(name).probs.shape, dtype=torch.float64)

    def objective(in_slices: bool) -> torch.Tensor:
        result = solve(tracked, plan=plan) if in_slices else solve(tracked, marginals=names)
        return result.value * 1.7 + (result.marginal(name).probs * weights).sum()

    expected = torch.autograd.grad(objective(False), tables)
    for a, b in zip(torch.autograd.grad(objective(True), tables), expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    # The graph of the derivative is another one, of all slices at once.
    for a, b in zip(torch.autograd.grad(objective(True), tables, create_graph=True), expected, strict=True):
        torch.testing.assert_close(a.detach(), b, **EXACT)


def grid(side: int, states: int = 2) -> FactorGraph:
    torch.manual_seed(3)
    tables = {}
    for row, column in itertools.product(range(side), repeat=2):
        for other in ((row + 1, column), (row, column + 1)):
            if max(other) < side:
                pair = [f"x{row}{column}", f"x{other[0]}{other[1]}"]
                tables["-".join(pair)] = (pair, torch.rand(states, states, dtype=torch.float64) + 0.1)
    return FactorGraph.from_tables(tables)


def test_second_derivatives() -> None:
    graph = grid(3)
    plan = make_plan(graph.structure, memory_limit=900, backward=True)
    assert plan.sliced
    tables = [factor.data.clone().requires_grad_() for factor in graph.factors]

    def value(*each: torch.Tensor) -> torch.Tensor:
        return solve(with_tables(graph, list(each)), plan=plan).value

    assert torch.autograd.gradgradcheck(value, tables[:1] + [each.detach() for each in tables[1:]])


def test_queries_slice_by_themselves_where_memory_is_short() -> None:
    graph = grid(6, 3)
    whole = infer.marginals(graph)()
    with settings.override(memory_limit=whole.plan.bytes(8, backward=True) // 6):
        sliced = infer.marginals(graph)()
        best = infer.map_assignment(graph)()
    assert sliced.plan.sliced
    assert not whole.plan.sliced
    assert sliced.plan.bytes(8, backward=True) <= whole.plan.bytes(8, backward=True) // 6
    torch.testing.assert_close(sliced.log_evidence, whole.log_evidence, **EXACT)
    for name in graph.variables:
        torch.testing.assert_close(sliced[name].probs, whole[name].probs, **EXACT)
    torch.testing.assert_close(best.log_prob, infer.map_assignment(graph)().log_prob, **EXACT)
    assert "Sliced:" in sliced.plan.explain()


def test_samples_of_slices_have_the_posterior_s_frequencies() -> None:
    graph = grid(3)
    plan = make_plan(graph.structure, memory_limit=900, backward=True)
    assert plan.sliced
    drawn = sample(graph, 4000, torch.Generator().manual_seed(1), plan=plan)
    for name, probs in oracles.marginals(to_problem(graph)).items():
        frequency = torch.nn.functional.one_hot(drawn.choices[name].states, 2).double().mean(0)
        assert (frequency - probs).abs().max() < 0.05
    log_joint = sum(
        factor.data[tuple(drawn.choices[name].states for name in factor.inputs)] for factor in graph.factors
    )
    torch.testing.assert_close(drawn.log_prob, log_joint - drawn.value, **EXACT)


def test_impossible_slices_are_left_out() -> None:
    graph = grid(3)
    one = graph.factors[0]
    barred = one.data.clone()
    barred[0] = -torch.inf
    graph = with_tables(graph, [barred, *[factor.data for factor in graph.factors[1:]]])
    names = tuple(graph.variables)
    plan = make_plan(graph.structure, names, memory_limit=1500, backward=True)
    assert plan.sliced
    result = solve(graph, plan=plan)
    for name, probs in oracles.marginals(to_problem(graph)).items():
        torch.testing.assert_close(result.marginal(name).probs, probs, **EXACT)


def test_an_impossible_graph_is_minus_infinity() -> None:
    graph = grid(3)
    tables = [torch.full_like(graph.factors[0].data, -torch.inf)]
    graph = with_tables(graph, [*tables, *[factor.data for factor in graph.factors[1:]]])
    plan = make_plan(graph.structure, memory_limit=900, backward=True)
    assert solve(graph, plan=plan).value == -torch.inf
    assert solve(graph, MAX_SUM, plan=plan).value == -torch.inf


def test_where_slices_do_not_help_either_the_error_stands() -> None:
    graph = grid(8, 12)  # 12 ** 8 entries, which even in slices are too many.
    with settings.override(memory_limit=2**16), pytest.raises(MemoryLimitError, match="The plan needs"):
        solve(graph)


def test_slices_that_take_too_long_are_refused() -> None:
    graph = grid(6, 3)
    limit = make_plan(graph.structure).bytes() // 6
    assert make_plan(graph.structure, memory_limit=limit).sliced
    with planning(patience=1e-6), pytest.raises(MemoryLimitError, match="it would take about"):
        make_plan(graph.structure, memory_limit=limit)


def test_memory_that_does_not_hold_a_table_does_not_hold_slices() -> None:
    structure = grid(3, 4).structure
    assert make_plan(structure, memory_limit=8 * 200).sliced
    with pytest.raises(MemoryLimitError, match="that is given takes 128 B by itself"):
        make_plan(structure, memory_limit=8 * 16 - 1)


def test_a_scaled_component_is_not_sliced() -> None:
    graph = grid(4)
    scaled = FactorGraph(
        tuple(replace(factor, scale=2.0) for factor in graph.factors), graph.variables, graph.plates
    )
    limit = make_plan(graph.structure).bytes() // 4
    assert make_plan(graph.structure, memory_limit=limit).sliced
    with pytest.raises(MemoryLimitError, match="A power is taken of the whole sum over"):
        make_plan(scaled.structure, memory_limit=limit)


def lollipop(length: int = 12, states: int = 4) -> FactorGraph:
    """Variables that are all joined to each other, and a chain that hangs on one of them."""
    knot = [f"k{each}" for each in range(6)]
    rows = [knot[0], *(f"x{each}" for each in range(length))]
    pairs = [*itertools.combinations(knot, 2), *itertools.pairwise(rows)]
    draw = torch.Generator().manual_seed(0)
    return FactorGraph.from_tables(
        {
            f"{a}-{b}": ([a, b], torch.rand(states, states, dtype=torch.float64, generator=draw))
            for a, b in pairs
        }
    )


@pytest.mark.parametrize("semiring", [LOG_SUM_EXP, MAX_SUM], ids=["sum", "maximum"])
@pytest.mark.parametrize("wanted", [False, True], ids=["value", "marginals"])
def test_what_is_the_same_in_all_slices_runs_once(
    semiring: Semiring, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = lollipop()
    names = tuple(graph.variables) if wanted else ()
    whole = make_plan(graph.structure, names)
    plan = make_plan(
        graph.structure, names, memory_limit=whole.bytes(8, backward=wanted) // 2, backward=wanted
    )
    assert plan.sliced
    once = [number for number, group in enumerate(plan.schedule.groups) if group.once]
    assert 0 < len(once) < len(plan.schedule.groups)
    assert "run once and not" in plan.explain()
    runs = dict.fromkeys(range(len(plan.schedule.groups)), 0)
    kind = LogSum if semiring == LOG_SUM_EXP else Maximum
    original = kind.forward

    def counting(self: object, number: int, *args: object) -> object:
        runs[number] += 1
        return original(self, number, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "forward", counting)
    found = solve(graph, semiring, names, plan=plan)
    assert all(count == (1 if number in once else plan.slices) for number, count in runs.items())
    monkeypatch.undo()
    expected = execute(whole, graph, semiring)
    torch.testing.assert_close(found.value, expected.value, **EXACT)
    for name in names:
        torch.testing.assert_close(found.marginal(name).probs, expected.marginal(name).probs, **EXACT)


def test_sharing_gives_way_where_memory_is_short() -> None:
    graph = lollipop(length=60, states=6)
    names = tuple(graph.variables)
    plans = []
    limit = make_plan(graph.structure, names).bytes(8, backward=True)
    with contextlib.suppress(MemoryLimitError):
        while True:
            limit = int(0.9 * limit)
            plans.append(make_plan(graph.structure, names, memory_limit=limit, backward=True))
    value = execute(make_plan(graph.structure), graph).value
    few = [
        plan for plan in plans if 1 <= len(plan.sliced) <= 3
    ]  # at most 216 slices: the shortest of memory take minutes
    assert {plan.shared for plan in few} == {False, True}
    for plan in {plan.shared: plan for plan in few}.values():
        torch.testing.assert_close(solve(graph, plan=plan).value, value, **EXACT)


def test_derivatives_and_samples_of_plans_that_share() -> None:
    graph = lollipop(4, 3)
    plan = make_plan(graph.structure, memory_limit=make_plan(graph.structure).bytes(8) // 2)
    assert plan.once.launches
    leaves = with_tables(graph, [factor.data.clone().requires_grad_() for factor in graph.factors])
    given = [factor.data for factor in leaves.factors]
    found = torch.autograd.grad(solve(leaves, plan=plan).value, given)
    expected = torch.autograd.grad(execute(make_plan(graph.structure), leaves).value, given)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    drawn = sample(graph, 20, torch.Generator().manual_seed(0), plan=plan)
    score = sum(
        factor.data[tuple([drawn.choices[name].states for name in factor.inputs])] for factor in graph.factors
    )
    torch.testing.assert_close(drawn.log_prob, score - drawn.value, **EXACT)
