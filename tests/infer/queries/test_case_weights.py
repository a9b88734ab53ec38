"""Scales that differ along a plate: each element counts as often as its weight says.

With whole numbers as weights that is a program in which elements are repeated, which knows nothing of scales.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout import factor, infer, markov, plate, poutine, sample
from sumout.errors import ImpossibleEvidenceError, ModelError, PlateError

EXACT = {"rtol": 1e-9, "atol": 1e-9}
X = torch.tensor([0.3, 1.2, -0.5]).double()
WHOLE = torch.tensor([2.0, 1.0, 3.0]).double()
WEIGHTS = torch.tensor([0.4, 2.5, 1.0]).double()

Make = Callable[..., Callable[[], Any]]


def real(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def around(weights: Tensor | None) -> Any:
    return nullcontext() if weights is None else poutine.scale(scale=weights)


def local(x: Tensor, weights: Tensor | None, theta: Tensor) -> Callable[[], Any]:
    """Nothing but what is in the elements."""

    def model() -> None:
        with plate("cases", len(x)), around(weights):
            z = sample("z", dist.Bernoulli(theta))
            y = sample("y", dist.Categorical(torch.stack([0.2 + 0.3 * z, 0.3 - 0.1 * z, 0.5 - 0.2 * z], -1)))
            sample("x", dist.Normal(z - y, 1.0), obs=x)

    return model


def below(x: Tensor, weights: Tensor | None, theta: Tensor) -> Callable[[], Any]:
    """What is in the elements depends on a site outside."""

    def model() -> None:
        g = sample("g", dist.Bernoulli(theta))
        with plate("cases", len(x)), around(weights):
            z = sample("z", dist.Bernoulli(0.3 + 0.4 * g))
            sample("x", dist.Normal(z - g, 1.0), obs=x)
            sample("u", dist.Normal(g, 1.0), obs=x**2)
            sample("constant", dist.Bernoulli(0.3 + 0.1 * g), obs=real(1.0))

    return model


def deep(x: Tensor, weights: Tensor | None, theta: Tensor) -> Callable[[], Any]:
    """A plate around the weighted one, and one inside."""
    inside = torch.linspace(-1.0, 1.0, 4).double().reshape(2, 1, 2)

    def model() -> None:
        with plate("outer", 2, dim=-1) as j:
            h = sample("h", dist.Bernoulli(theta * (1 + j) / 2))
            with plate("cases", len(x), dim=-2), around(None if weights is None else weights[:, None]):
                z = sample("z", dist.Bernoulli(0.3 + 0.4 * h))
                with plate("inner", 2, dim=-3):
                    e = sample("e", dist.Bernoulli(0.6 - 0.3 * z))
                    sample("x", dist.Normal(e + z, 1.0), obs=inside + x[:, None])

    return model


def chains(x: Tensor, weights: Tensor | None, theta: Tensor, vectorized: bool = False) -> Callable[[], Any]:
    """Sequences that count differently."""
    steps = {"dim": -2, "name": "time"} if vectorized else {}
    data = torch.stack([x, x + 1, -x])

    def model() -> None:
        with plate("cases", len(x), dim=-1), around(weights):
            z: Any = real(0.0)
            for t in markov(range(3), **steps):
                z = sample(f"z_{t}", dist.Bernoulli(theta * (0.3 + 0.6 * z)))
                sample(f"x_{t}", dist.Normal(z, 1.0), obs=data[t])

    return model


def at_once(x: Tensor, weights: Tensor | None, theta: Tensor) -> Callable[[], Any]:
    return chains(x, weights, theta, vectorized=True)


MODELS: list[Make] = [local, below, deep, chains, at_once]
named = pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)


def repeated(values: Tensor) -> Tensor:
    return values.repeat_interleave(WHOLE.long())


@named
def test_a_weight_is_a_number_of_copies(make: Make) -> None:
    theta = real(0.35).requires_grad_()
    found = infer.log_evidence(make(X, WHOLE, theta))()
    expected = infer.log_evidence(make(repeated(X), None, theta))()
    torch.testing.assert_close(found, expected, **EXACT)
    one, other = (torch.autograd.grad(each, theta)[0] for each in (found, expected))
    torch.testing.assert_close(one, other, **EXACT)
    loss = infer.TraceEnum_ELBO().differentiable_loss(
        infer.config_enumerate(make(X, WHOLE, theta)), lambda: None
    )
    torch.testing.assert_close(-loss, expected, **EXACT)
    torch.testing.assert_close(-torch.autograd.grad(loss, theta)[0], other, **EXACT)


@named
def test_posteriors_are_those_of_one_copy(make: Make) -> None:
    theta = real(0.35)
    weighted, copies = make(X, WHOLE, theta), make(repeated(X), None, theta)
    found, expected = infer.marginals(weighted)(), infer.marginals(copies)()
    torch.testing.assert_close(found.log_evidence, expected.log_evidence, **EXACT)
    assert set(found) == set(expected)
    first = torch.tensor([0, 2, 3])  # of the copies of each element
    for name, table in expected.tables.items():
        dim = next((dim for dim, size in enumerate(table.shape[:-1]) if size == 6), None)
        table = table if dim is None else table.index_select(dim, first)
        torch.testing.assert_close(found.tables[name], table, **EXACT)
        entropies = infer.entropy(weighted, name)()
        torch.testing.assert_close(entropies, -(table * table.log()).sum(-1), **EXACT)


@named
def test_the_most_probable_assignment_counts_copies(make: Make) -> None:
    theta = real(0.35)
    found = infer.map_assignment(make(X, WHOLE, theta))()
    expected = infer.map_assignment(make(repeated(X), None, theta))()
    torch.testing.assert_close(found.log_prob, expected.log_prob, **EXACT)
    torch.testing.assert_close(found.log_evidence, expected.log_evidence, **EXACT)
    drawn = poutine.trace(infer.infer_discrete(make(X, WHOLE, theta), temperature=0)).get_trace()
    for name in found:
        if name in drawn.nodes:
            assert torch.equal(drawn.nodes[name].value, found[name])


def by_hand() -> tuple[Tensor, Tensor, Tensor]:
    """Of ``below``: the log-evidence, the probability of g, and those of z."""
    totals, chances = [], []
    for g, log_prior in ((0.0, real(0.65).log()), (1.0, real(0.35).log())):
        z = real([0.0, 1.0]).reshape(2, 1)
        inside = dist.Bernoulli(real(0.3 + 0.4 * g)).log_prob(z) + dist.Normal(z - g, 1.0).log_prob(X)
        inside = (
            inside
            + dist.Normal(real(g), 1.0).log_prob(X**2)
            + dist.Bernoulli(real(0.3 + 0.1 * g)).probs.log()
        )
        totals.append(log_prior + (WEIGHTS * inside.logsumexp(0)).sum())
        chances.append(inside.softmax(0)[1])
    weights = torch.stack(totals).softmax(0)
    return torch.stack(totals).logsumexp(0), weights[1], weights @ torch.stack(chances)


def test_weights_of_any_size() -> None:
    model = below(X, WEIGHTS, real(0.35))
    value, of_g, of_z = by_hand()
    torch.testing.assert_close(infer.log_evidence(model)(), value, **EXACT)
    found = infer.marginals(model)()
    torch.testing.assert_close(found["g"].probs, of_g, **EXACT)
    torch.testing.assert_close(found["z"].probs, of_z, **EXACT)
    torch.manual_seed(0)
    drawn = infer.posterior_samples(model, 40_000)()
    torch.testing.assert_close(drawn["g"].mean(), of_g, rtol=0, atol=0.015)
    torch.testing.assert_close(drawn["z"].mean(0), of_z, rtol=0, atol=0.015)
    beliefs = infer.factor_beliefs(model)()
    torch.testing.assert_close(beliefs["z"].probs.sum(1)[:, 1], of_z, **EXACT)
    assert set(beliefs) == {"g", "z", "x", "u", "constant"}
    told = infer.mutual_information(model, "g", "z")()
    pair = infer.marginals(model, [("g", "z")])()["g", "z"].probs
    independent = pair.sum(-1, keepdim=True) * pair.sum(-2, keepdim=True)
    torch.testing.assert_close(told, (pair * (pair / independent).log()).sum((-1, -2)), **EXACT)
    drawn_one = [poutine.trace(infer.infer_discrete(model)).get_trace().nodes["g"].value for _ in range(300)]
    assert abs(torch.stack(drawn_one).double().mean() - of_g) < 0.12


def test_a_potential_with_weights() -> None:
    def make(x: Tensor, weights: Tensor | None) -> Callable[[], None]:
        def model() -> None:
            loc = sample("loc", dist.Normal(real(0.0), 1.0))
            with plate("cases", len(x)), around(weights):
                z = sample("z", dist.Bernoulli(real(0.3)))
                sample("x", dist.Normal(loc * z, 1.0), obs=x)

        return model

    params = {"loc": real(0.7)}
    found, expected = (infer.potential_fn(each)(params) for each in (make(X, WHOLE), make(repeated(X), None)))
    torch.testing.assert_close(found, expected, **EXACT)

    def guide() -> None:
        sample("loc", dist.Normal(real(0.5), 1.0))

    for parallel in (True, False):
        weights = []
        for model in (make(X, WHOLE), make(repeated(X), None)):
            torch.manual_seed(0)
            weights.append(infer.Importance(model, guide, 5, parallel=parallel).run().log_weights)
        torch.testing.assert_close(*weights, **EXACT)


def test_a_run_for_each_value_of_a_site_outside() -> None:
    def model() -> None:
        g = sample("g", dist.Bernoulli(real(0.35)), infer={"enumerate": "sequential"})
        with plate("cases", 3), around(WEIGHTS):
            z = sample("z", dist.Bernoulli(real(0.7 if g else 0.3)))
            sample("x", dist.Normal(z - g, 1.0), obs=X)
            sample("u", dist.Normal(g, 1.0), obs=X**2)
            sample("constant", dist.Bernoulli(0.3 + 0.1 * g), obs=real(1.0))

    value, of_g, of_z = by_hand()
    found = infer.marginals(model)()
    torch.testing.assert_close(found.log_evidence, value, **EXACT)
    torch.testing.assert_close(found["g"].probs, of_g, **EXACT)
    torch.testing.assert_close(found["z"].probs, of_z, **EXACT)


@pytest.mark.parametrize(
    "query",
    [
        infer.entropy,
        infer.max_marginals,
        lambda model: infer.k_best(model, 2),
        lambda model: infer.marginal_map(model, ["z"]),
    ],
)
def test_what_is_about_assignments_refuses_powers(query: Any) -> None:
    with pytest.raises(ModelError, match="a power .of factor 'z'"):
        query(local(X, WEIGHTS, real(0.3)))()


def test_other_weights_in_one_sum() -> None:
    def uneven() -> None:
        with plate("cases", 3):
            z = sample("z", dist.Bernoulli(real(0.3)))
            with around(WEIGHTS):
                sample("x", dist.Normal(z, 1.0), obs=X)

    with pytest.raises(PlateError, match="scale for each element of 'cases'.*has not: site 'z'"):
        infer.log_evidence(uneven)()

    def across() -> None:
        others = plate("others", 2, dim=-2)
        with others:
            y = sample("y", dist.Bernoulli(real(0.3)))
        with plate("cases", 3, dim=-1), around(WEIGHTS):
            z = sample("z", dist.Bernoulli(real(0.3)))
            with others:
                sample("x", dist.Normal(z + y, 1.0), obs=X)

    with pytest.raises(PlateError, match="depends on site 'y', which has several elements"):
        infer.log_evidence(across)()

    def each_step() -> None:
        z: Any = real(0.0)
        for t in markov(range(3), dim=-1, name="time"):
            with around(real([1.0, 2.0, 1.0])[t]):
                z = sample(f"z_{t}", dist.Bernoulli(0.3 + 0.6 * z))

    with pytest.raises(PlateError, match="scale for each step of chain 'time'"):
        infer.log_evidence(each_step)()


def test_what_is_impossible_stays_so() -> None:
    def model() -> None:
        with plate("cases", 2), around(real([0.5, 2.0])):
            z = sample("z", dist.Bernoulli(real(0.3)))
            factor("never", torch.where(torch.arange(2) == 0, z - torch.inf, z))

    assert infer.log_evidence(model)() == -torch.inf
    with pytest.raises(ImpossibleEvidenceError):
        infer.marginals(model)()
