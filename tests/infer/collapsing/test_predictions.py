"""Predictions: closed forms by the evidence of the value if it were observed, samples by densities and moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError
from sumout.poutine import collapse

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}
Y = torch.tensor([1.0, 6.0, 2.0], dtype=D)
GROUPS = torch.tensor([0, 2, 1])


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=D)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=D)


def in_a_plate() -> None:
    """A discrete site in the plate chooses among priors, and among predictions."""
    with plate("rows", 3):
        z: Any = sample("z", dist.Bernoulli(number(0.4)))
        rate: Any = sample("rate", dist.Gamma(2 + 6 * z, number(2.0)))
        sample("y", dist.Poisson(rate), obs=Y)
        sample("same", dist.Poisson(2 * rate))
        sample("chosen", dist.Poisson(rate * (1 + 3 * z)))
        sample("wide", dist.Normal(z, rate.rsqrt()))
        sample("wait", dist.Exponential(rate))


def fresh_choice() -> None:
    """The discrete site that chooses belongs to the new row alone."""
    rate: Any = sample("rate", dist.Gamma(number(2.0), 2.0))
    with plate("rows", 3):
        sample("y", dist.Poisson(rate), obs=Y)
    with plate("new", 1):
        z: Any = sample("z", dist.Bernoulli(number(0.4)))
        sample("n", dist.Poisson(rate * (1 + 3 * z)))
        sample("trials", dist.Normal(z, rate.rsqrt() * (1 + z)))


def picked_elements() -> None:
    """Each new row picks a group, whose parameters another discrete site chose."""
    with plate("groups", 3):
        z: Any = sample("z", dist.Bernoulli(number(0.4)))
        rate: Any = sample("rate", dist.Gamma(2 + 6 * z, number(2.0)))
        sample("y", dist.Poisson(rate), obs=Y)
    with plate("new", 3, dim=-2):
        w: Any = sample("w", dist.Bernoulli(number(0.3)))
        sample("n", dist.Poisson(rate[GROUPS].unsqueeze(-1) * (1 + w)))


def topics() -> None:
    """Which element is used is discrete itself, with collapsed probabilities."""
    weights: Any = sample("weights", dist.Dirichlet(numbers(1.0, 2.0, 3.0)))
    with plate("topics", 3):
        bias: Any = sample("bias", dist.Beta(numbers(1.0, 2.0, 3.0), 2.0))
    k: Any = sample("k", dist.Categorical(weights))
    sample("y", dist.Bernoulli(bias[k]), obs=number(1.0))
    other: Any = sample("other", dist.Categorical(weights))
    sample("n", dist.Binomial(4, bias[other]))


def local_normals() -> None:
    with plate("rows", 3):
        z: Any = sample("z", dist.Bernoulli(number(0.1)))
        x: Any = sample("x", dist.Normal(number(0.0), 1.0))
        sample("y", dist.Normal(x, torch.where(z == 1, 5.0, 0.5)), obs=Y)
        sample("n", dist.Normal(x + z, torch.where(z == 1, 5.0, 0.5)))


def vectors() -> None:
    """Normal-Wishart, of which the prediction is a Student distribution."""
    matrix: Any = sample("matrix", dist.Wishart(number(6.0), torch.eye(2, dtype=D)))
    mean: Any = sample("mean", dist.MultivariateNormal(torch.ones(2, dtype=D), precision_matrix=0.5 * matrix))
    with plate("rows", 3):
        sample(
            "y", dist.MultivariateNormal(mean, precision_matrix=matrix), obs=torch.stack([Y, Y.flip(0)], -1)
        )
    sample("n", dist.MultivariateNormal(mean, precision_matrix=matrix))
    sample("o", dist.MultivariateNormal(torch.zeros(2, dtype=D), precision_matrix=2 * matrix))


CASES: list[tuple[Callable[[], None], dict[str, list[Tensor]]]] = [
    (
        in_a_plate,
        {
            "same": [numbers(0.0, 3.0, 9.0)],
            "chosen": [numbers(4.0, 0.0, 2.0)],
            "wide": [numbers(-0.3, 0.5, 2.0)],
            "wait": [numbers(0.1, 2.0, 0.7)],
        },
    ),
    (fresh_choice, {}),
    (picked_elements, {}),
    (topics, {"n": [number(float(value)) for value in range(5)]}),
    (local_normals, {"n": [numbers(0.3, -2.0, 7.0)]}),
    (vectors, {"n": [numbers(0.3, -2.0)], "o": [numbers(1.3, 0.4)]}),
]


@pytest.mark.parametrize(("program", "points"), CASES, ids=[each.__name__ for each, _ in CASES])
def test_closed_forms(program: Callable[[], None], points: dict[str, list[Tensor]]) -> None:
    """A prediction's density is the evidence that it would add; elements of plates are independent here."""
    found = infer.marginals(collapse(program))()
    for name, values in points.items():
        for value in values:
            observed = poutine.condition(program, data={name: value})
            gain = infer.log_evidence(collapse(observed))() - found.log_evidence
            torch.testing.assert_close(found[name].log_prob(value).sum(), gain, **EXACT)


