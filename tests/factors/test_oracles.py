"""The oracles against each other and against answers known by hand; what the strategies draw."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import find, given, settings

import oracles
from oracles import Problem, Table
from strategies import factor_graphs, to_problem
from sumout.factors import FactorGraph


@given(factor_graphs(max_variables=4, max_assignments=300))
def test_the_recursive_definition_agrees_with_enumeration(graph: FactorGraph) -> None:
    problem = to_problem(graph)
    assert not problem.scaled()
    recursive, enumerated = oracles.scaled_log_z(problem), oracles.log_z(problem)
    torch.testing.assert_close(recursive, enumerated, rtol=1e-10, atol=1e-10)


@given(factor_graphs(max_variables=3, zeros=False, max_assignments=200))
def test_a_scale_of_two_is_two_of_each_element(graph: FactorGraph) -> None:
    once = to_problem(graph)
    doubled = Problem(
        once.sizes, once.ordinals, {name: (size, 2.0) for name, (size, _) in once.plates.items()}, once.tables
    )
    longer = Problem(
        once.sizes,
        once.ordinals,
        {name: (2 * size, 1.0) for name, (size, _) in once.plates.items()},
        [replace(t, data=_repeated(t.data, [name in once.plates for name in t.inputs])) for t in once.tables],
    )
    torch.testing.assert_close(oracles.log_z(doubled), oracles.scaled_log_z(longer), rtol=1e-10, atol=1e-8)


def _repeated(data: torch.Tensor, dims: list[bool]) -> torch.Tensor:
    return data.repeat(*(2 if each else 1 for each in dims)) if dims else data


def test_a_problem_solved_by_hand() -> None:
    # A coin, fair or of 0.9 for heads, was thrown twice: heads both times.
    prior = torch.tensor([0.5, 0.5]).double().log()
    heads = torch.tensor([0.5, 0.9]).double().log()
    problem = Problem(
        {"kind": 2},
        {"kind": frozenset()},
        {"throws": (2, 1.0)},
        [Table(("kind",), prior), Table(("kind",), heads, frozenset({"throws"}))],
    )
    assert oracles.log_z(problem).exp().item() == pytest.approx(0.5 * 0.25 + 0.5 * 0.81)
    assert oracles.marginals(problem)["kind"].tolist() == pytest.approx([0.25 / 1.06, 0.81 / 1.06])
    best, score = oracles.max_assignment(problem)
    assert best["kind"] == 1
    assert score.exp().item() == pytest.approx(0.5 * 0.81)
    torch.testing.assert_close(oracles.score_assignment(problem, best), score)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("stationary", [True, False])
def test_chains_agree_with_enumeration(steps: int, stationary: bool) -> None:
    states = 3
    initial, likelihood = torch.randn(states).double(), torch.randn(steps, states).double()
    transition = torch.randn(*(() if stationary else (steps - 1,)), states, states).double()
    moves = transition.expand(steps - 1, states, states)
    names = [f"z{t}" for t in range(steps)]
    tables = [Table(("z0",), initial)]
    tables += [Table((names[t],), likelihood[t]) for t in range(steps)]
    tables += [Table((names[t], names[t + 1]), moves[t]) for t in range(steps - 1)]
    problem = Problem(dict.fromkeys(names, states), dict.fromkeys(names, frozenset()), {}, tables)

    log_evidence, posterior, pairs = oracles.forward_backward(initial, transition, likelihood)
    torch.testing.assert_close(log_evidence, oracles.log_z(problem))
    torch.testing.assert_close(posterior, torch.stack(list(oracles.marginals(problem).values())))
    torch.testing.assert_close(pairs.sum(2), posterior[:-1])
    torch.testing.assert_close(pairs.sum(1), posterior[1:])
    path, score = oracles.viterbi(initial, transition, likelihood)
    best, expected = oracles.max_assignment(problem)
    torch.testing.assert_close(score, expected)
    assert path.tolist() == [int(best[name]) for name in names]


INTERESTING = {
    "nested plates": lambda g: any(len(v.plates) == 2 for v in g.variables.values()),
    "sibling plates": lambda g: len({v.plates for v in g.variables.values() if len(v.plates) == 1}) == 2,
    "constant along a plate": lambda g: any(f.plates - set(f.inputs) for f in g.factors),
    "zero probability": lambda g: any((f.data == -torch.inf).any() for f in g.factors),
    "impossible": lambda g: bool(g.factors and oracles.log_z(to_problem(g)) == -torch.inf),
    "variable in no factor": lambda g: bool(set(g.variables) - {n for f in g.factors for n in f.inputs}),
    "plate of one": lambda g: any(p.size == 1 for p in g.plates.values()),
    "state of one": lambda g: any(v.size == 1 for v in g.variables.values()),
    "factor without variables": lambda g: any(not set(f.inputs) & set(g.variables) for f in g.factors),
    "a plate that no variable of the factor is in": lambda g: any(
        f.plates - frozenset().union(*(g.variables[n].plates for n in f.inputs if n in g.variables))
        for f in g.factors
        if set(f.inputs) & set(g.variables)
    ),
}


@pytest.mark.parametrize("kind", sorted(INTERESTING))
def test_strategies_reach_every_kind_of_graph(kind: str) -> None:
    find(
        factor_graphs(),
        INTERESTING[kind],
        settings=settings(max_examples=2000, derandomize=True, database=None),
    )


@given(factor_graphs(max_assignments=500))
def test_strategies_stay_small(graph: FactorGraph) -> None:
    assert to_problem(graph).assignments() <= 500
