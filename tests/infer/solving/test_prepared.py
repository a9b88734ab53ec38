"""Graphs that are kept prepared: each way in which they are answered against brute force, and when a way gives up."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import oracles
from posteriors import Posterior
from strategies import factor_graphs, to_problem
from sumout.errors import EvidenceError, ImpossibleEvidenceError, MemoryLimitError, ModelError
from sumout.execute import flat
from sumout.execute.linear import Range, linear_sweep
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.infer import log_evidence, marginals
from sumout.infer.solving import prepared
from sumout.infer.solving.prepared import PreparedGraph, prepared_graph
from sumout.plan import make_plan
from sumout.settings import settings as switches

EXACT = {"rtol": 1e-9, "atol": 1e-9}
WITH_FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(params=["flat", "sweeps", "logarithms"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way in which a prepared graph can be answered."""
    if request.param != "flat":
        monkeypatch.setattr(prepared, "_FLAT", -1)
    if request.param == "logarithms":
        monkeypatch.setattr(prepared, "linear_sweep", lambda *args: None)
    return str(request.param)


def stretched(graph: FactorGraph, seed: int, by: float) -> FactorGraph:
    """The graph with entries moved up or down, each by itself."""
    generator = torch.Generator().manual_seed(seed)
    factors = []
    for factor in graph.factors:
        moves = torch.randint(-1, 2, factor.data.shape, generator=generator) * by
        factors.append(dataclasses.replace(factor, data=factor.data + moves))
    return FactorGraph(tuple(factors), graph.variables, graph.plates)


@given(
    factor_graphs(plates=False),
    st.data(),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.0, 20.0, 200.0, 800.0]),
    st.sampled_from([1, 256]),
)
@settings(max_examples=250, suppress_health_check=WITH_FIXTURES)
def test_evidence_and_marginals(
    way: str, graph: FactorGraph, data: st.DataObject, seed: int, by: float, merge: int
) -> None:
    assume(graph.factors and graph.variables)
    graph = stretched(graph, seed, by)
    names = data.draw(st.lists(st.sampled_from(sorted(graph.variables)), unique=True))
    evidence = {name: data.draw(st.integers(0, graph.variables[name].size - 1)) for name in names}
    posterior = Posterior(to_problem(graph.condition(evidence) if evidence else graph))
    hidden = [name for name in graph.variables if name not in evidence]
    group = tuple(data.draw(st.permutations(hidden))[:2])
    wanted = [*hidden, group] if len(group) == 2 else hidden
    torch.testing.assert_close(log_evidence(graph)(evidence=evidence), posterior.log_z, **EXACT)
    if posterior.log_z == -torch.inf:
        with pytest.raises(ImpossibleEvidenceError):
            marginals(graph, wanted)(evidence=evidence)
        return
    answer = marginals(graph, wanted)(evidence=evidence)
    torch.testing.assert_close(answer.log_evidence, posterior.log_z, **EXACT)
    assert list(answer) == wanted
    for each in wanted:
        names_of = [each] if isinstance(each, str) else list(each)
        torch.testing.assert_close(answer.tables[each], posterior.joint(names_of), **EXACT)
        torch.testing.assert_close(answer[each].probs, answer.tables[each])


@given(factor_graphs(plates=False), st.integers(0, 10**6), st.sampled_from([0.0, 100.0, 300.0]))
@settings(max_examples=150)
def test_a_flat_program_is_right_or_gives_up(graph: FactorGraph, seed: int, by: float) -> None:
    assume(graph.factors)
    graph = stretched(graph, seed, by)
    assume(all(factor.data.max() > -torch.inf for factor in graph.factors))
    kept = PreparedGraph(graph)
    plan = make_plan(graph.structure, tuple(graph.variables))
    sizes = {name: variable.size for name, variable in graph.variables.items()}
    lows = [each.low for each in kept.ranges]
    posterior = Posterior(to_problem(graph))
    for merge in (1, 16, 4096):
        try:
            tables = [each.numpy() for each in kept.tables]
            program = flat.FlatProgram(plan, tables, kept.inputs, sizes, (), lows, merge)
            value, found = program.marginals([])
        except flat.TooFar:
            assert sum(lows) < -150
            continue
        torch.testing.assert_close(
            torch.tensor(value + kept.offset, dtype=torch.float64), posterior.log_z, **EXACT
        )
        if value > -torch.inf:
            for name, (start, stop, _) in program.places.items():
                expected = posterior.joint([str(name)])
                torch.testing.assert_close(torch.from_numpy(found[start:stop]), expected, **EXACT)


