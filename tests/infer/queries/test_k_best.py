"""The k best assignments and max-marginals against a sorted list of all assignments."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sumout.distributions as dist
from posteriors import Posterior
from programs import Program, programs
from strategies import factor_graphs, to_problem
from sumout import plate, sample
from sumout.errors import ImpossibleEvidenceError, ModelError
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.infer import k_best, map_assignment, max_marginals

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@given(factor_graphs(max_assignments=500), st.integers(1, 12))
@settings(max_examples=150)
def test_k_best_of_graphs(graph: FactorGraph, k: int) -> None:
    assume(graph.factors and graph.variables)
    posterior = Posterior(to_problem(graph))
    if posterior.log_z == -torch.inf:
        with pytest.raises(ImpossibleEvidenceError):
            k_best(graph, k)()
        return
    best = k_best(graph, k)()
    possible = posterior.log_joint[posterior.log_joint > -torch.inf]
    expected = possible.sort(descending=True).values[:k]
    torch.testing.assert_close(best.log_prob, expected, **EXACT)
    assert (best.log_prob.diff() <= 0).all()
    rows = posterior.rows_of(best)
    assert len(rows.unique()) == len(rows)
    torch.testing.assert_close(posterior.log_joint[rows], best.log_prob, **EXACT)
    torch.testing.assert_close(best.log_evidence, posterior.log_z, **EXACT)


@given(programs(max_assignments=300))
@settings(max_examples=50)
def test_k_best_of_programs(program: Program) -> None:
    problem = program.problem()
    assume(problem.sizes)
    best = k_best(program, 4)()
    posterior = Posterior(problem)
    torch.testing.assert_close(best.log_prob, posterior.log_joint.sort(descending=True).values[:4], **EXACT)
    values = {}
    for site in program.sites:
        if site.obs is None:
            path = list(reversed(site.path))
            values[site.name] = best[site.name].permute(0, *(1 + path.index(name) for name in sorted(path)))
    rows = posterior.rows_of(values)
    assert len(rows.unique()) == len(rows)
    torch.testing.assert_close(posterior.log_joint[rows], best.log_prob, **EXACT)
    for a, b in zip(
        torch.autograd.grad(
            best.log_prob.sum(), program.parameters(), materialize_grads=True, allow_unused=True
        ),
        torch.autograd.grad(
            posterior.log_joint[rows].sum(), program.parameters(), materialize_grads=True, allow_unused=True
        ),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


def test_all_assignments_where_all_are_equal() -> None:
    def model() -> None:
        with plate("coins", 3):
            sample("side", dist.Bernoulli(0.5))

    best = k_best(model, 20)()
    assert best["side"].shape == (8, 3)
    assert len(best["side"].unique(dim=0)) == 8
    torch.testing.assert_close(best.log_prob, torch.full((8,), 0.125).log())


@given(factor_graphs())
@settings(max_examples=200)
def test_max_marginals_of_graphs(graph: FactorGraph) -> None:
    assume(graph.factors)
    posterior = Posterior(to_problem(graph))
    assume(posterior.log_z > -torch.inf)
    answer = max_marginals(graph)()
    torch.testing.assert_close(answer.log_prob, posterior.log_joint.max(), **EXACT)
    for name, element in posterior.problem.copies():
        at = dict(zip(sorted(graph.variables[name].plates), element, strict=True))
        states = posterior.states(name, at)
        expected = torch.stack(
            [posterior.log_joint[states == state].max() for state in range(graph.variables[name].size)]
        )
        torch.testing.assert_close(answer[name][element], expected, **EXACT)


def test_max_marginals_have_the_shape_of_their_site() -> None:
    def model() -> None:
        with plate("columns", 2, dim=-2), plate("rows", 3, dim=-1):
            sample("z", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))

    answer = max_marginals(model)()
    assert answer["z"].shape == (2, 3, 3)
    assert "0, 0" in str(answer)


@given(factor_graphs(max_variables=4, zeros=False))
@settings(max_examples=50)
def test_gradient_of_the_maximum(graph: FactorGraph) -> None:
    assume(graph.factors and graph.variables)
    leaves = [
        (factor.data + 1e-3 * torch.randn_like(factor.data)).requires_grad_() for factor in graph.factors
    ]
    factors = tuple(
        Factor(f.name, f.inputs, leaf, f.plates) for f, leaf in zip(graph.factors, leaves, strict=True)
    )
    tracked = FactorGraph(factors, graph.variables, graph.plates)
    scores = Posterior(to_problem(tracked)).log_joint
    ours, theirs = map_assignment(tracked)().log_prob, scores.max()
    assume((scores > scores.max() - 1e-9).sum() == 1)  # Elsewhere the derivative is one-sided.
    for a, b in zip(
        torch.autograd.grad(ours, leaves, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(theirs, leaves, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


def test_mistakes() -> None:
    graph = FactorGraph.from_tables({"f": (["x"], [0.5, 0.5])})
    for k in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="whole number"):
            k_best(graph, k)  # type: ignore[arg-type]
    scaled = FactorGraph(
        (Factor("z", ("z",), torch.zeros(2), frozenset({"p"})),),
        {"z": Variable(2, frozenset({"p"}))},
        {"p": Plate(2, 3.0)},
    )
    for query in (k_best(scaled, 2), max_marginals(scaled)):
        with pytest.raises(ModelError, match="plate 'p'"):
            query()


def test_it_prints_with_labels() -> None:
    graph = FactorGraph.from_tables({"f": (["x"], [0.25, 0.75])}, states={"x": ["no", "yes"]})
    assert str(k_best(graph, 2)()).splitlines()[1].split() == ["0", "yes", "-0.2877"]
