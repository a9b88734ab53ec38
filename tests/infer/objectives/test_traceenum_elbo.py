"""TraceEnum_ELBO against sums written out by hand, and unbiased where the guide draws."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from sumout.effects import Messenger
from sumout.effects.handlers import mask, scale, trace
from sumout.errors import EnumerationError, ImpossibleEvidenceError, MemoryLimitError, PlateError
from sumout.infer import log_evidence, marginals
from sumout.infer.objectives.trace_elbo import Trace_ELBO
from sumout.infer.objectives.traceenum_elbo import TraceEnum_ELBO
from sumout.plan import clear_plan_cache, plan_cache_info

X = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)
CHOICE = {"enumerate": "parallel"}


@pytest.fixture(autouse=True)
def _own_parameters() -> Iterator[None]:
    with sumout.get_param_store().scope():
        yield


def param(name: str, value: Any, constraint: Any = dist.constraints.real) -> Tensor:
    return sumout.param(name, torch.as_tensor(value, dtype=torch.float64), constraint=constraint)


def no_guide(*args: Any) -> None:
    """Everything is summed out."""


def gradients(loss: Tensor) -> dict[str, Tensor]:
    leaves = dict(sumout.get_param_store().named_parameters())
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if each is None else each
        for (name, leaf), each in zip(leaves.items(), found, strict=True)
    }


def assert_same_gradients(loss: Tensor, exact: Tensor) -> None:
    assert loss.item() == pytest.approx(exact.item(), rel=1e-10)
    expected = gradients(exact)
    for name, each in gradients(loss).items():
        torch.testing.assert_close(each, expected[name], rtol=1e-9, atol=1e-10, msg=f"{{}}: {name}".format)


def mixture(x: Tensor) -> None:
    rate = param("rate", 0.3, dist.constraints.unit_interval)
    with sumout.plate("data", len(x)):
        z = sumout.sample("z", dist.Bernoulli(rate), infer=CHOICE)
        sumout.sample("x", dist.Normal(param("loc", 0.5) * z, 1.0), obs=x)


def mixture_by_hand(x: Tensor) -> Tensor:
    """The log-evidence of each point."""
    rate, loc = sumout.get_param_store()["rate"], sumout.get_param_store()["loc"]
    zero = (1 - rate).log() + dist.Normal(0.0, 1.0).log_prob(x)
    one = rate.log() + dist.Normal(loc, 1.0).log_prob(x)
    return torch.logaddexp(zero, one)


def test_without_a_guide_the_loss_is_the_negative_log_evidence() -> None:
    elbo = TraceEnum_ELBO()
    assert_same_gradients(elbo.differentiable_loss(mixture, no_guide, X), -mixture_by_hand(X).sum())
    assert_same_gradients(elbo.differentiable_loss(mixture, no_guide, X), -log_evidence(mixture)(X))


def test_in_a_mask_and_a_subsampled_plate() -> None:
    kept = torch.tensor([True, False, True])

    def model(x: Tensor) -> None:
        with sumout.plate("data", 30, subsample=torch.tensor([4, 9, 2])):
            z = sumout.sample(
                "z", dist.Bernoulli(param("rate", 0.3, dist.constraints.unit_interval)), infer=CHOICE
            )
            with mask(mask=kept):
                sumout.sample("x", dist.Normal(param("loc", 0.5) * z, 1.0), obs=x)

    loss = TraceEnum_ELBO().differentiable_loss(model, no_guide, X)
    # Where x is masked, z sums to one.
    assert_same_gradients(loss, -10 * mixture_by_hand(X)[kept].sum())


def test_a_scale_is_a_power_of_the_sum() -> None:
    for power in (0.3, 1 / 1234567, 1e-14, 1e9):
        loss = TraceEnum_ELBO().differentiable_loss(scale(mixture, scale=power), no_guide, X)
        assert_same_gradients(loss / power, -mixture_by_hand(X).sum())


def test_the_mean_over_all_subsamples_is_the_whole() -> None:
    def model(x: Tensor, chosen: tuple[int, ...]) -> None:
        rate = param("rate", 0.3, dist.constraints.unit_interval)
        with sumout.plate("data", len(x), subsample=torch.tensor(chosen)) as indices:
            z = sumout.sample("z", dist.Bernoulli(rate), infer=CHOICE)
            sumout.sample("x", dist.Normal(param("loc", 0.5) * z, 1.0), obs=x[indices])

    elbo = TraceEnum_ELBO()
    pairs = list(itertools.combinations(range(3), 2))
    losses = [elbo.differentiable_loss(model, no_guide, X, pair) for pair in pairs]
    assert_same_gradients(torch.stack(losses).mean(), -mixture_by_hand(X).sum())


# ------------------------------------------------------------------------------------------ sites that are drawn


class Fixed(Messenger):
    """Draws given values."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg.name in self.values and not msg.is_observed:
            msg.value = self.values[msg.name]


