"""Joint marginals and factor beliefs against counting, on random plated graphs and random programs."""

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
from sumout.errors import EvidenceError, ImpossibleEvidenceError, PlanError
from sumout.factors import FactorGraph
from sumout.infer import factor_beliefs, marginals

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@given(factor_graphs(), st.data())
@settings(max_examples=200)
def test_joint_marginals_of_graphs(graph: FactorGraph, data: st.DataObject) -> None:
    assume(graph.factors and graph.variables)
    names = st.lists(st.sampled_from(sorted(graph.variables)), min_size=1, max_size=3, unique=True)
    groups = data.draw(st.lists(names, min_size=1, max_size=3))
    posterior = Posterior(to_problem(graph))
    wanted = [*map(tuple, groups), sorted(graph.variables)[0]]
    if posterior.log_z == -torch.inf:
        with pytest.raises(ImpossibleEvidenceError):
            marginals(graph, sites=wanted)()
        return
    answer = marginals(graph, sites=wanted)()
    torch.testing.assert_close(answer.log_evidence, posterior.log_z, **EXACT)
    for group in wanted:
        names_of = (group,) if isinstance(group, str) else group
        torch.testing.assert_close(answer[group].probs, posterior.joint(names_of), **EXACT)


@given(programs(), st.data())
@settings(max_examples=100)
def test_joint_marginals_of_programs(program: Program, data: st.DataObject) -> None:
    latent = [site for site in program.sites if site.obs is None]
    assume(latent)
    deepest = data.draw(st.sampled_from(latent))
    above = [site for site in latent if site.path == deepest.path[: len(site.path)]]
    others = data.draw(st.lists(st.sampled_from(above), unique_by=lambda site: site.name, max_size=2))
    group = tuple(dict.fromkeys([deepest.name, *(site.name for site in others)]))
    table = marginals(program, sites=[group])()[group]
    assert table.names == group
    assert table.batch_shape == tuple(program.plates[name] for name in reversed(deepest.path))
    expected = Posterior(program.problem()).joint(group)
    order = [sorted(deepest.path).index(name) for name in reversed(deepest.path)]
    expected = expected.permute((*order, *range(len(order), expected.ndim)))
    torch.testing.assert_close(table.probs, expected, **EXACT)
    torch.testing.assert_close(
        table.marginal(deepest.name).probs,
        marginals(program, deepest.name)()[deepest.name].probs
        if not deepest.bernoulli
        else torch.stack([1 - (p := marginals(program, deepest.name)()[deepest.name].probs), p], -1),
        **EXACT,
    )


@given(factor_graphs(max_variables=5))
@settings(max_examples=150)
def test_factor_beliefs(graph: FactorGraph) -> None:
    assume(graph.factors)
    posterior = Posterior(to_problem(graph))
    assume(posterior.log_z > -torch.inf)
    scopes = [[name for name in factor.inputs if name in graph.variables] for factor in graph.factors]
    beliefs = factor_beliefs(graph)()
    assert list(beliefs) == [factor.name for factor in graph.factors]
    for factor, scope in zip(graph.factors, scopes, strict=True):
        expected = posterior.joint(scope) if scope else torch.ones((), dtype=torch.float64)
        assert beliefs[factor.name].names == tuple(scope)
        torch.testing.assert_close(beliefs[factor.name].probs, expected, **EXACT)


@given(factor_graphs(max_variables=4, zeros=False), st.data())
@settings(max_examples=60)
def test_gradients_of_joint_marginals(graph: FactorGraph, data: st.DataObject) -> None:
    assume(len(graph.variables) > 1 and graph.factors)
    group = tuple(data.draw(st.permutations(sorted(graph.variables)))[:2])
    leaves = [factor.data.requires_grad_() for factor in graph.factors]
    ours = marginals(graph, sites=[group])()[group].probs
    theirs = Posterior(to_problem(graph)).joint(group)
    weights = torch.rand_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), leaves, allow_unused=True, materialize_grads=True),
        torch.autograd.grad((theirs * weights).sum(), leaves, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


def coins() -> None:
    bias = sample("bias", dist.Bernoulli(0.25))
    with plate("coins", 2):
        sample("side", dist.Bernoulli(0.25 + 0.5 * bias))
    with plate("dice", 3):
        sample("die", dist.Categorical(torch.ones(6)))


def test_one_table_for_each_element() -> None:
    table = marginals(coins, sites=[("side", "bias")])()["side", "bias"]
    expected = torch.tensor([[0.75 * 0.75, 0.25 * 0.25], [0.75 * 0.25, 0.25 * 0.75]])
    torch.testing.assert_close(table.probs, expected.expand(2, 2, 2))
    assert table.supports["side"].tolist() == [0.0, 1.0]
    assert str(table).splitlines()[:2] == ["element  side  bias  probability", "0        0     0     0.5625"]


def test_plates_that_are_not_nested() -> None:
    def model() -> None:
        bias = sample("bias", dist.Bernoulli(0.25))
        with plate("coins", 2, dim=-1):
            sample("side", dist.Bernoulli(0.25 + 0.5 * bias))
        with plate("dice", 3, dim=-2):
            sample("die", dist.Categorical(torch.tensor([[0.5, 0.5], [0.1, 0.9]])[bias.long()]))

    answer = marginals(model, sites=[("side", "die")])()
    of_die = torch.tensor([[0.5, 0.5], [0.1, 0.9]])
    of_side = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    expected = torch.einsum("b,bs,bd->sd", torch.tensor([0.75, 0.25]), of_side, of_die)
    assert answer.plan.unrolled
    torch.testing.assert_close(answer["side", "die"].probs, expected.expand(3, 2, 2, 2))


def test_what_has_no_joint_table() -> None:
    with pytest.raises(PlanError, match=r"'dice' and 'side' in 'coins', both at dim -1.*dim=-2"):
        marginals(coins, sites=[("side", "die")])()
    with pytest.raises(EvidenceError, match="twice"):
        marginals(coins, sites=[("bias", "bias")])()
    with pytest.raises(EvidenceError, match="at least one"):
        marginals(coins, sites=[()])()
    with pytest.raises(EvidenceError, match="Did you mean 'bias'"):
        marginals(coins, sites=[("side", "biass")])()
    with pytest.raises(EvidenceError, match="not in this table"):
        marginals(coins, sites=[("side", "bias")])()["side", "bias"].marginal("die")


def test_labels_are_shown() -> None:
    graph = FactorGraph.from_tables(
        {"f": (["rain", "wet"], [[0.5, 0.0], [0.0, 0.5]])},
        states={"rain": ["no", "yes"], "wet": ["dry", "wet"]},
    )
    shown = str(marginals(graph, sites=["rain", ("rain", "wet")])())
    assert "no: 0.5000  yes: 0.5000" in shown
    assert "yes   wet  0.5000" in shown
