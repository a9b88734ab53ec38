"""Queries of a program that is run once for each value of a site that steers it, beside a list of all its ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout import factor, infer, plate, poutine, sample
from sumout.errors import EnumerationError, ImpossibleEvidenceError

EXACT = {"rtol": 1e-9, "atol": 1e-12}
THETA = 0.35
AUTO: dict[str, Any] = {"enumeration": "auto"}


def real(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def make(theta: Tensor) -> Callable[[], None]:
    """``kind`` decides whether there is a ``coin``, two of them, or none; ``side`` is always there."""

    def model() -> None:
        kind = sample("kind", dist.Categorical(torch.stack([theta, 0.5 - theta / 2, 0.5 - theta / 2])))
        side = sample("side", dist.Bernoulli(0.2 + 0.2 * kind.double()))
        total = side
        for number in range(kind):
            total = total + sample(f"coin_{number}", dist.Bernoulli(theta * (1 - 0.5 * side)))
        sample("seen", dist.Normal(total, 1.0), obs=real(0.8))

    return model


Way = tuple[dict[str, int], Tensor]


def ways(theta: Tensor) -> list[Way]:
    """All assignments with their joint probabilities."""

    def found() -> Iterator[Way]:
        of_kind = [theta, 0.5 - theta / 2, 0.5 - theta / 2]
        for kind in range(3):
            for side in (0, 1):
                up = theta * (1 - 0.5 * side)
                before = of_kind[kind] * (0.2 + 0.2 * kind if side else 0.8 - 0.2 * kind)
                for bits in range(2**kind):
                    coins = [bits >> place & 1 for place in range(kind)]
                    weight = before
                    for coin in coins:
                        weight = weight * (up if coin else 1 - up)
                    mean = side + sum(coins)
                    weight = weight * math.exp(-0.5 * (0.8 - mean) ** 2) / math.sqrt(2 * math.pi)
                    names = {f"coin_{place}": coin for place, coin in enumerate(coins)}
                    yield {"kind": kind, "side": side, **names}, weight

    return list(found())


def table(theta: Tensor, names: tuple[str, ...]) -> Tensor:
    """The joint posterior of sites, given that all are there."""
    sizes = [3 if name == "kind" else 2 for name in names]
    result = torch.zeros(sizes, dtype=torch.float64)
    for way, weight in ways(theta):
        if all(name in way for name in names):
            result = result.index_put(
                tuple(torch.tensor(way[name]) for name in names), weight, accumulate=True
            )
    return result / result.sum()


def entropy_of(probs: Tensor) -> Tensor:
    return -(probs * torch.where(probs > 0, probs, 1.0).log()).sum()


def same_with_gradient(found: Callable[[Tensor], Tensor], expected: Callable[[Tensor], Tensor]) -> None:
    theta = real(THETA).requires_grad_()
    one, other = found(theta), expected(theta)
    torch.testing.assert_close(one, other, **EXACT)
    grads = [torch.autograd.grad(each, theta)[0] for each in (one, other)]
    torch.testing.assert_close(*grads, **EXACT)


def test_the_entropy_of_all() -> None:
    def expected(theta: Tensor) -> Tensor:
        weights = torch.stack([weight for _, weight in ways(theta)])
        return entropy_of(weights / weights.sum())

    same_with_gradient(lambda theta: infer.entropy(make(theta), **AUTO)(), expected)


@pytest.mark.parametrize("names", [("kind",), ("side",), ("coin_1",), ("kind", "coin_0"), ("side", "coin_1")])
def test_the_entropy_of_some(names: tuple[str, ...]) -> None:
    same_with_gradient(
        lambda theta: infer.entropy(make(theta), names, **AUTO)(),
        lambda theta: entropy_of(table(theta, names)),
    )


def test_mutual_information() -> None:
    def expected(theta: Tensor) -> Tensor:
        joint = table(theta, ("kind", "side"))
        return entropy_of(joint.sum(0)) + entropy_of(joint.sum(1)) - entropy_of(joint)

    same_with_gradient(
        lambda theta: infer.mutual_information(make(theta), "kind", "side", **AUTO)(), expected
    )


def test_expectations() -> None:
    same_with_gradient(
        lambda theta: infer.expectation(make(theta), ["kind", "side"], lambda a, b: 2.0 * a - b, **AUTO)(),
        lambda theta: (table(theta, ("kind", "side")) * (real([[0], [2], [4]]) - real([[0, 1]]))).sum(),
    )


def test_marginals_have_gradients() -> None:
    same_with_gradient(
        lambda theta: infer.marginals(make(theta), "side", **AUTO)().tables["side"][1],
        lambda theta: table(theta, ("side",))[1],
    )


def test_the_best() -> None:
    theta = real(THETA)
    ordered = sorted(ways(theta), key=lambda each: -float(each[1]))
    for k in (1, 4, 20):
        found = infer.k_best(make(theta), k, **AUTO)()
        wanted = ordered[:k]
        assert len(found.log_prob) == len(wanted)
        torch.testing.assert_close(
            found.log_prob.exp(), torch.stack([weight for _, weight in wanted]), **EXACT
        )
        for row, (way, _) in enumerate(wanted):
            there = {name for name in found if found.present[name][row]}
            assert {name: int(found[name][row]) for name in there} == way
        total = torch.stack([weight for _, weight in ordered]).sum()
        torch.testing.assert_close(found.log_evidence.exp(), total, **EXACT)
    assert found["coin_1"][~found.present["coin_1"]].isnan().all()


def test_max_marginals() -> None:
    theta = real(THETA)
    found = infer.max_marginals(make(theta), **AUTO)()
    assert set(found) == {"kind", "side", "coin_0", "coin_1"}
    for name, logs in found.items():
        for state, log in enumerate(logs):
            best = max(float(weight) for way, weight in ways(theta) if way.get(name) == state)
            assert log.exp().item() == pytest.approx(best, rel=1e-9)
    assert found.log_prob.exp().item() == pytest.approx(max(float(weight) for _, weight in ways(theta)))


def test_marginal_maps() -> None:
    theta = real(THETA)
    for names in (("kind",), ("kind", "side")):
        sums: dict[tuple[int, ...], float] = {}
        for way, weight in ways(theta):
            key = tuple(way[name] for name in names)
            sums[key] = sums.get(key, 0.0) + float(weight)
        found = infer.marginal_map(make(theta), names, **AUTO)()
        assert found.log_prob.exp().item() == pytest.approx(max(sums.values()), rel=1e-9)
        assert tuple(int(found[name]) for name in names) == max(sums, key=lambda key: sums[key])
    with pytest.raises(EnumerationError, match="Site 'kind' is enumerated sequentially and is not among"):
        infer.marginal_map(make(theta), ["side"], **AUTO)()


def test_what_a_factor_depends_on_is_not_told() -> None:
    with pytest.raises(EnumerationError, match=r"sequentially \('kind'\).*joint marginals"):
        infer.factor_beliefs(make(real(THETA)), **AUTO)()


def test_nothing_is_possible() -> None:
    def never() -> None:
        if sample("z", dist.Bernoulli(real(0.3))):
            sample("w", dist.Bernoulli(real(0.5)))
        factor("no", real(-math.inf))

    for query in (lambda model: infer.k_best(model, 2, **AUTO), lambda model: infer.entropy(model, **AUTO)):
        with pytest.raises(ImpossibleEvidenceError):
            query(never)()


# --------------------------------------------------------------------------------------------------- scales


def coin() -> None:
    z = sample("z", dist.Bernoulli(real(0.3)))
    with plate("looks", 2):
        sample("x", dist.Normal(1.5 if z else 0.0, 1.0), obs=real([0.4, 1.1]))
    sample("side", dist.Bernoulli(real(0.6 if z else 0.2)))


def test_one_scale_of_everything_is_the_power_of_the_sum() -> None:
    plain, powered = coin, poutine.scale(coin, scale=0.4)
    value = infer.log_evidence(plain, **AUTO)()
    torch.testing.assert_close(infer.log_evidence(powered, **AUTO)(), 0.4 * value, **EXACT)
    loss = infer.TraceEnum_ELBO().loss(infer.config_enumerate(powered, "auto"), lambda: None)
    assert loss == pytest.approx(-0.4 * float(value), rel=1e-12)
    one, other = infer.marginals(powered, **AUTO)(), infer.marginals(plain, **AUTO)()
    torch.testing.assert_close(one.log_evidence, 0.4 * value, **EXACT)
    for name in other:
        torch.testing.assert_close(one.tables[name], other.tables[name], **EXACT)
    torch.manual_seed(0)
    drawn = infer.posterior_samples(powered, 20_000, **AUTO)()
    assert abs(drawn["z"].mean() - other["z"].probs) < 0.015
    once = [
        poutine.trace(infer.infer_discrete(powered, **AUTO)).get_trace().nodes["z"].value for _ in range(400)
    ]
    assert abs(torch.stack(once).mean() - other["z"].probs) < 0.1


def test_a_loop_over_a_subsample() -> None:
    """Every element that is looked at stands for two."""

    def model() -> None:
        for i in plate("cases", 4, subsample=torch.arange(2)):
            z = sample(f"z_{i}", dist.Bernoulli(real(0.3)), infer={"enumerate": "sequential"})
            sample(f"x_{i}", dist.Normal(1.5 if z else 0.0, 1.0), obs=real(0.4 + i))

    def density(x: float, mean: float) -> float:
        return math.exp(-0.5 * (x - mean) ** 2) / math.sqrt(2 * math.pi)

    value = 2 * sum(math.log(0.7 * density(x, 0.0) + 0.3 * density(x, 1.5)) for x in (0.4, 1.4))
    assert infer.log_evidence(model)().item() == pytest.approx(value, rel=1e-12)
    assert infer.TraceEnum_ELBO().loss(model, lambda: None) == pytest.approx(-value, rel=1e-12)


def scaled_in_part() -> None:
    z = sample("z", dist.Bernoulli(real(0.3)), infer={"enumerate": "sequential"})
    with poutine.scale(scale=2.0):
        sample("x", dist.Normal(1.5 if z else 0.0, 1.0), obs=real(0.4))


def out_of_a_subsample() -> None:
    with plate("cases", 6, subsample=torch.arange(3)):
        z = sample("z", dist.Bernoulli(real(0.3)), infer={"enumerate": "auto"})
    sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=real(0.5))


@pytest.mark.parametrize("model", [scaled_in_part, out_of_a_subsample])
def test_several_scales_in_one_sum(model: Callable[[], None]) -> None:
    with pytest.raises(EnumerationError, match="has a scale, and sites are enumerated sequentially .z."):
        infer.log_evidence(model)()
    with pytest.raises(EnumerationError, match="has a scale, and sites are enumerated sequentially .z."):
        infer.TraceEnum_ELBO().loss(model, lambda: None)


def test_a_scale_of_what_is_the_same_in_all_runs() -> None:
    def model() -> None:
        with poutine.scale(scale=3.0):
            sample("apart", dist.Normal(real(0.0), 1.0), obs=real(1.0))
        coin()

    value = infer.log_evidence(coin, **AUTO)() + 3 * dist.Normal(real(0.0), 1.0).log_prob(real(1.0))
    torch.testing.assert_close(infer.log_evidence(model, **AUTO)(), value, **EXACT)


def test_a_potential_and_weights_of_draws_take_no_powers() -> None:
    def model() -> None:
        loc = sample("loc", dist.Normal(real(0.0), 1.0))
        z = sample("z", dist.Bernoulli(real(0.3)), infer={"enumerate": "sequential"})
        sample("x", dist.Normal(loc + (1.0 if z else 0.0), 1.0), obs=real(0.5))

    powered = poutine.scale(model, scale=2.0)
    with pytest.raises(EnumerationError, match="a potential does not raise"):
        infer.potential_fn(powered)
    with pytest.raises(EnumerationError, match="importance sampling does not raise"):
        infer.Importance(powered, num_samples=3, parallel=False).run()