def test_closed_forms_with_choices_in_plates_of_their_own() -> None:
    """There the evidence of an observed value would be a sum over all joint choices."""
    new = infer.marginals(collapse(fresh_choice))()["n"]
    value = number(7.0)
    exact = 0.6 * dist.GammaPoisson(number(11.0), 5.0).log_prob(value).exp()
    exact = exact + 0.4 * dist.GammaPoisson(number(11.0), 1.25).log_prob(value).exp()
    torch.testing.assert_close(new.log_prob(value).exp(), exact.expand(1), **EXACT)
    found = infer.marginals(collapse(picked_elements))()
    prior = numbers(0.6, 0.4).log() + dist.GammaPoisson(numbers(2.0, 8.0), 2.0).log_prob(Y.unsqueeze(-1))
    weights = torch.softmax(prior, -1)
    shape = numbers(2.0, 8.0) + Y.unsqueeze(-1)
    for row, group in enumerate(GROUPS.tolist()):
        exact = number(0.0)
        for z in range(2):
            for rate, weight in ((3.0, 0.7), (1.5, 0.3)):
                each = dist.GammaPoisson(shape[group, z], rate).log_prob(value).exp()
                exact = exact + weights[group, z] * weight * each
        torch.testing.assert_close(found["n"].log_prob(value).exp()[row, 0], exact, **EXACT)


@pytest.mark.parametrize("program", [each for each, _ in CASES], ids=[each.__name__ for each, _ in CASES])
def test_samples_have_the_program_s_density_and_the_right_moments(program: Callable[[], None]) -> None:
    """Means within five standard errors."""
    count = 4000
    found = infer.marginals(collapse(program))()
    drawn = infer.posterior_samples(collapse(program), count, generator=torch.Generator().manual_seed(0))()
    assert set(drawn) == set(found)
    for number_of in range(3):
        values = {name: value[number_of] for name, value in drawn.items()}
        nodes = poutine.trace(poutine.condition(program, data=values)).get_trace().nodes
        total = sum(site["log_prob_sum"] for site in nodes.values() if site["type"] == "sample")
        torch.testing.assert_close(drawn.log_joint[number_of], total, rtol=1e-8, atol=1e-8)
    for name, value in drawn.items():
        marginal = found[name]
        if name in ("k", "other") or name.startswith("matrix"):
            continue
        error = (marginal.variance / count).sqrt()
        assert bool(((value.mean(0) - marginal.mean).abs() < 5 * error).all()), name


