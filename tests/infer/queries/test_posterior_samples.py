"""Posterior samples: each one's log-probability is exact, none is impossible, and their frequencies are right."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings

import sumout.distributions as dist
from posteriors import Posterior
from programs import Program, programs
from strategies import factor_graphs, to_problem
from sumout import markov, plate, sample
from sumout.errors import ImpossibleEvidenceError, MemoryLimitError
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.infer import marginals, posterior_samples
from sumout.settings import settings as switches

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def check_frequencies(rows: torch.Tensor, weights: torch.Tensor) -> None:
    """Counts of assignments against their probabilities, by the G statistic.

    Assignments are put into bins that each expect at least 10 samples. Then 2 N KL(found | exact) is about chi-squared
    with (bins - 1) degrees of freedom, whose upper tail beyond ``d + 2 sqrt(d t) + 2 t`` is below ``exp(-t)`` (Laurent
    and Massart 2000, lemma 1): with t = 23, a right sampler fails once in 10^10 runs.
    """
    count = len(rows)
    order = weights.argsort(descending=True)
    bins = torch.zeros(len(weights), dtype=torch.long)
    number, expected = 0, 0.0
    for index in order.tolist():
        bins[index] = number
        expected += count * weights[index].item()
        if expected >= 10:
            number, expected = number + 1, 0.0
    bins = bins.clamp(max=max(0, number - 1))
    found = torch.bincount(bins[rows], minlength=number).double()
    exact = torch.zeros(max(1, number), dtype=torch.float64).index_add_(0, bins, weights)
    freedom, t = max(1, number) - 1, 23.0
    statistic = 2 * torch.special.xlogy(found, found / (count * exact)).sum()
    assert statistic <= freedom + 2 * math.sqrt(freedom * t) + 2 * t


@given(factor_graphs())
@settings(max_examples=200)
def test_samples_of_graphs(graph: FactorGraph) -> None:
    assume(graph.factors and graph.variables)
    posterior = Posterior(to_problem(graph))
    if posterior.log_z == -torch.inf:
        with pytest.raises(ImpossibleEvidenceError):
            posterior_samples(graph, 2)()
        return
    drawn = posterior_samples(graph, 400)()
    torch.testing.assert_close(drawn.log_evidence, posterior.log_z, **EXACT)
    for name, variable in graph.variables.items():
        assert drawn[name].shape == (400, *(graph.plates[each].size for each in sorted(variable.plates)))
    rows = posterior.rows_of(drawn)
    assert (posterior.log_joint[rows] > -torch.inf).all()
    torch.testing.assert_close(drawn.log_joint, posterior.log_joint[rows], **EXACT)
    torch.testing.assert_close(drawn.log_prob, posterior.log_joint[rows] - posterior.log_z, **EXACT)
    check_frequencies(rows, posterior.weights)


@given(programs())
@settings(max_examples=100)
def test_samples_of_programs(program: Program) -> None:
    problem = program.problem()
    assume(problem.sizes)
    drawn = posterior_samples(program, 300)()
    posterior = Posterior(problem)
    values = {}
    for site in program.sites:
        if site.obs is None:
            value = drawn[site.name]
            assert value.shape == (300, *(program.plates[name] for name in reversed(site.path)))
            assert value.is_floating_point() == site.bernoulli
            values[site.name] = value.permute(
                0, *(1 + list(reversed(site.path)).index(name) for name in sorted(site.path))
            )
    rows = posterior.rows_of(values)
    torch.testing.assert_close(drawn.log_joint, posterior.log_joint[rows].detach(), **EXACT)
    check_frequencies(rows, posterior.weights.detach())


def test_copies_of_a_plate_are_drawn_independently() -> None:
    def model() -> None:
        with plate("coins", 3):
            sample("side", dist.Bernoulli(0.5))  # One table for all three.

    drawn = posterior_samples(model, 4000)()["side"].long()
    counts = torch.bincount(drawn @ torch.tensor([1, 2, 4]), minlength=8)
    # A count is binomial(4000, 1/8): Hoeffding's bound for a distance of 200 is 2 exp(-2 * 200^2 / 4000) = 4e-9.
    assert ((counts - 500).abs() < 200).all()


def test_a_long_chain_with_hard_zeros() -> None:
    steps = 300
    table = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]], dtype=torch.float64)

    def model() -> None:
        state = torch.tensor(0)
        for t in markov(range(steps)):
            state = sample(f"x{t}", dist.Categorical(table[state], validate_args=False))

    drawn = posterior_samples(model, 50)()
    path = torch.stack([drawn[f"x{t}"] for t in range(steps)])
    assert (table[path[:-1], path[1:]] > 0).all()
    torch.testing.assert_close(
        drawn.log_prob, torch.full((50,), steps * math.log(0.5)).double(), atol=1e-3, rtol=0
    )


def test_many_samples_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sumout.execute.walk.WALK_CHUNK", 7)
    tables = {"f": (["x", "y"], torch.rand(3, 4).double()), "g": (["y", "z"], torch.rand(4, 3).double())}
    graph = FactorGraph.from_tables(tables)
    posterior = Posterior(to_problem(graph))
    drawn = posterior_samples(graph, 5000)()
    rows = posterior.rows_of(drawn)
    torch.testing.assert_close(drawn.log_joint, posterior.log_joint[rows], **EXACT)
    check_frequencies(rows, posterior.weights)


def test_seeds_and_generators() -> None:
    graph = FactorGraph.from_tables({"f": (["x", "y"], torch.rand(3, 4))})
    query = posterior_samples(graph, 100)
    torch.manual_seed(7)
    first = query()["x"]
    torch.manual_seed(7)
    assert torch.equal(query()["x"], first)
    assert not torch.equal(query()["x"], first)
    own = torch.Generator().manual_seed(7)
    assert torch.equal(posterior_samples(graph, 100, generator=own)()["x"], first)


def test_samples_given_evidence() -> None:
    graph = FactorGraph.from_tables({"f": (["x", "y"], [[0.4, 0.0], [0.3, 0.3]])})
    drawn = posterior_samples(graph, 20)(evidence={"y": 1})
    assert set(drawn) == {"x"}
    assert drawn["x"].tolist() == [1] * 20
    assert drawn.log_prob.tolist() == [0.0] * 20
    assert "log probability" in str(drawn)


def test_subsampled_plates_weigh_on_what_is_outside() -> None:
    """With a plate's scale, outside states have the scaled posterior and inside states follow given them."""
    prior, inside = torch.tensor([0.3, 0.7]).double(), torch.tensor([[0.2, 0.5], [0.6, 0.1]]).double()
    graph = FactorGraph(
        (
            Factor("x", ("x",), prior.log()),
            Factor("z", ("x", "z"), inside.log(), frozenset({"p"})),
        ),
        {"x": Variable(2), "z": Variable(2, frozenset({"p"}))},
        {"p": Plate(2, 3.0)},
    )
    drawn = posterior_samples(graph, 6000)()
    probs = marginals(graph)()["x"].probs
    expected = prior * inside.sum(-1) ** 6
    torch.testing.assert_close(probs, expected / expected.sum(), **EXACT)
    # Hoeffding: 2 exp(-2 * 6000 * 0.05^2) = 2e-13.
    assert (drawn["x"].double().mean() - probs[1]).abs() < 0.05
    given_x = drawn["z"][drawn["x"] == 1].double().mean()
    assert (given_x - 1 / 7).abs() < 0.05


def test_wrong_numbers_of_samples() -> None:
    graph = FactorGraph.from_tables({"f": (["x"], [0.5, 0.5])})
    for count in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            posterior_samples(graph, count)  # type: ignore[arg-type]
    with switches.override(memory_limit=10_000), pytest.raises(MemoryLimitError, match="1,000,000 samples"):
        posterior_samples(graph, 1_000_000)()