def chain(steps: int, table: torch.Tensor) -> FactorGraph:
    tables = {f"f{t}": ([f"x{t}", f"x{t + 1}"], table) for t in range(steps)}
    return FactorGraph.from_tables(tables, log=True)


@pytest.mark.parametrize("spread", [1.0, 5.0, 12.0])
def test_long_chains_are_scaled_on_the_way(spread: float) -> None:
    """The product of the least entries of all tables is far below any number: results are scaled here and there."""
    steps = 200
    tables = -spread * torch.rand(steps, 3, 3, dtype=torch.float64)
    graph = FactorGraph.from_tables(
        {f"f{t}": ([f"x{t}", f"x{t + 1}"], table) for t, table in enumerate(tables)}, log=True
    )
    likelihood = torch.zeros(steps + 1, 3, dtype=torch.float64)
    log_z, posterior, _ = oracles.forward_backward(likelihood[0], tables, likelihood)
    answer = marginals(graph)()
    torch.testing.assert_close(answer.log_evidence, log_z, rtol=1e-12, atol=0)
    torch.testing.assert_close(log_evidence(graph)(), log_z, rtol=1e-12, atol=0)
    for t in range(steps + 1):
        torch.testing.assert_close(answer.tables[f"x{t}"], posterior[t], **EXACT)
    kept = prepared_graph(graph)
    assert kept is not None
    for wanted in ((), tuple(graph.variables)):
        pattern = kept.pattern((), wanted)
        assert pattern.flat is not None
        assert not pattern.in_logs
    assert spread == 1.0 or any(level.scaled is not None for level in pattern.flat.layout.levels)


def test_a_scaled_result_that_is_not_as_assumed_is_found_out() -> None:
    """The likelier path is forbidden at the very end, where the other is far below any number."""
    steps = 600
    stay = torch.tensor([[0.0, -torch.inf], [-torch.inf, -2.0]], dtype=torch.float64)
    tables = {f"f{t}": ([f"x{t}", f"x{t + 1}"], stay) for t in range(steps)}
    tables["end"] = ([f"x{steps}"], torch.tensor([-torch.inf, 0.0], dtype=torch.float64))
    graph = FactorGraph.from_tables(tables, log=True)
    kept = prepared_graph(graph)
    assert kept is not None
    assert kept.pattern((), ()).flat is not None
    assert log_evidence(graph)() == -2.0 * steps
    assert kept.pattern((), ()).flat is None
    assert marginals(graph)()["x0"].probs.tolist() == [0.0, 1.0]


