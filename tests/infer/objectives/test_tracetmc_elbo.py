"""TraceTMC_ELBO: every outcome of every draw is visited, so that means over draws are exact."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from bounds import bound
from sumout import plate, sample
from sumout.effects.handlers import infer_config, mask, trace
from sumout.errors import EnumerationError
from sumout.infer import TraceTMC_ELBO, config_enumerate, log_evidence

X = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _own_parameters() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    with sumout.get_param_store().scope():
        yield
    torch.set_default_dtype(torch.float32)


class Outcomes:
    """All outcomes of the random numbers that a function asks torch for: coins, and whole numbers."""

    def __init__(self) -> None:
        self.way: list[list[int]] = []
        self.place = 0
        self.weight = 1.0

    def _choice(self, count: int) -> int:
        if self.place == len(self.way):
            self.way.append([0, count])
        self.place += 1
        assert self.way[self.place - 1][1] == count
        return self.way[self.place - 1][0]

    def bernoulli(self, probs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        number = self._choice(2 ** probs.numel())
        bits = torch.tensor([float(number >> place & 1) for place in range(probs.numel())])
        value = bits.reshape(probs.shape)
        self.weight *= torch.where(value == 1, probs, 1 - probs).prod().item()
        return value

    def randint(self, high: int, shape: tuple[int, ...], **kwargs: Any) -> Tensor:
        count = math.prod(shape)
        number = self._choice(high**count)
        self.weight /= high**count
        digits = [number // high**place % high for place in range(count)]
        return torch.tensor(digits).reshape(shape)

    def of(self, function: Callable[[], Any]) -> Iterator[tuple[float, Any]]:
        """Each outcome's probability, and what the function gives then."""
        more = True
        while more:
            self.place, self.weight = 0, 1.0
            with patch("torch.bernoulli", self.bernoulli), patch("torch.randint", self.randint):
                found = function()
            yield self.weight, found
            while self.way and self.way[-1][0] + 1 == self.way[-1][1]:
                self.way.pop()
            more = bool(self.way)
            if more:
                self.way[-1][0] += 1


def param(name: str, value: float) -> Tensor:
    return sumout.param(name, torch.tensor(value))


def assert_right(model: Callable[[], Any], guide: Callable[[], Any]) -> None:
    """The mean of the estimate is the evidence, and the mean of the gradients the gradient of the mean."""
    elbo = TraceTMC_ELBO(max_plate_nesting=1)

    def loss() -> Tensor:
        return elbo.differentiable_loss(model, guide)

    def mean(transform: Callable[[Tensor], Tensor]) -> float:
        with torch.no_grad():
            return sum(weight * transform(found).item() for weight, found in Outcomes().of(loss))

    unmarked = infer_config(model, config_fn=lambda site: {"num_samples": None, "enumerate": "parallel"})
    plain = log_evidence(unmarked)()
    assert mean(lambda loss: (-loss).exp()) == pytest.approx(plain.exp().item(), rel=1e-10)

    store = sumout.get_param_store()
    leaves = dict(store.named_parameters())
    grads = dict.fromkeys(leaves, 0.0)
    for weight, found in Outcomes().of(loss):
        each = torch.autograd.grad(found, list(leaves.values()), allow_unused=True)
        for name, grad in zip(leaves, each, strict=True):
            grads[name] += weight * (0.0 if grad is None else grad.item())
    step, exact = 2e-3, 0.0
    # The derivative along one direction in which all parameters take part.
    direction = {name: 0.3 + 0.2 * place for place, name in enumerate(sorted(leaves))}
    for at, factor in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf += at * step * direction[name]
            exact += factor * mean(lambda loss: loss) / (12 * step)
            for name, leaf in leaves.items():
                leaf -= at * step * direction[name]
    found_slope = sum(direction[name] * grad for name, grad in grads.items())
    assert found_slope == pytest.approx(exact, rel=1e-7, abs=1e-8)


def model(kept: Any = True) -> None:
    a = sample("a", dist.Bernoulli(logits=param("p_a", 0.4)))
    b = sample("b", dist.Bernoulli(logits=param("p_b", -0.7) + a))
    with mask(mask=kept):
        sample("x", dist.Normal(a - 2 * b, 1.0), obs=X[0])


MULTI = {"enumerate": "parallel", "num_samples": 2}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_sites_that_do_not_depend_on_each_other(count: int) -> None:
    def guide() -> None:
        sample("a", dist.Bernoulli(logits=param("q_a", 0.1)), infer={**MULTI, "num_samples": count})
        sample("b", dist.Bernoulli(logits=param("q_b", 0.6)), infer=MULTI)

    assert_right(model, guide)


@pytest.mark.parametrize("more", [{"tmc": "diagonal"}, {"tmc": "mixture"}, {"expand": True}], ids=str)
def test_of_a_site_that_depends_on_another(more: dict[str, Any]) -> None:
    def guide() -> None:
        a = sample("a", dist.Bernoulli(logits=param("q_a", 0.1)), infer=MULTI)
        sample("b", dist.Bernoulli(logits=param("q_b", 0.6) - 2 * a), infer={**MULTI, **more})

    assert_right(model, guide)


@pytest.mark.parametrize("more", [{"tmc": "diagonal"}, {"expand": True}], ids=str)
def test_of_sites_of_the_model(more: dict[str, Any]) -> None:
    def marked() -> None:
        a = sample("a", dist.Bernoulli(logits=param("p_a", 0.4)), infer=MULTI)
        b = sample("b", dist.Bernoulli(logits=param("p_b", -0.7) + a), infer={**MULTI, **more})
        sample("x", dist.Normal(a - 2 * b, 1.0), obs=X[0])

    assert_right(marked, lambda: None)
    assert_right(marked, lambda: sample("a", dist.Bernoulli(logits=param("q_a", 0.1)), infer=MULTI))


