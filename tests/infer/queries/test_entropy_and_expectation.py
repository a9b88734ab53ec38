"""Entropies, mutual information and expectations against counting; their gradients against autograd's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import sumout.distributions as dist
from posteriors import Posterior
from posteriors import entropy as count_entropy
from programs import Program, programs
from strategies import factor_graphs, to_problem
from sumout import plate, sample
from sumout.errors import EvidenceError, ImpossibleEvidenceError, ModelError
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.infer import entropy, expectation, log_evidence, mutual_information

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def assert_same_gradients(ours: torch.Tensor, theirs: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    for a, b in zip(
        torch.autograd.grad(ours.sum(), leaves, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(theirs.sum(), leaves, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


@given(factor_graphs())
@settings(max_examples=200)
def test_entropy_of_graphs(graph: FactorGraph) -> None:
    assume(graph.factors)
    posterior = Posterior(to_problem(graph))
    assume(posterior.log_z > -torch.inf)
    torch.testing.assert_close(entropy(graph)(), count_entropy(posterior.weights, 1), **EXACT)
    for name in list(graph.variables)[:2]:
        torch.testing.assert_close(entropy(graph, name)(), count_entropy(posterior.joint([name]), 1), **EXACT)


@given(factor_graphs(max_variables=4, zeros=False))
@settings(max_examples=60)
def test_gradient_of_entropy(graph: FactorGraph) -> None:
    assume(graph.factors)
    leaves = [factor.data.requires_grad_() for factor in graph.factors]
    assert_same_gradients(entropy(graph)(), count_entropy(Posterior(to_problem(graph)).weights, 1), leaves)


@given(programs())
@settings(max_examples=80)
def test_entropy_of_programs(program: Program) -> None:
    ours, theirs = entropy(program)(), count_entropy(Posterior(program.problem()).weights, 1)
    torch.testing.assert_close(ours, theirs, **EXACT)
    assert_same_gradients(ours, theirs, program.parameters())


def test_hard_zeros_have_finite_gradients() -> None:
    logs = torch.tensor([[0.0, -torch.inf], [-1.0, -torch.inf]]).double().requires_grad_()
    graph = FactorGraph.from_tables(
        {"f": (["x", "y"], logs), "g": (["y", "z"], torch.zeros(2, 3).double())}, log=True
    )
    for value in (entropy(graph)(), entropy(graph, ["x", "y"])(), mutual_information(graph, "x", "y")()):
        (grad,) = torch.autograd.grad(value, logs)
        assert grad.isfinite().all()


@given(factor_graphs(max_variables=4), st.data())
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_mutual_information(graph: FactorGraph, data: st.DataObject) -> None:
    assume(len(graph.variables) > 1 and graph.factors)
    a, b, *more = data.draw(st.permutations(sorted(graph.variables)))
    first, second = [a], [b, *more[: data.draw(st.integers(0, 1))]]
    homes = [graph.variables[name].plates for name in (*first, *second)]
    assume(any(all(each <= home for each in homes) for home in homes))
    posterior = Posterior(to_problem(graph))
    assume(posterior.log_z > -torch.inf)
    both = posterior.joint([*first, *second])
    end, middle = both.ndim, both.ndim - len(second)
    of_first = both.sum(tuple(range(middle, end)))
    of_second = both.sum(tuple(range(middle - len(first), middle)))
    expected = (
        count_entropy(of_first, len(first))
        + count_entropy(of_second, len(second))
        - count_entropy(both, len(first) + len(second))
    )
    torch.testing.assert_close(mutual_information(graph, first, second)(), expected, **EXACT)


@given(factor_graphs(max_variables=4, zeros=False), st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_gradient_of_mutual_information(graph: FactorGraph, data: st.DataObject) -> None:
    assume(len(graph.variables) > 1 and graph.factors)
    a, b = data.draw(st.permutations(sorted(graph.variables)))[:2]
    homes = [graph.variables[name].plates for name in (a, b)]
    assume(homes[0] <= homes[1] or homes[1] <= homes[0])
    leaves = [factor.data.requires_grad_() for factor in graph.factors]
    both = Posterior(to_problem(graph)).joint([a, b])
    expected = count_entropy(both.sum(-1), 1) + count_entropy(both.sum(-2), 1) - count_entropy(both, 2)
    ours = mutual_information(graph, a, b)()
    assume((ours > 1e-12).all())  # At zero the derivative is zero, and rounding is all there is.
    assert_same_gradients(ours, expected, leaves)


@given(factor_graphs(max_variables=4), st.data())
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_expectation_of_a_table(graph: FactorGraph, data: st.DataObject) -> None:
    assume(graph.variables and graph.factors)
    names = data.draw(st.permutations(sorted(graph.variables)))[: data.draw(st.integers(1, 2))]
    homes = [graph.variables[name].plates for name in names]
    assume(any(all(each <= home for each in homes) for home in homes))
    posterior = Posterior(to_problem(graph))
    assume(posterior.log_z > -torch.inf)
    table = torch.randn(*(graph.variables[name].size for name in names), 2, dtype=torch.float64)
    joint = posterior.joint(names)
    batch = joint.ndim - len(names)
    expected = (joint.unsqueeze(-1) * table).sum(tuple(range(batch, batch + len(names))))
    torch.testing.assert_close(expectation(graph, names, table)(), expected, **EXACT)


@given(programs(max_statements=4))
@settings(max_examples=80)
def test_expectation_of_a_callable(program: Program) -> None:
    latent = [site for site in program.sites if site.obs is None]
    assume(latent)
    site = latent[-1]
    others = [each for each in latent[:-1] if each.path == site.path[: len(each.path)]][:1]
    names = [site.name, *(each.name for each in others)]

    def function(x: torch.Tensor, *y: torch.Tensor) -> torch.Tensor:
        return (x.double() - 0.3) ** 2 * sum((each + 1.5 for each in y), torch.tensor(1.0).double())

    states = torch.meshgrid(*(torch.arange(each.size).double() for each in (site, *others)), indexing="ij")
    joint = Posterior(program.problem()).joint(names)
    batch = len(site.path)
    expected = (joint * function(*states)).sum(tuple(range(batch, joint.ndim)))
    expected = expected.permute([sorted(site.path).index(name) for name in reversed(site.path)])
    ours = expectation(program, names, function)()
    torch.testing.assert_close(ours, expected, **EXACT)
    assert_same_gradients(ours, expected, program.parameters())


def test_what_is_impossible_does_not_count() -> None:
    graph = FactorGraph.from_tables({"f": (["x", "y"], [[0.5, 0.0], [0.25, 0.25]])})
    table = torch.tensor([[1.0, torch.inf], [torch.tensor(2.0), 4.0]])
    assert expectation(graph, ["x", "y"], table)().item() == pytest.approx(0.5 + 0.5 + 1.0)


def test_gradient_by_the_function() -> None:
    graph = FactorGraph.from_tables({"f": (["x"], [0.25, 0.75])})
    table = torch.tensor([3.0, 5.0], requires_grad=True)
    expectation(graph, "x", table)().backward()
    assert table.grad is not None
    torch.testing.assert_close(table.grad, torch.tensor([0.25, 0.75]))


def test_values_of_sites_with_events() -> None:
    def model() -> None:
        with plate("draws", 2):
            sample("z", dist.OneHotCategorical(torch.tensor([0.25, 0.75])))

    mean = expectation(model, "z", lambda z: z)()
    torch.testing.assert_close(mean, torch.tensor([[0.25, 0.75], [0.25, 0.75]]))


def test_mistakes() -> None:
    graph = FactorGraph.from_tables({"f": (["x", "y"], torch.ones(2, 3))})
    with pytest.raises(ModelError, match=r"shape \(3,\).*x: 2"):
        expectation(graph, "x", torch.ones(3))()
    with pytest.raises(ModelError, match="broadcast"):
        expectation(graph, "x", lambda x: torch.tensor(1.0))()
    with pytest.raises(EvidenceError, match="both groups"):
        mutual_information(graph, "x", ["y", "x"])
    with pytest.raises(EvidenceError, match="no such name"):
        entropy(graph, "w")()
    impossible = FactorGraph.from_tables({"f": (["x"], [0.0, 0.0])})
    for query in (entropy(impossible), entropy(impossible, "x"), expectation(impossible, "x", torch.ones(2))):
        with pytest.raises(ImpossibleEvidenceError):
            query()


def test_a_subsample_has_no_entropy_of_all() -> None:
    graph = FactorGraph(
        (Factor("z", ("z",), torch.zeros(2), frozenset({"p"})),),
        {"z": Variable(2, frozenset({"p"}))},
        {"p": Plate(2, 3.0)},
    )
    assert log_evidence(graph)() > 0
    with pytest.raises(ModelError, match="plate 'p'"):
        entropy(graph)()
    torch.testing.assert_close(entropy(graph, "z")(), torch.full((2,), 2.0).log())