def drawn_and_summed(x: Tensor) -> None:
    """``top`` and ``local`` are drawn by the guide, ``z`` is summed out."""
    top = sumout.sample("top", dist.Bernoulli(param("p", 0.4, dist.constraints.unit_interval)))
    with sumout.plate("data", len(x)):
        local = sumout.sample("local", dist.Bernoulli(0.2 + 0.5 * top))
        z = sumout.sample("z", dist.Bernoulli(0.1 + 0.3 * top + 0.2 * local), infer=CHOICE)
        sumout.sample("x", dist.Normal(param("loc", 0.5) * z, 1.0), obs=x)
        sumout.sample("y", dist.Normal(local, 1.0), obs=x)


def drawing(x: Tensor) -> None:
    top = sumout.sample("top", dist.Bernoulli(logits=param("top_logit", 0.3)))
    with sumout.plate("data", len(x)):
        sumout.sample("local", dist.Bernoulli(logits=param("logits", [0.1, -0.4, 0.8]) + 0.5 * top))


def draws() -> list[dict[str, Tensor]]:
    rows = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)
    return [{"top": row[0], "local": row[1:]} for row in rows]


def test_score_function_gradients_are_unbiased() -> None:
    exact = torch.zeros((), dtype=torch.float64)
    mean = torch.zeros((), dtype=torch.float64)
    estimated: dict[str, Any] = {}
    elbo = TraceEnum_ELBO()
    for values in draws():
        guide = Fixed(values)(drawing)
        log_q = trace(guide).get_trace(X).log_prob_sum()
        # The model with the draw observed, by an exact query.
        evidence = log_evidence(sumout.condition(drawn_and_summed, data=values))(X)
        exact = exact + log_q.exp() * (evidence - log_q)
        loss = elbo.differentiable_loss(drawn_and_summed, guide, X)
        mean = mean + log_q.exp().item() * loss.item()
        for name, each in gradients(loss).items():
            estimated[name] = estimated.get(name, 0.0) + log_q.exp().item() * each
    assert mean.item() == pytest.approx(-exact.item(), rel=1e-10)
    for name, each in gradients(-exact).items():
        torch.testing.assert_close(estimated[name], each, rtol=1e-9, atol=1e-10)


def test_vectorized_particles_are_the_mean_of_single_ones() -> None:
    """Value and pathwise gradients; score-function estimates differ by terms of mean zero."""
    singles = []
    for values in draws():
        with torch.enable_grad():
            loss = TraceEnum_ELBO().differentiable_loss(drawn_and_summed, Fixed(values)(drawing), X)
        singles.append((loss.item(), gradients(loss)))
    together = {
        "top": torch.stack([each["top"] for each in draws()]).reshape(-1, 1),
        "local": torch.stack([each["local"] for each in draws()]),
    }
    elbo = TraceEnum_ELBO(len(singles), max_plate_nesting=1, vectorize_particles=True)
    loss = elbo.differentiable_loss(drawn_and_summed, Fixed(together)(drawing), X)
    assert loss.item() == pytest.approx(sum(each for each, _ in singles) / len(singles), rel=1e-12)
    found = gradients(loss)
    for name in ("p", "loc"):
        torch.testing.assert_close(found[name], torch.stack([grads[name] for _, grads in singles]).mean(0))