def test_of_sites_in_plates() -> None:
    def plated() -> None:
        a = sample("a", dist.Bernoulli(logits=param("p_a", 0.4)))
        with plate("data", 2):
            b = sample("b", dist.Bernoulli(logits=param("p_b", -0.7) + a))
            sample("x", dist.Normal(a - 2 * b, 1.0), obs=X[:2])

    def guide() -> None:
        a = sample("a", dist.Bernoulli(logits=param("q_a", 0.1)), infer=MULTI)
        with plate("data", 2) as i:
            row = torch.stack([param("q_b", 0.6), param("q_c", 0.0)])[i]
            sample("b", dist.Bernoulli(logits=row - a), infer=MULTI)

    assert_right(plated, guide)


def test_beside_sites_that_are_summed_out_or_drawn_once() -> None:
    marked = config_enumerate(model)
    parallel = {"enumerate": "parallel"}
    assert_right(marked, lambda: sample("a", dist.Bernoulli(logits=param("q_a", 0.1)), infer=MULTI))
    assert_right(marked, lambda: sample("a", dist.Bernoulli(logits=param("q_a", 0.1)), infer=parallel))

    def guide() -> None:
        a = sample("a", dist.Bernoulli(logits=param("q_a", 0.1)))
        sample("b", dist.Bernoulli(logits=param("q_b", 0.6) - 2 * a), infer=MULTI)

    assert_right(model, guide)


def test_with_everything_enumerated_it_is_exact() -> None:
    exact = log_evidence(config_enumerate(model))()
    found = TraceTMC_ELBO().differentiable_loss(config_enumerate(model), lambda: None)
    torch.testing.assert_close(-found, exact, rtol=1e-12, atol=1e-12)


def test_a_masked_site_of_the_guide_has_no_part() -> None:
    def masked() -> None:
        with mask(mask=torch.tensor(False)):
            b = sample("b", dist.Bernoulli(0.3))
        a = sample("a", dist.Bernoulli(logits=param("p_a", 0.4)))
        sample("x", dist.Normal(a, 1.0), obs=X[0])
        sample("y", dist.Normal(0 * b, 1.0), obs=X[0])

    def guide() -> None:
        with mask(mask=torch.tensor(False)):
            sample("b", dist.Bernoulli(logits=param("q_b", 0.3)), infer=MULTI)
        sample("a", dist.Bernoulli(logits=param("q_a", 0.1)), infer=MULTI)

    assert_right(masked, guide)


def test_pathwise_by_hand() -> None:
    """All combinations of two samples of each of two sites, written out."""
    noise = torch.tensor([0.4, -1.3]), torch.tensor([[0.2, 0.9], [-0.5, 1.4]])

    def plain() -> None:
        z = sample("z", dist.Normal(param("m", 0.2), 1.0))
        w = sample("w", dist.Normal(z, 0.7))
        sample("x", dist.Normal(z + w, 1.0), obs=X[0])

    def guide() -> None:
        z = sample("z", dist.Normal(param("loc", -0.1), 0.8), infer=MULTI)
        sample("w", dist.Normal(param("more", 0.5) + z, 0.9), infer={**MULTI, "expand": True})

    def normal(shape: Any, **kwargs: Any) -> Tensor:
        return noise[0].reshape(shape) if math.prod(shape) == 2 else noise[1].reshape(shape)

    with patch("torch.distributions.normal._standard_normal", lambda shape, **kwargs: normal(shape)):
        loss = TraceTMC_ELBO(max_plate_nesting=0).differentiable_loss(plain, guide)
    weights = []
    for i, j in itertools.product(range(2), repeat=2):
        q_z = dist.Normal(param("loc", 0.0), 0.8)
        z = q_z.loc + 0.8 * noise[0][i]
        q_w = dist.Normal(param("more", 0.0) + z, 0.9)
        w = q_w.loc + 0.9 * noise[1][j, i]
        log_p = dist.Normal(param("m", 0.0), 1.0).log_prob(z) + dist.Normal(z, 0.7).log_prob(w)
        log_p = log_p + dist.Normal(z + w, 1.0).log_prob(X[0])
        weights.append(log_p - q_z.log_prob(z) - q_w.log_prob(w))
    exact = -(torch.stack(weights).logsumexp(0) - math.log(4))
    torch.testing.assert_close(loss, exact, rtol=1e-12, atol=1e-12)
    leaves = [leaf for _, leaf in sumout.get_param_store().named_parameters()]
    for found, expected in zip(
        torch.autograd.grad(loss, leaves, retain_graph=True), torch.autograd.grad(exact, leaves), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_site_that_the_model_lacks() -> None:
    def guide() -> None:
        sample("u", dist.Bernoulli(0.5), infer={**MULTI, "is_auxiliary": True})

    with pytest.raises(EnumerationError, match="'u' of the guide has several samples.*no site of the model"):
        TraceTMC_ELBO().loss(config_enumerate(model), guide)


def test_the_oracle_visits_everything() -> None:
    found = list(Outcomes().of(lambda: sample("z", dist.Bernoulli(torch.tensor([0.2, 0.7])))))
    assert [value.tolist() for _, value in found] == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert [weight for weight, _ in found] == pytest.approx([0.24, 0.06, 0.56, 0.14])
    assert trace(model).get_trace().nodes["x"]["value"] == X[0]
    assert bound(model, model).isfinite()
