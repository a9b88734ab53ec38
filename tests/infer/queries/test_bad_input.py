"""What a user may get wrong, and what is said: found, rule, remedy; and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout import FactorGraph, factor, infer, markov, plate, sample, settings
from sumout.effects import am_i_wrapped
from sumout.errors import (
    DuplicateSiteError,
    EnumerationError,
    EvidenceError,
    ImpossibleEvidenceError,
    MemoryLimitError,
    ModelError,
    PlateError,
)


def colliding_plates() -> None:
    with plate("docs", 3, dim=-1), plate("words", 4, dim=-1):
        sample("z", dist.Bernoulli(0.5))


def plate_unlike_distribution() -> None:
    with plate("data", 4):
        sample("x", dist.Normal(torch.zeros(5), 1.0), obs=torch.zeros(5))


def plate_unlike_data() -> None:
    with plate("data", 4):
        sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(5))


def twice_the_same_site() -> None:
    sample("z", dist.Bernoulli(0.5))
    sample("z", dist.Bernoulli(0.5))


def infinite_support() -> None:
    sample("n", dist.Poisson(3.0), infer={"enumerate": "parallel"})


def continuous_latent() -> None:
    sample("loc", dist.Normal(0.0, 1.0))


def undeclared_dimension() -> None:
    sample("x", dist.Normal(torch.zeros(3), 1.0), obs=torch.zeros(3))


def history_too_short() -> None:
    before = last = torch.tensor(0)
    for t in markov(range(4)):
        before, last = last, sample(f"x{t}", dist.Categorical(torch.ones(2, 2, 2)[last, before]))


def joint_event() -> None:
    sample("z", dist.Bernoulli(0.5).expand([3]).to_event(1))


def infinite_density() -> None:
    z = sample("z", dist.Categorical(logits=torch.tensor([0.0, -torch.inf])))
    factor("f", torch.tensor([0.0, torch.inf])[z])


def control_flow() -> None:
    z = sample("z", dist.Bernoulli(0.5))
    sample("x", dist.Bernoulli(0.9 if z else 0.2))


def not_a_number() -> None:
    sample("x", dist.Normal(torch.tensor(torch.nan), 1.0, validate_args=False), obs=torch.tensor(0.0))


def data_outside_the_support() -> None:
    for i in range(3):
        sample(f"x{i}", dist.Bernoulli(0.5), obs=torch.tensor(float(i)))


@pytest.mark.parametrize(
    ("program", "error", "told"),
    [
        (colliding_plates, PlateError, ["'docs' and 'words'", "dim -1", "dim=-2"]),
        (plate_unlike_distribution, PlateError, ["'x'", "'data'", "(5,)", "size 4"]),
        (plate_unlike_data, PlateError, ["'x'", "'data'", "(5,)", "size 4"]),
        (twice_the_same_site, DuplicateSiteError, ["'z'", "f'z_{i}'"]),
        (infinite_support, EnumerationError, ["'n'", "Poisson", "Observe"]),
        (continuous_latent, EnumerationError, ["'loc'", "Normal", "TraceEnum_ELBO"]),
        (undeclared_dimension, PlateError, ["'x'", "dim -1 (size 3)", "plate", ".to_event()"]),
        (history_too_short, EnumerationError, ["'x2'", "history"]),
        (joint_event, EnumerationError, ["'z'", "Bernoulli", "(3,)", "plate", ".to_event()"]),
        (infinite_density, ModelError, ["infinite", "'f'"]),
        (control_flow, EnumerationError, ["'z'", "torch.where", "condition"]),
        (not_a_number, ModelError, ["NaN", "'x'"]),
        (data_outside_the_support, ValueError, ["'x2'", "support"]),
    ],
)
def test_programs(program: Callable[[], Any], error: type[Exception], told: list[str]) -> None:
    with pytest.raises(error) as raised:
        infer.log_evidence(program)()
    for each in told:
        assert each in str(raised.value)
    # The state is as before: another program runs, in the same plates' names.
    assert not am_i_wrapped()
    assert infer.log_evidence(fair_coins)() == 0.0


def fair_coins() -> None:
    with plate("data", 4), plate("docs", 3):
        sample("z", dist.Bernoulli(0.5))


def contradiction(x: torch.Tensor) -> None:
    z = sample("z", dist.Bernoulli(0.5))
    sample("x", dist.Categorical(logits=torch.stack([0.0 * z, z * 0.0 - torch.inf], -1)), obs=x)


def test_impossible_observations_are_a_result_for_evidence_and_an_error_for_the_posterior() -> None:
    assert infer.log_evidence(contradiction)(torch.tensor(1)) == -torch.inf
    for query in (infer.marginals, infer.map_assignment):
        with pytest.raises(ImpossibleEvidenceError, match="probability zero"):
            query(contradiction)(torch.tensor(1))


def weather() -> FactorGraph:
    return FactorGraph.from_tables(
        {"rain": (["rain"], [0.8, 0.2]), "wet|rain": (["rain", "wet"], [[1.0, 0.0], [0.2, 0.8]])},
        states={"rain": ["no", "yes"], "wet": ["no", "yes"]},
    )


def test_evidence_of_a_graph() -> None:
    with pytest.raises(EvidenceError, match="'rainy'.*Did you mean 'rain'"):
        infer.marginals(weather())(evidence={"rainy": "yes"})
    with pytest.raises(EvidenceError, match="'yess'.*no, yes.*Did you mean 'yes'"):
        infer.marginals(weather())(evidence={"rain": "yess"})
    with pytest.raises(EvidenceError, match="2"):
        infer.marginals(weather())(evidence={"rain": 2})
    with pytest.raises(EvidenceError, match=r"'wett'.*Did you mean 'wet'"):
        infer.marginals(weather(), sites=["wett"])()
    with pytest.raises(EvidenceError, match="mapping.*'rain'"):
        infer.marginals(weather())(evidence="rain")
    with pytest.raises(ImpossibleEvidenceError):
        infer.marginals(weather())(evidence={"rain": "no", "wet": "yes"})
    assert infer.log_evidence(weather())(evidence={"rain": "no", "wet": "yes"}) == -torch.inf
    with pytest.raises(TypeError, match="evidence="):
        infer.marginals(weather())({"rain": "yes"})


def sequential_or_not() -> None:
    z = sample("z", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})
    sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=torch.tensor(1.0))


def test_a_query_that_does_not_join_runs_says_so() -> None:
    with pytest.raises(EnumerationError, match=r"sequentially \('z'\).*joint marginals.*in parallel"):
        infer.factor_beliefs(sequential_or_not)()


def test_a_plan_over_the_memory_limit_is_refused_before_anything_is_allocated() -> None:
    names = "abcdefgh"
    pairs = [(a, b) for a in names for b in names if a < b]
    graph = FactorGraph.from_tables({a + b: ([a, b], torch.ones(60, 60)) for a, b in pairs})
    with pytest.raises(MemoryLimitError, match=r"GiB.*'[a-h]'.*memory_limit"):
        infer.log_evidence(graph)()
    small = FactorGraph.from_tables({"ab": (["a", "b"], torch.ones(60, 60)), "b": (["b"], torch.ones(60))})
    with settings.override(memory_limit=100), pytest.raises(MemoryLimitError, match="limit is 100 B"):
        infer.log_evidence(small)()
    assert infer.log_evidence(small)().exp() == pytest.approx(3600)


def test_what_is_no_target_and_no_name() -> None:
    with pytest.raises(TypeError, match=r"a FactorGraph, not dict.*from_pgmpy"):
        infer.marginals({"x": [0.5, 0.5]})  # type: ignore[arg-type]
    for query in (infer.marginals, infer.entropy, infer.marginal_map):
        with pytest.raises(EvidenceError, match="3 is no name of a variable"):
            query(weather(), 3)()
        with pytest.raises(EvidenceError, match="3 is no name of a variable"):
            query(weather(), ["rain", 3])()
    group = infer.marginals(weather(), [["rain", "wet"]])()
    assert list(group) == [("rain", "wet")]
    assert infer.expectation(weather(), "rain", [1.0, 2.0])() == pytest.approx(1.2)


def test_labels_of_rows() -> None:
    best = infer.map_assignment(weather())(evidence={"wet": ["no", None, "yes"]})
    assert best.labels == {"rain": ["no", "no", "yes"], "wet": ["no", "no", "yes"]}
    assert "[no, no, yes]" in str(best).replace("'", "")


def test_a_name_that_has_no_answer() -> None:
    answer = infer.marginals(weather())()
    with pytest.raises(KeyError, match="Did you mean 'rain'"):
        answer["rainn"]


@pytest.mark.parametrize("size", [2, 3])
def test_data_without_a_plate_are_refused(size: int) -> None:
    """Two numbers would meet the two values of the coin along one dimension, and give a wrong answer."""

    def model() -> None:
        z = sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        sample("x", dist.Normal(z, 1.0), obs=torch.zeros(size))

    message = r"Site 'x' varies along dim -1 \(size \d\), which belongs to no plate"
    for nesting in (None, 1):
        with pytest.raises(PlateError, match=message):
            infer.log_evidence(model, max_plate_nesting=nesting)()
        with pytest.raises(PlateError, match=message):
            infer.TraceEnum_ELBO(max_plate_nesting=nesting).loss(model, lambda: None)
    for query in (
        infer.log_evidence(model, max_plate_nesting=0),
        infer.TraceEnum_ELBO(max_plate_nesting=0).loss,
    ):
        args = (model, lambda: None) if query.__name__ == "loss" else ()
        with pytest.raises(
            (ModelError, RuntimeError),
            match="Site 'x' has log-probability|Site 'x' varies along dim|must match the size",
        ):
            query(*args)


@pytest.mark.parametrize("size", [1, 2])
def test_values_of_a_plate_are_not_used_outside_of_it(size: int) -> None:
    """Along one dimension they would be taken for the elements of the other plate, and summed out twice."""
    data = torch.zeros(size)
    move = torch.tensor([[0.9, 0.1], [0.3, 0.7]])

    def into_another_plate() -> None:
        with plate("a", size, dim=-1):
            z = sample("z", dist.Categorical(move[0]))
        with plate("b", size, dim=-1):
            sample("y", dist.Normal(z, 1.0), obs=data)

    def outside() -> None:
        with plate("a", 1):
            z = sample("z", dist.Categorical(move[0]))
        sample("y", dist.Normal(z, 1.0), obs=torch.tensor(0.3))

    def a_plate_for_each_step() -> None:
        x = torch.tensor(0)
        for t in markov(range(3)):
            with plate(f"p_{t}", size):
                x = sample(f"x_{t}", dist.Categorical(move[x]))
                sample(f"y_{t}", dist.Normal(x, 1.0), obs=data)

    for program, site in ((into_another_plate, "y"), (outside, "y"), (a_plate_for_each_step, "x_1")):
        with pytest.raises(
            PlateError, match=f"Site '{site}' depends on site '[zx]_?0?', which lives in plate"
        ):
            infer.log_evidence(program, max_plate_nesting=1)()