def test_without_marks_it_is_trace_elbo() -> None:
    def model(x: Tensor) -> None:
        z = sumout.sample("z", dist.Normal(param("m", 0.1), 1.0))
        with sumout.plate("data", len(x)):
            w = sumout.sample("w", dist.Bernoulli(torch.tensor(0.3).double()))
            sumout.sample("x", dist.Normal(z + w, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        sumout.sample("z", dist.Normal(param("loc", 0.3), 0.8))
        with sumout.plate("data", len(x)):
            sumout.sample("w", dist.Bernoulli(logits=param("logits", [0.1, -0.4, 0.8])))

    torch.manual_seed(0)
    expected = Trace_ELBO().differentiable_loss(model, guide, X)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="found no site to enumerate"):
        loss = TraceEnum_ELBO().differentiable_loss(model, guide, X)
    assert_same_gradients(loss, expected)
    torch.manual_seed(0)
    quiet = TraceEnum_ELBO(strict_enumeration_warning=False)
    assert quiet.loss(model, guide, X) == pytest.approx(expected.item(), rel=1e-12)


def test_marginals_given_what_the_guide_draws() -> None:
    values = {"top": torch.ones(()).double(), "local": torch.tensor([0.0, 1.0, 1.0]).double()}
    found = TraceEnum_ELBO().compute_marginals(drawn_and_summed, Fixed(values)(drawing), X)
    assert set(found) == {"z"}
    expected = marginals(sumout.condition(drawn_and_summed, data=values))(X)
    torch.testing.assert_close(found["z"].probs, expected["z"].probs)
    with pytest.raises(ValueError, match="num_particles=2"):
        TraceEnum_ELBO(2).compute_marginals(drawn_and_summed, drawing, X)
    with pytest.raises(ImpossibleEvidenceError, match="probability zero"):
        TraceEnum_ELBO().compute_marginals(impossible, no_guide)


# ------------------------------------------------------------------------------------------------------ economy


def test_the_second_step_neither_plans_nor_tries_again() -> None:
    runs = []

    def model(x: Tensor) -> None:
        runs.append(1)
        mixture(x)

    elbo = TraceEnum_ELBO()
    clear_plan_cache()
    elbo.loss_and_grads(model, no_guide, X)
    assert len(runs) == 4  # one trial run finds the plates, and two compare
    made = plan_cache_info().misses
    elbo.loss_and_grads(model, no_guide, X + 1)
    assert len(runs) == 5
    assert plan_cache_info().misses == made


def test_the_loss_alone_keeps_no_gradients() -> None:
    assert isinstance(TraceEnum_ELBO().loss(mixture, no_guide, X), float)
    assert all(leaf.grad is None for _, leaf in sumout.get_param_store().named_parameters())


def impossible() -> None:
    z = sumout.sample("z", dist.Bernoulli(0.5), infer=CHOICE)
    sumout.factor("never", torch.where(z < 2, -torch.inf, 0.0))


def test_impossible_observations_give_an_infinite_loss() -> None:
    assert TraceEnum_ELBO().loss(impossible, no_guide) == torch.inf


# ---------------------------------------------------------------------------------------------------- wrong use


def test_sites_that_neither_draws_nor_sums_are_told() -> None:
    def model(x: Tensor) -> None:
        sumout.sample("w", dist.Normal(0.0, 1.0))
        mixture(x)

    with pytest.warns(UserWarning, match=r"the guide lacks are drawn from the prior: \['w'\]"):
        TraceEnum_ELBO().loss(model, no_guide, X)


def test_too_small_a_nesting_and_undeclared_dimensions() -> None:
    with pytest.raises(EnumerationError, match="nesting is 0. Give max_plate_nesting=1, or leave it out"):
        TraceEnum_ELBO(max_plate_nesting=0).loss(mixture, no_guide, X)

    def chain() -> None:  # as many states as there are elements in the plate
        z: Any = torch.tensor(0)
        for t in sumout.markov(range(2)):
            z = sumout.sample(
                f"z{t}", dist.Categorical(torch.tensor([[0.3, 0.7], [0.6, 0.4]])[z]), infer=CHOICE
            )
            with sumout.plate(f"p{t}", 2):
                sumout.sample(f"x{t}", dist.Normal(z, 1.0), obs=torch.zeros(2))

    with pytest.raises(EnumerationError, match="nesting is 0. Give max_plate_nesting=1, or leave it out"):
        TraceEnum_ELBO(max_plate_nesting=0).loss(chain, lambda: None)

    def guide(x: Tensor) -> None:
        sumout.sample("w", dist.Normal(torch.zeros(3), 1.0))

    def model(x: Tensor) -> None:
        sumout.sample("w", dist.Normal(torch.zeros(3), 1.0))
        mixture(x)

    with pytest.raises(PlateError, match="'w' varies along dim -1"):
        TraceEnum_ELBO().loss(model, guide, X)


def test_the_memory_limit_comes_before_the_work() -> None:
    def model() -> None:
        zs = [sumout.sample(f"z{i}", dist.Bernoulli(0.5), infer=CHOICE) for i in range(8)]
        sumout.factor("together", sum(zs))

    with sumout.settings.override(memory_limit=1000), pytest.raises(MemoryLimitError, match="'z"):
        TraceEnum_ELBO().loss(model, no_guide)
