"""The Jit forms give what the plain forms give, for new data and new parameters too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError


@pytest.fixture(autouse=True)
def _own_parameters() -> Iterator[None]:
    with sumout.get_param_store().scope():
        yield


def param(name: str, value: Any, constraint: Any = dist.constraints.real) -> Tensor:
    return sumout.param(name, torch.as_tensor(value).double(), constraint=constraint)


def mixture(x: Tensor, width: float = 1.0) -> None:
    rate = param("rate", 0.3, dist.constraints.unit_interval)
    top = sample("top", dist.Bernoulli(rate))
    w = sample("w", dist.Normal(torch.zeros(()).double(), param("s", 1.5, dist.constraints.positive)))
    with plate("data", len(x)):
        z = sample("z", dist.Bernoulli(rate), infer={"enumerate": "parallel"})
        sample("x", dist.Normal(param("loc", 0.5) * z + w - top, width), obs=x)


def guide(x: Tensor, width: float = 1.0) -> None:
    sample("top", dist.Bernoulli(logits=param("q_top", 0.2)))
    sample("w", dist.Normal(param("q_w", -0.4), param("q_s", 0.6, dist.constraints.positive)))


def all_drawn(x: Tensor, width: float = 1.0) -> None:
    guide(x)
    with plate("data", len(x)):
        sample("z", dist.Bernoulli(logits=param("q_z", 0.1)).expand([len(x)]))


@infer.config_enumerate(num_samples=4)
def many_drawn(x: Tensor, width: float = 1.0) -> None:
    guide(x)


def found(elbo: Any, guide: Any, x: Tensor, seed: int, width: float) -> tuple[float, dict[str, Tensor]]:
    for _, leaf in sumout.get_param_store().named_parameters():
        leaf.grad = None
    torch.manual_seed(seed)
    loss = elbo.loss_and_grads(mixture, guide, x, width=width)
    return loss, {name: leaf.grad.clone() for name, leaf in sumout.get_param_store().named_parameters()}


NAMES = ["TraceEnum_ELBO", "TraceMarkovEnum_ELBO", "TraceTMC_ELBO", "Trace_ELBO", "TraceMeanField_ELBO"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "particles", [{}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}], ids=str
)
def test_what_is_recorded_is_what_is_computed(name: str, particles: dict[str, Any]) -> None:
    options = {**particles, "max_plate_nesting": 1, "strict_enumeration_warning": False}
    plain, recorded = getattr(infer, name)(**options), getattr(infer, f"Jit{name}")(**options)
    of = {"TraceTMC_ELBO": many_drawn, "Trace_ELBO": all_drawn, "TraceMeanField_ELBO": all_drawn}.get(
        name, guide
    )
    x = torch.tensor([0.3, -1.2, 0.8]).double()
    for seed, data, width in ((0, x, 1.0), (1, x + 1, 1.0), (2, x[:2], 1.0), (3, x, 0.5), (4, 2 * x, 1.0)):
        expected, grads = found(plain, of, data, seed, width)
        again, others = found(recorded, of, data, seed, width)
        assert again == pytest.approx(expected, rel=1e-9)
        for each, grad in grads.items():
            torch.testing.assert_close(others[each], grad, rtol=1e-8, atol=1e-10, msg=f"{{}}: {each}".format)
        with torch.no_grad():
            for _, leaf in sumout.get_param_store().named_parameters():
                leaf += 0.1
    assert len(recorded._recordings) == 3


def test_in_svi() -> None:
    def model(x: Tensor) -> None:
        with plate("data", len(x)):
            sample("x", dist.Poisson(param("rate", 1.0, dist.constraints.positive)), obs=x)

    svi = infer.SVI(model, lambda x: None, sumout.optim.Adam({"lr": 0.1}), infer.JitTrace_ELBO())
    svi.run(200, torch.tensor([3.0, 5.0, 4.0]).double())
    assert sumout.get_param_store()["rate"].item() == pytest.approx(4, abs=0.01)


def test_arguments_that_cannot_be_recorded() -> None:
    elbo = infer.JitTrace_ELBO()
    with pytest.raises(ModelError, match="positional"):
        elbo.loss_and_grads(mixture, guide, torch.zeros(2), width=torch.ones(()))
    with pytest.raises(ModelError, match="no hash"):
        elbo.loss_and_grads(mixture, guide, [1.0, 2.0])


def test_numbers_too_far_apart_for_what_was_recorded() -> None:
    """A recording that was made at tame numbers is not used where they are not."""

    def model(x: Tensor) -> None:
        states = torch.arange(2.0).double()
        z = torch.tensor(0)
        for t in sumout.markov(range(6)):
            row = param("move", [[0.5, -0.5], [0.3, 0.1]])[z] * x[6]
            z = sample(f"z_{t}", dist.Categorical(logits=row), infer={"enumerate": "parallel"})
            sample(f"x_{t}", dist.Normal(states[z] * x[6], 1.0), obs=x[t])

    plain, recorded = infer.TraceEnum_ELBO(max_plate_nesting=0), infer.JitTraceEnum_ELBO(max_plate_nesting=0)
    tame = torch.tensor([0.3, 0.1, 1.2, 0.5, -0.4, 0.9, 1.0]).double()
    for x in (tame, 1000 * tame, 1e5 * tame, tame):
        expected = plain.loss_and_grads(model, lambda x: None, x)
        leaf = sumout.get_param_store()["move"].unconstrained()
        grad, leaf.grad = leaf.grad, None
        assert recorded.loss_and_grads(model, _nothing, x) == pytest.approx(expected, rel=1e-9)
        torch.testing.assert_close(leaf.grad, grad, rtol=1e-8, atol=1e-8)
        leaf.grad = None
    assert len(recorded._recordings) == 1


def _nothing(x: Tensor) -> None:
    """Everything is summed out."""


def test_draws_without_derivatives_stay_so() -> None:
    """A recording does not know of ``torch.no_grad``, in which they were drawn."""
    x = torch.tensor([0.3, 1.2, 2.8]).double()

    def model(x: Tensor) -> None:
        with plate("data", 3):
            k = sample("k", dist.Poisson(torch.tensor(2.0).double()))
            z = sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            sample("x", dist.Normal(k + z, 1.0), obs=x)

    def of_k(x: Tensor) -> None:
        with plate("data", 3):
            sample("k", dist.Poisson(param("rates", [1.0, 2.0, 3.0], dist.constraints.positive)))

    for seed in (0, 1):
        results = []
        for elbo in (infer.TraceEnum_ELBO(), infer.JitTraceEnum_ELBO()):
            sumout.get_param_store().clear()
            elbo.loss_and_grads(model, of_k, x)  # records
            (leaf,) = (leaf for _, leaf in sumout.get_param_store().named_parameters())
            leaf.grad = None
            torch.manual_seed(seed)
            results.append((torch.tensor(elbo.loss_and_grads(model, of_k, x)), leaf.grad))
        torch.testing.assert_close(*results)


def test_weights_of_cases() -> None:
    x, weights = torch.tensor([0.3, 1.2, 2.8]).double(), torch.tensor([0.5, 2.0, 1.5]).double()

    def model(x: Tensor) -> None:
        g = sample(
            "g",
            dist.Bernoulli(param("rate", 0.3, dist.constraints.unit_interval)),
            infer={"enumerate": "parallel"},
        )
        with plate("data", 3), poutine.scale(scale=weights):
            z = sample("z", dist.Bernoulli(0.3 + 0.2 * g), infer={"enumerate": "parallel"})
            sample("x", dist.Normal(z + param("loc", 0.5) * g, 1.0), obs=x)

    losses = [
        elbo.loss_and_grads(model, lambda x: None, x)
        for elbo in (infer.TraceEnum_ELBO(), infer.JitTraceEnum_ELBO())
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def states(x: Tensor, kind: Any = None) -> None:
    shares = sumout.param("shares", torch.ones(2).double() / 2, constraint=dist.constraints.simplex)
    z = sample("z", dist.Categorical(shares), infer={"enumerate": "parallel"})
    sample("x", dist.Normal(z.double(), 1.0 if kind is True else 2.0), obs=x)


def assert_recorded_is_plain(recorded: Any, *args: Any) -> None:
    plain = infer.TraceEnum_ELBO(strict_enumeration_warning=False)
    found, expected = (
        elbo.differentiable_loss(states, lambda *args: None, *args) for elbo in (recorded, plain)
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_parameters_that_are_forgotten_or_come_back_as_others() -> None:
    recorded, x, store = infer.JitTraceEnum_ELBO(), torch.tensor(0.7).double(), sumout.get_param_store()
    assert_recorded_is_plain(recorded, x)
    store.clear()
    assert_recorded_is_plain(recorded, x)
    for shares, constraint in (
        ([0.2, 0.3, 0.5], dist.constraints.simplex),
        ([0.5, 1.5], dist.constraints.positive),
        ([0.1, 0.9], dist.constraints.simplex),
    ):
        store.clear()
        sumout.param("shares", torch.tensor(shares).double(), constraint=constraint)
        assert_recorded_is_plain(recorded, x)


def test_arguments_that_are_equal_and_of_other_types() -> None:
    recorded, x = infer.JitTraceEnum_ELBO(), torch.tensor(0.7).double()
    for kind in (True, 1, 1.0, True):
        assert_recorded_is_plain(recorded, x, kind)


def test_handlers_around() -> None:
    recorded = infer.JitTraceEnum_ELBO(strict_enumeration_warning=False)
    x = torch.tensor(0.7).double()
    assert_recorded_is_plain(recorded, x)
    with poutine.scale(scale=3.0):
        assert_recorded_is_plain(recorded, x)
    with poutine.condition(data={"z": torch.tensor(1)}):
        assert_recorded_is_plain(recorded, x)