def test_a_sweep_scales_or_gives_up() -> None:
    table = torch.tensor([[0.0, -40.0], [-40.0, 0.3]], dtype=torch.float64)
    for steps, spread, gives_up in ((300, 1.0, False), (300, 9.0, True)):
        graph = chain(steps, table * spread)
        kept = PreparedGraph(graph)
        plan = make_plan(graph.structure)
        found = linear_sweep(plan, kept.tables, kept.ranges, frozenset())
        expected = log_evidence(FactorGraph((*graph.factors,), graph.variables, {"p": Plate(1)}))()
        if found is None:
            assert gives_up
        else:
            torch.testing.assert_close(found[0] + kept.offset, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(log_evidence(graph)(), expected, rtol=1e-12, atol=0)


def test_a_bound_that_does_not_hold_is_found_out() -> None:
    """Two tables whose products of shifted entries underflow, though the answer is an ordinary number."""
    gap = 600.0
    lhs = torch.tensor([[0.0, -gap], [0.0, -gap]], dtype=torch.float64)
    rhs = torch.tensor([[-gap, -gap], [0.0, 0.0]], dtype=torch.float64)
    graph = FactorGraph.from_tables({"f": (["x", "y"], lhs), "g": (["y", "z"], rhs)}, log=True)
    kept = prepared_graph(graph)
    assert kept is not None
    assert kept.pattern((), ()).flat is None
    assert linear_sweep(make_plan(graph.structure), kept.tables, kept.ranges, frozenset({0})) is None
    expected = torch.logsumexp((lhs.unsqueeze(-1) + rhs).reshape(-1), 0)
    torch.testing.assert_close(log_evidence(graph)(), expected)
    assert kept.pattern((), ()).in_logs
    torch.testing.assert_close(marginals(graph)()["y"].probs, torch.full((2,), 0.5).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types(way: str, dtype: torch.dtype) -> None:
    table = torch.tensor([[0.5, 0.25], [0.25, 0.0]], dtype=dtype)
    graph = FactorGraph.from_tables({"f": (["x", "y"], table), "g": (["y"], table[0])})
    answer = marginals(graph)(evidence={"x": 0})
    assert answer.log_evidence.dtype == answer["y"].probs.dtype == dtype
    torch.testing.assert_close(answer["y"].probs, torch.tensor([0.8, 0.2], dtype=dtype))


def test_a_change_in_place_is_seen() -> None:
    data = torch.tensor([0.5, 0.5]).log()
    graph = FactorGraph.from_tables({"f": (["x"], data)}, log=True)
    assert marginals(graph)()["x"].probs.tolist() == [0.5, 0.5]
    graph.factors[0].data.copy_(torch.tensor([0.25, 0.75]).log())
    torch.testing.assert_close(marginals(graph)()["x"].probs, torch.tensor([0.25, 0.75]))
    graph.factors[0].data.requires_grad_()
    value = log_evidence(graph)()
    assert value.requires_grad
    assert marginals(graph)()["x"].probs.requires_grad


def test_nothing_is_kept_of_a_graph_that_is_gone() -> None:
    graph = chain(3, torch.zeros(2, 2))
    marginals(graph)()
    kept = weakref.ref(prepared_graph(graph))  # type: ignore[arg-type]
    del graph
    gc.collect()
    assert kept() is None


def test_patterns_that_are_not_asked_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "_KEPT", 3)
    graph = chain(6, torch.zeros(2, 2))
    for place in range(6):
        log_evidence(graph)(evidence={f"x{place}": 0})
    kept = prepared_graph(graph)
    assert kept is not None
    assert len(kept._patterns) == 3


def test_observations_in_any_order_are_one_pattern() -> None:
    graph = chain(4, torch.zeros(2, 2))
    log_evidence(graph)(evidence={"x1": 0, "x3": 1})
    log_evidence(graph)(evidence={"x3": 0, "x1": 1})
    kept = prepared_graph(graph)
    assert kept is not None
    assert len(kept._patterns) == 1


def test_what_is_not_kept_prepared() -> None:
    factor = Factor("f", ("x",), torch.zeros(2))
    assert prepared_graph(FactorGraph((factor,), {"x": Variable(2)})) is not None
    assert prepared_graph(FactorGraph((), {"x": Variable(2)})) is None
    assert prepared_graph(FactorGraph((factor,), {"x": Variable(2)}, {"p": Plate(3)})) is None
    scaled = dataclasses.replace(factor, scale=2.0)
    assert prepared_graph(FactorGraph((scaled,), {"x": Variable(2)})) is None
    with torch.inference_mode():
        inside = FactorGraph((Factor("f", ("x",), torch.zeros(2)),), {"x": Variable(2)})
        assert prepared_graph(inside) is None
        assert log_evidence(inside)() == pytest.approx(0.6931, abs=1e-4)


def test_errors_are_those_of_the_general_way(way: str) -> None:
    graph = FactorGraph.from_tables({"f": (["x", "y"], torch.ones(2, 2))}, states={"x": ["no", "yes"]})
    query = marginals(graph)
    with pytest.raises(EvidenceError, match="Unknown state 'yess'"):
        query(evidence={"x": "yess"})
    with pytest.raises(EvidenceError, match="states count from 0"):
        query(evidence={"y": 2})
    with pytest.raises(EvidenceError, match="no variable"):
        query(evidence={"z": 0})
    with pytest.raises(EvidenceError, match="'x' is not summed out"):
        marginals(graph, "x")(evidence={"x": "no"})
    assert query(evidence={"x": True, "y": torch.tensor(1)}).log_evidence == 0
    with switches.override(memory_limit=10), pytest.raises(MemoryLimitError):
        query()
    broken = FactorGraph((Factor("f", ("x",), torch.tensor([0.0, torch.nan])),), {"x": Variable(2)})
    with pytest.raises(ModelError, match="NaN at 'f'"):
        log_evidence(broken)()


def test_ranges_tell_the_least_positive_entry() -> None:
    graph = FactorGraph.from_tables({"f": (["x"], torch.tensor([0.0, 0.5, 0.125]).double())})
    assert PreparedGraph(graph).ranges == [Range(pytest.approx(-1.3863, abs=1e-4), 0.0)]