def odd_ones() -> None:
    rate: Any = sample("rate", dist.Gamma(number(6.0), 2.0))
    bias: Any = sample("bias", dist.Beta(number(2.0), 2.0))
    x: Any = sample("x", dist.Normal(number(0.0), 0.5))
    with plate("rows", 3):
        sample("y", dist.Poisson(rate), obs=Y)
        sample("u", dist.Normal(x, 1.0), obs=Y / 6)
        sample("v", dist.Bernoulli(bias), obs=numbers(1.0, 0.0, 1.0))
    with plate("new", 2):
        z: Any = sample("z", dist.Bernoulli(number(0.4)))
        sample("both", dist.Poisson(rate * bias))
        sample("rare", dist.Poisson((x + z).exp()))
        sample("tied", dist.Normal(x + 3 * z, torch.where(z == 1, 2.0, 0.5)))
        tail: Any = sample("tail", dist.StudentT(number(7.0), x, 1 / rate))
        sample("after", dist.Normal(tail, 1.0))
    sample("counts", dist.Multinomial(4, torch.stack([bias, 1 - bias])))


def test_what_has_no_closed_form_is_drawn_all_the_same() -> None:
    """Whatever the program makes of collapsed sites, also of several, of other predictions, and by discrete sites."""
    found = infer.marginals(collapse(odd_ones))()
    assert {"both", "rare", "tail", "after"}.isdisjoint(list(found))
    assert "rare             no closed form; posterior_samples draws it" in str(found)
    with pytest.raises(ModelError, match=r"Site 'rare' \(Poisson\).*prediction.*posterior_samples"):
        infer.marginals(collapse(odd_ones), "rare")()
    count = 600
    drawn = infer.posterior_samples(collapse(odd_ones), count, generator=torch.Generator().manual_seed(0))()
    for number_of in range(3):
        values = {name: value[number_of] for name, value in drawn.items()}
        nodes = poutine.trace(poutine.condition(odd_ones, data=values)).get_trace().nodes
        total = sum(site["log_prob_sum"] for site in nodes.values() if site["type"] == "sample")
        torch.testing.assert_close(drawn.log_joint[number_of], total, rtol=1e-8, atol=1e-8)
    assert torch.equal(drawn["counts"].sum(-1), torch.full((count,), 4.0, dtype=D))
    shapes = {name: tuple(value.shape[1:]) for name, value in drawn.items()}
    assert shapes["both"] == shapes["after"] == (2,)
    means = {
        "both": found["rate"].mean * found["bias"].mean,
        "tied": found["x"].mean + 3 * 0.4,
        "rare": (found["x"].mean + found["x"].variance / 2).exp() * (0.6 + 0.4 * number(1.0).exp()),
    }
    for name, mean in means.items():
        error = drawn[name].std(0) / count**0.5
        assert bool(((drawn[name].mean(0) - mean).abs() < 5 * error).all()), name


def test_predictions_leave_the_evidence_alone() -> None:
    def plain() -> None:
        rate: Any = sample("rate", dist.Gamma(number(6.0), 2.0))
        bias: Any = sample("bias", dist.Beta(number(2.0), 2.0))
        x: Any = sample("x", dist.Normal(number(0.0), 0.5))
        with plate("rows", 3):
            sample("y", dist.Poisson(rate), obs=Y)
            sample("u", dist.Normal(x, 1.0), obs=Y / 6)
            sample("v", dist.Bernoulli(bias), obs=numbers(1.0, 0.0, 1.0))

    torch.testing.assert_close(
        infer.log_evidence(collapse(odd_ones))(), infer.log_evidence(collapse(plain))(), **EXACT
    )


X = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=D)


def new_rows_with_outliers() -> None:
    """A regression with groups; a fresh discrete site in each new row chooses its noise."""
    with plate("features", 2):
        slope: Any = sample("slope", dist.Normal(number(0.0), 1.0))
    with plate("groups", 3):
        offset: Any = sample("offset", dist.Normal(number(0.0), 2.0))
        sample("y", dist.Normal(X @ slope + offset, 1.0), obs=Y)
    with plate("new", 3):
        z: Any = sample("z", dist.Bernoulli(number(0.3)))
        sample("n", dist.Normal(2 * X @ slope + offset[GROUPS], torch.where(z == 1, 4.0, 1.0)))
        sample("level", dist.LogNormal(0.1 * offset[GROUPS] + z, 0.2))


