"""Marginal MAP against a maximum over sums of all assignments."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import oracles
import sumout.distributions as dist
from posteriors import Posterior
from programs import Program, programs
from strategies import factor_graphs, to_problem
from sumout import plate, sample
from sumout.errors import EvidenceError, ImpossibleEvidenceError, MemoryLimitError, ModelError
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.infer import log_evidence, map_assignment, marginal_map
from sumout.infer.solving.leaves import without_leaves
from sumout.settings import settings as switches

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def sums(posterior: Posterior, names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """For each joint state of all copies of some variables: a number for it in every assignment; the log of its sum."""
    numbers = torch.zeros(len(posterior.assignments), dtype=torch.long)
    for name, element in posterior.problem.copies():
        if name in names:
            column = posterior.assignments[:, posterior.columns[name, element]]
            numbers = numbers * posterior.problem.sizes[name] + column
    numbers = numbers.unique(return_inverse=True)[1]
    largest = posterior.log_joint.detach().max()
    weights = (posterior.log_joint - largest).exp()
    totals = torch.zeros(int(numbers.max()) + 1, dtype=torch.float64).index_add(0, numbers, weights)
    return numbers, totals.log() + largest


@given(factor_graphs(), st.data())
@settings(max_examples=300)
def test_marginal_map_of_graphs(graph: FactorGraph, data: st.DataObject) -> None:
    assume(graph.factors and graph.variables)
    names = data.draw(st.lists(st.sampled_from(sorted(graph.variables)), min_size=1, unique=True))
    posterior = Posterior(to_problem(graph))
    if posterior.log_z == -torch.inf:
        with pytest.raises(ImpossibleEvidenceError):
            marginal_map(graph, names)()
        return
    answer = marginal_map(graph, names)()
    assert set(answer) == set(names)
    numbers, totals = sums(posterior, names)
    torch.testing.assert_close(answer.log_prob, totals.max(), **EXACT)
    torch.testing.assert_close(answer.log_evidence, posterior.log_z, **EXACT)
    agree = torch.ones(len(posterior.assignments), dtype=torch.bool)
    for name in names:
        for element in posterior.problem.elements(graph.variables[name].plates):
            place = tuple(element[plate] for plate in sorted(element))
            agree &= posterior.states(name, element) == answer[name][place]
    torch.testing.assert_close(totals[numbers[agree][0]], totals.max(), **EXACT)


@given(programs(max_statements=4), st.data())
@settings(max_examples=80)
def test_marginal_map_of_programs(program: Program, data: st.DataObject) -> None:
    latent = [site for site in program.sites if site.obs is None]
    assume(latent)
    names = data.draw(st.lists(st.sampled_from([site.name for site in latent]), min_size=1, unique=True))
    answer = marginal_map(program, names)()
    _, totals = sums(Posterior(program.problem()), names)
    torch.testing.assert_close(answer.log_prob, totals.max(), **EXACT)
    assume((totals > totals.max() - 1e-9).sum() == 1)
    for a, b in zip(
        torch.autograd.grad(answer.log_prob, program.parameters(), materialize_grads=True, allow_unused=True),
        torch.autograd.grad(totals.max(), program.parameters(), materialize_grads=True, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


@given(factor_graphs(), st.data())
@settings(max_examples=150)
def test_leaves_leave_log_z(graph: FactorGraph, data: st.DataObject) -> None:
    assume(graph.factors and graph.variables)
    names = data.draw(st.lists(st.sampled_from(sorted(graph.variables)), unique=True))
    smaller = without_leaves(graph, names)
    assert set(graph.variables) - set(names) <= set(smaller.variables)
    smaller.check()
    torch.testing.assert_close(log_evidence(smaller)(), oracles.log_z(to_problem(graph)), **EXACT)


def test_all_sites_is_map() -> None:
    tables = {"f": (["x", "y"], torch.rand(3, 4).double()), "g": (["y", "z"], torch.rand(4, 3).double())}
    graph = FactorGraph.from_tables(tables)
    ours, theirs = marginal_map(graph, ["x", "y", "z"])(), map_assignment(graph)()
    assert ours.log_prob == theirs.log_prob
    assert all(ours[name] == theirs[name] for name in theirs)


def test_in_plates_and_given_evidence() -> None:
    def model(data: torch.Tensor) -> None:
        bias = sample("bias", dist.Bernoulli(0.4))
        with plate("coins", 3):
            side = sample("side", dist.Bernoulli(0.2 + 0.6 * bias))
            sample("seen", dist.Bernoulli(0.1 + 0.8 * side), obs=data)

    best = marginal_map(model, "bias")(torch.tensor([1.0, 1.0, 0.0]))
    seen = [0.1 * (1 - p) + 0.9 * p for p in (0.2, 0.8)]
    expected = torch.tensor([0.6 * seen[0] ** 2 * (1 - seen[0]), 0.4 * seen[1] ** 2 * (1 - seen[1])])
    assert best["bias"] == expected.argmax()
    torch.testing.assert_close(best.log_prob, expected.max().log())
    # Summed out, the bias ties the coins together: they are no plate then.
    best = marginal_map(model, "side")(torch.tensor([1.0, 1.0, 0.0]))
    assert best.plan.unrolled == ("coins",)
    assert best["side"].shape == (3,)
    weights = {
        sides: sum(
            prior * math.prod((p if side else 1 - p) for side in sides)
            for prior, p in ((0.6, 0.2), (0.4, 0.8))
        )
        * math.prod((0.9 if side == seen else 0.1) for side, seen in zip(sides, (1, 1, 0), strict=True))
        for sides in itertools.product((0, 1), repeat=3)
    }
    assert tuple(best["side"].int().tolist()) == max(weights, key=weights.__getitem__)
    torch.testing.assert_close(best.log_prob.exp(), torch.tensor(max(weights.values())))


@pytest.mark.parametrize("home", ["r", "pr"])
def test_a_sum_outside_of_a_plate_comes_before_a_maximum_inside(home: str) -> None:
    """Also where a variable outside that is maximised itself is in the same table."""
    logs = torch.tensor([[0.0, 0.3], [0.2, 0.0]], dtype=torch.float64).unsqueeze(-1)  # of a, b and c
    graph = FactorGraph(
        (Factor("f", ("a", "b", "c"), logs, frozenset(home)),),
        {"a": Variable(2, frozenset("r")), "b": Variable(2), "c": Variable(1)},
        {"p": Plate(2), "r": Plate(2)},
    )
    best = marginal_map(graph, ["a", "c"])()
    assert best.plan.unrolled == ("r",)
    times = 2 if "p" in home else 1
    sums = {
        states: sum(math.exp(times * sum(logs[a, b, 0].item() for a in states)) for b in range(2))
        for states in itertools.product(range(2), repeat=2)
    }
    assert tuple(best["a"].tolist()) == max(sums, key=sums.__getitem__)
    torch.testing.assert_close(best.log_prob.exp().item(), max(sums.values()), **EXACT)


def test_the_width_is_that_of_the_constrained_order() -> None:
    """A star: its centre summed out ties all leaves together."""
    size = 6
    tables = {f"f{leaf}": (["centre", f"x{leaf}"], torch.rand(2, 2)) for leaf in range(size)}
    graph = FactorGraph.from_tables(tables)
    answer = marginal_map(graph, [f"x{leaf}" for leaf in range(size)])()
    assert answer.width == size - 1 + 1
    assert marginal_map(graph, ["centre"])().width == 1
    with switches.override(memory_limit=200), pytest.raises(MemoryLimitError):
        marginal_map(graph, [f"x{leaf}" for leaf in range(size)])()


def test_unobserved_effects_do_not_tie_their_causes() -> None:
    size = 40
    tables = {}
    for cause in range(size):
        tables[f"x{cause}"] = ([f"x{cause}"], torch.tensor([0.3, 0.7]))
    for cause in range(size - 1):
        table = torch.rand(2, 2, 2)
        tables[f"y{cause}"] = (
            [f"x{cause}", f"x{cause + 1}", f"y{cause}"],
            table / table.sum(-1, keepdim=True),
        )
    table = torch.rand(*[2] * 5, 2)
    names = [f"y{cause}" for cause in (0, 9, 18, 27, 36)]
    tables["w"] = ([*names, "w"], table / table.sum(-1, keepdim=True))
    answer = marginal_map(FactorGraph.from_tables(tables), [f"x{cause}" for cause in range(size)])()
    assert answer.width == 5  # that of the largest table
    torch.testing.assert_close(answer.log_prob, size * torch.tensor(0.7).log())


def test_mistakes() -> None:
    graph = FactorGraph.from_tables({"f": (["x"], [0.5, 0.5])})
    with pytest.raises(EvidenceError, match="no such name"):
        marginal_map(graph, ["y"])()
    with pytest.raises(EvidenceError, match="at least one"):
        marginal_map(graph, [])
    scaled = FactorGraph(
        (Factor("z", ("z",), torch.zeros(2), frozenset({"p"})),),
        {"z": Variable(2, frozenset({"p"}))},
        {"p": Plate(2, 3.0)},
    )
    with pytest.raises(ModelError, match="plate 'p'"):
        marginal_map(scaled, ["z"])()