def vectors_with_outliers() -> None:
    k: Any = sample("k", dist.Bernoulli(number(0.5)))
    eye = torch.eye(2, dtype=D)
    mean: Any = sample("mean", dist.MultivariateNormal(k.unsqueeze(-1).expand(*k.shape, 2).to(D), eye))
    sample("y", dist.MultivariateNormal(mean, eye), obs=Y[:2])
    with plate("new", 2):
        z: Any = sample("z", dist.Bernoulli(number(0.3)))
        root = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=D)
        sample("n", dist.MultivariateNormal(mean + z.unsqueeze(-1), scale_tril=root))


@pytest.mark.parametrize(
    ("program", "points"),
    [
        (new_rows_with_outliers, {"n": numbers(0.0, 3.0, -5.0), "level": numbers(0.5, 1.5, 4.0)}),
        (vectors_with_outliers, {"n": torch.stack([numbers(0.5, -1.0), numbers(2.0, 3.0)])}),
    ],
)
def test_normal_predictions_chosen_in_plates(program: Callable[[], None], points: dict[str, Tensor]) -> None:
    """Mixtures of what they are where the choice is known, and they are part of the integral."""
    found = infer.marginals(collapse(program))()
    for name, point in points.items():
        density = number(0.0)
        for z, weight in ((0.0, 0.7), (1.0, 0.3)):
            values = torch.full((len(point),), z)
            known = infer.marginals(collapse(poutine.condition(program, data={"z": values})))()[name]
            density = density + weight * known.log_prob(point).exp()
        torch.testing.assert_close(found[name].log_prob(point).exp(), density, **EXACT)
    count = 2000
    drawn = infer.posterior_samples(collapse(program), count, generator=torch.Generator().manual_seed(0))()
    error = (found["n"].variance / count).sqrt()
    assert bool(((drawn["n"].mean(0) - found["n"].mean).abs() < 5 * error).all())


def test_a_prediction_of_an_element_that_was_chosen_in_its_plate() -> None:
    """New rows pick an element with its own discrete site, and have one of their own."""

    def program() -> None:
        with plate("rows", 3):
            z: Any = sample("z", dist.Bernoulli(number(0.2)))
            x: Any = sample("x", dist.Normal(number(0.0), 1.0))
            sample("y", dist.Normal(x, torch.where(z == 1, 5.0, 0.5)), obs=Y)
        with plate("new", 3, dim=-2):
            v: Any = sample("v", dist.Bernoulli(number(0.3)))
            sample("n", dist.Normal(x[GROUPS].unsqueeze(-1) + v, torch.where(v == 1, 3.0, 1.0)))

    found = infer.marginals(collapse(program))()
    logs = numbers(0.8, 0.2).log() + dist.Normal(number(0.0), (1 + numbers(0.5, 5.0) ** 2).sqrt()).log_prob(
        Y.unsqueeze(-1)
    )
    weights = torch.softmax(logs, -1)
    variances = 1 / (1 + 1 / numbers(0.5, 5.0) ** 2)
    means = variances * Y.unsqueeze(-1) / numbers(0.5, 5.0) ** 2
    point = number(0.7)
    for row, group in enumerate(GROUPS.tolist()):
        density = number(0.0)
        for z in range(2):
            for v, prior, noise in ((0, 0.7, 1.0), (1, 0.3, 3.0)):
                each = dist.Normal(means[group, z] + v, (variances[z] + noise**2).sqrt())
                density = density + weights[group, z] * prior * each.log_prob(point).exp()
        torch.testing.assert_close(found["n"].log_prob(point).exp()[row, 0], density, **EXACT)
