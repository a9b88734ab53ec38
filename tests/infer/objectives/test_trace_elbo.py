"""Trace_ELBO: closed forms, and unbiasedness by visiting every draw of the guide, weighted with its probability."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from sumout import infer
from sumout.effects import Messenger
from sumout.effects.handlers import mask, scale, trace
from sumout.errors import EnumerationError, ModelError, PlateError
from sumout.infer.objectives.trace_elbo import Trace_ELBO

X = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _own_parameters() -> Iterator[None]:
    with sumout.get_param_store().scope():
        yield


class Fixed(Messenger):
    """Draws given values: tensors, or functions of the site's distribution."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg.name in self.values and not msg.is_observed:
            value = self.values[msg.name]
            msg.value = value(msg.fn) if callable(value) else value


def param(name: str, value: Any, constraint: Any = dist.constraints.real) -> Tensor:
    return sumout.param(name, torch.as_tensor(value, dtype=torch.float64), constraint=constraint)


def gradients(loss: Tensor) -> dict[str, Tensor]:
    leaves = dict(sumout.get_param_store().named_parameters())
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if each is None else each
        for (name, leaf), each in zip(leaves.items(), found, strict=True)
    }


def assert_unbiased(model: Callable, guide: Callable, draws: list[dict[str, Any]], *args: Any) -> None:
    """Compares the mean of value and gradient over all draws with the bound's own.

    ``draws`` are values of the discrete sites; the bound is the sum over them of q (log p - log q), by hand.
    """
    exact = torch.zeros((), dtype=torch.float64)
    mean, estimated = 0.0, {}
    for values in draws:
        guided = Fixed(values)(guide)
        guide_trace = trace(guided).get_trace(*args)
        log_q = plain_log_prob(guide_trace, values)
        log_joint = trace(Fixed(values)(model)).get_trace(*args).log_prob_sum()
        exact = exact + log_q.exp() * (log_joint - guide_trace.log_prob_sum())
        loss = Trace_ELBO().differentiable_loss(model, guided, *args)
        weight = log_q.exp().item()
        mean = mean + weight * loss.item()
        for name, each in gradients(loss).items():
            estimated[name] = estimated.get(name, 0.0) + weight * each
    assert mean == pytest.approx(-exact.item(), rel=1e-10)
    for name, each in gradients(-exact).items():
        torch.testing.assert_close(estimated[name], each, rtol=1e-9, atol=1e-10, msg=f"{{}}: {name}".format)


def plain_log_prob(guide_trace: Any, values: dict[str, Any]) -> Tensor:
    """The log-probability of drawing the values, whatever scales and masks say."""
    return sum(guide_trace.nodes[name]["unscaled_log_prob"].sum() for name in values)


def binary(*shape: int) -> list[Tensor]:
    count = int(np.prod(shape))
    rows = itertools.product([0.0, 1.0], repeat=count)
    return [torch.tensor(row, dtype=torch.float64).reshape(shape) for row in rows]


def products(**choices: list[Tensor]) -> list[dict[str, Tensor]]:
    return [dict(zip(choices, each, strict=True)) for each in itertools.product(*choices.values())]


def global_and_local_model(x: Tensor, kept: Tensor | bool = True) -> None:
    rate = param("rate", 0.3, dist.constraints.unit_interval)
    top = sumout.sample("top", dist.Bernoulli(rate))
    with sumout.plate("data", len(x)), mask(mask=kept):
        z = sumout.sample("z", dist.Bernoulli(0.2 + 0.5 * top))
        sumout.sample("x", dist.Normal(z + param("shift", 0.4) * top, 1.0), obs=x)
    sumout.sample("y", dist.Normal(top, 2.0), obs=x[0])


def global_and_local_guide(x: Tensor, kept: Tensor | bool = True) -> None:
    top = sumout.sample("top", dist.Bernoulli(logits=param("top_logit", 0.7)))
    with sumout.plate("data", len(x)), mask(mask=kept):
        sumout.sample("z", dist.Bernoulli(logits=param("z_logits", [0.1, -0.5, 1.0]) + 0.3 * top))


def test_score_function_gradients_of_global_and_local_sites_are_unbiased() -> None:
    assert_unbiased(global_and_local_model, global_and_local_guide, products(top=binary(), z=binary(3)), X)


def test_under_scale_and_mask() -> None:
    def handled(program: Callable) -> Callable:
        def within(x: Tensor) -> None:
            program(x, kept=torch.tensor([True, False, True]))

        return scale(within, scale=1.7)

    assert_unbiased(
        handled(global_and_local_model),
        handled(global_and_local_guide),
        products(top=binary(), z=binary(3)),
        X,
    )


def test_in_a_subsampled_plate() -> None:
    def model(x: Tensor) -> None:
        top = sumout.sample("top", dist.Bernoulli(0.4))
        with sumout.plate("data", 5, subsample=torch.tensor([3, 1, 0])):
            z = sumout.sample("z", dist.Bernoulli(0.2 + 0.5 * top))
            sumout.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        top = sumout.sample("top", dist.Bernoulli(logits=param("top_logit", 0.7)))
        with sumout.plate("data", 5, subsample=torch.tensor([3, 1, 0])):
            sumout.sample("z", dist.Bernoulli(logits=param("z_logits", [0.1, -0.5, 1.0]) + 0.3 * top))

    assert_unbiased(model, guide, products(top=binary(), z=binary(3)), X)


def test_in_nested_and_sibling_plates() -> None:
    data = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(2, 2)

    def model() -> None:
        rows, columns, others = (
            sumout.plate("rows", 2, dim=-2),
            sumout.plate("columns", 2, dim=-1),
            sumout.plate("others", 2, dim=-1),
        )
        with rows:
            a = sumout.sample("a", dist.Bernoulli(torch.tensor(0.3).double()))
        with others:
            b = sumout.sample("b", dist.Bernoulli(torch.tensor(0.6).double()))
            sumout.sample("y", dist.Normal(b, 1.0), obs=data[0])
        with rows, columns:
            c = sumout.sample("c", dist.Bernoulli(0.2 + 0.5 * a))
            sumout.sample("x", dist.Normal(c - a, 1.0), obs=data)

    def guide() -> None:
        with sumout.plate("rows", 2, dim=-2):
            a = sumout.sample("a", dist.Bernoulli(logits=param("a_logits", [[0.5], [-0.5]])))
            with sumout.plate("columns", 2, dim=-1):
                sumout.sample("c", dist.Bernoulli(logits=param("c_logits", [0.2, 0.9]) + a))
        with sumout.plate("others", 2, dim=-1):
            sumout.sample("b", dist.Bernoulli(logits=param("b_logit", 0.3)))

    assert_unbiased(model, guide, products(a=binary(2, 1), b=binary(2), c=binary(2, 2)))


def test_local_costs_leave_out_other_elements() -> None:
    """A draw's estimate for one element does not change with another element's data."""

    def estimate(x: Tensor) -> Tensor:
        fixed = {"z": torch.tensor([1.0, 0.0, 1.0]).double(), "top": torch.ones(()).double()}
        guide = Fixed(fixed)(global_and_local_guide)
        return gradients(Trace_ELBO().differentiable_loss(global_and_local_model, guide, x))["z_logits"]

    other = X.clone()
    other[2] = 50.0
    assert torch.equal(estimate(X)[:2], estimate(other)[:2])
    assert not torch.equal(estimate(X)[2], estimate(other)[2])


def test_mixed_with_pathwise_gradients_is_unbiased() -> None:
    """The Gaussian's noise is integrated by Gauss-Hermite quadrature, exact as the bound is quadratic in it."""

    def model(x: Tensor) -> None:
        k = sumout.sample("k", dist.Bernoulli(param("p", 0.3, dist.constraints.unit_interval)))
        z = sumout.sample("z", dist.Normal(2 * k, 1.5))
        sumout.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        k = sumout.sample("k", dist.Bernoulli(logits=param("logit", 0.2)))
        sumout.sample("z", dist.Normal(param("loc", 0.5) + k, param("scale", 0.8, dist.constraints.positive)))

    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    estimated: dict[str, Any] = {}
    for noise, weight in zip(nodes, weights, strict=True):
        for k in binary():
            fixed = {"k": k, "z": lambda fn, noise=noise: fn.loc + fn.scale * noise}
            guided = Fixed(fixed)(guide)
            q = trace(guided).get_trace(X[0]).nodes["k"]["log_prob"].exp().item()
            for name, each in gradients(Trace_ELBO().differentiable_loss(model, guided, X[0])).items():
                estimated[name] = estimated.get(name, 0.0) + q * weight * each

    # By hand: E[log N(z; m, s)] for z ~ N(l, t) is log N(l; m, s) - t² / 2s².
    store = sumout.get_param_store()
    q = torch.stack([torch.sigmoid(-store["logit"]), torch.sigmoid(store["logit"])])
    p = torch.stack([1 - store["p"], store["p"]])
    k, t = torch.tensor([0.0, 1.0]).double(), store["scale"]
    loc = store["loc"] + k
    inner = dist.Normal(2 * k, 1.5).log_prob(loc) - t**2 / (2 * 1.5**2)
    inner = inner + dist.Normal(loc, 1.0).log_prob(X[0]) - t**2 / 2 + dist.Normal(loc, t).entropy()
    bound = (q * (p.log() - q.log() + inner)).sum()
    for name, each in gradients(-bound).items():
        torch.testing.assert_close(estimated[name], each, rtol=1e-9, atol=1e-10)


def conjugate_model(x: Tensor) -> None:
    z = sumout.sample("z", dist.Normal(x.new_zeros(()), param("prior_scale", 2.0, dist.constraints.positive)))
    with sumout.plate("data", len(x)):
        sumout.sample("x", dist.Normal(z, 1.0), obs=x)


def conjugate_posterior(x: Tensor) -> None:
    precision = 0.25 + len(x)
    sumout.sample("z", dist.Normal(x.sum() / precision, precision**-0.5))


def conjugate_guide(x: Tensor) -> None:
    sumout.sample("z", dist.Normal(param("loc", 0.1), 0.9))


def evidence(x: Tensor, prior_scale: Tensor) -> Tensor:
    covariance = torch.eye(len(x)).double() + prior_scale**2
    return dist.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x)


def test_with_the_posterior_as_guide_every_estimate_is_the_evidence() -> None:
    exact = -evidence(X, torch.tensor(2.0).double()).item()
    for elbo in (Trace_ELBO(), Trace_ELBO(7), Trace_ELBO(7, vectorize_particles=True)):
        assert elbo.loss(conjugate_model, conjugate_posterior, X) == pytest.approx(exact, rel=1e-12)


def test_the_three_forms_of_the_loss_agree() -> None:
    store = sumout.get_param_store()
    for elbo in (Trace_ELBO(), Trace_ELBO(3), Trace_ELBO(3, 1, vectorize_particles=True)):
        for model, guide in (
            (conjugate_model, conjugate_posterior),
            (global_and_local_model, global_and_local_guide),
        ):
            store.clear()
            torch.manual_seed(1)
            number = elbo.loss(model, guide, X)
            torch.manual_seed(1)
            loss = elbo.differentiable_loss(model, guide, X)
            expected = gradients(loss)
            torch.manual_seed(1)
            assert elbo.loss_and_grads(model, guide, X) == pytest.approx(number, rel=1e-12)
            assert loss.item() == pytest.approx(number, rel=1e-12)
            for name, leaf in store.named_parameters():
                torch.testing.assert_close(leaf.grad, expected[name], rtol=1e-10, atol=1e-12)


def test_vectorized_particles_are_the_mean_of_single_ones() -> None:
    values = products(top=binary(), z=binary(3))
    singles = []
    for each in values:
        loss = Trace_ELBO().differentiable_loss(
            global_and_local_model, Fixed(each)(global_and_local_guide), X
        )
        singles.append((loss.item(), gradients(loss)))
    together = {
        "top": torch.stack([each["top"] for each in values]).reshape(-1, 1),
        "z": torch.stack([each["z"] for each in values]),
    }
    elbo = Trace_ELBO(len(values), max_plate_nesting=1, vectorize_particles=True)
    loss = elbo.differentiable_loss(global_and_local_model, Fixed(together)(global_and_local_guide), X)
    assert loss.item() == pytest.approx(np.mean([each for each, _ in singles]), rel=1e-12)
    for name, each in gradients(loss).items():
        torch.testing.assert_close(each, torch.stack([grads[name] for _, grads in singles]).mean(0))


def test_an_impossible_draw_gives_an_infinite_loss_not_a_nan() -> None:
    def model() -> None:
        z = sumout.sample("z", dist.Bernoulli(0.5))
        sumout.factor("never", torch.log(1 - z))

    def guide() -> None:
        sumout.sample("z", dist.Bernoulli(logits=sumout.param("logit", torch.zeros(()))))

    loss = Trace_ELBO().differentiable_loss(model, Fixed({"z": torch.ones(())})(guide))
    assert loss.item() == float("inf")


def test_the_trial_run_happens_once_and_leaves_the_random_state() -> None:
    runs = []

    def model(x: Tensor) -> None:
        runs.append(1)
        conjugate_model(x)

    elbo = Trace_ELBO(4, vectorize_particles=True)
    torch.manual_seed(3)
    first = elbo.loss(model, conjugate_guide, X)
    torch.manual_seed(3)
    assert Trace_ELBO(4, 1, vectorize_particles=True).loss(model, conjugate_guide, X) == first
    elbo.loss(model, conjugate_guide, X)
    assert len(runs) == 4


def test_model_without_latent_sites_and_empty_model() -> None:
    def model(x: Tensor) -> None:
        with sumout.plate("data", len(x)):
            sumout.sample("x", dist.Normal(0.0, 1.0), obs=x)

    exact = -dist.Normal(0.0, 1.0).log_prob(X).sum().item()
    assert Trace_ELBO().loss(model, lambda x: None, X) == pytest.approx(exact)
    assert Trace_ELBO().loss(lambda: None, lambda: None) == 0.0


# ------------------------------------------------------------------------------------------- wrong or doubtful use


def test_an_undeclared_dimension_is_an_error() -> None:
    def model(x: Tensor) -> None:
        sumout.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(PlateError, match=r"'x' varies along dim -1 \(size 3\).*plate.*to_event"):
        Trace_ELBO().loss(model, lambda x: None, X)


def test_disagreeing_shapes_are_an_error() -> None:
    def model(x: Tensor) -> None:
        with sumout.plate("data", 3):
            sumout.sample("z", dist.Normal(0.0, 1.0))

    def guide(x: Tensor) -> None:
        sumout.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    with pytest.raises(ModelError, match=r"'z' has event_shape \(\) in the model and \(3,\) in the guide"):
        Trace_ELBO().loss(model, guide, X)
    with pytest.raises(ModelError, match=r"'z' has batch_shape \(3,\) in the model and \(\) in the guide"):
        Trace_ELBO().loss(model, lambda x: sumout.sample("z", dist.Normal(0.0, 1.0)), X)


def test_sites_of_one_program_only_are_told() -> None:
    def model() -> None:
        sumout.sample("z", dist.Normal(0.0, 1.0))

    def other() -> None:
        sumout.sample("w", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})

    with pytest.warns(UserWarning, match=r"the guide lacks are drawn from the prior: \['z'\]"):
        Trace_ELBO().loss(model, other)
    with pytest.warns(UserWarning, match="'z' is in the guide but is no latent site of the model"):
        Trace_ELBO().loss(lambda: None, model)
    assert Trace_ELBO().loss(lambda: None, other) != 0.0  # auxiliary sites are meant


def test_enumeration_marks_are_told() -> None:
    def guide() -> None:
        sumout.sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

    def sequential() -> None:
        sumout.sample("z", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})

    with pytest.warns(UserWarning, match=r"marked for enumeration: \['z'\]"):
        Trace_ELBO().loss(guide, guide)
    assert Trace_ELBO(strict_enumeration_warning=False).loss(guide, guide) == 0.0
    with pytest.raises(EnumerationError, match="'z'.*sequential"):
        Trace_ELBO().loss(sequential, lambda: None)


def test_a_nan_is_told() -> None:
    def model() -> None:
        sumout.sample("x", dist.Normal(0.0, 1.0, validate_args=False), obs=torch.tensor(float("nan")))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The log-probability of site 'x'")
        with pytest.warns(UserWarning, match="The loss is NaN"):
            Trace_ELBO().loss(model, lambda: None)


def test_no_particles() -> None:
    with pytest.raises(ValueError, match="num_particles=0"):
        Trace_ELBO(0)


@pytest.mark.parametrize("objective", [infer.Trace_ELBO, infer.TraceMeanField_ELBO])
def test_what_is_computed_from_step_to_step_is_no_chain_at_once(objective: Any) -> None:
    """A number that a loop carries on is not a site, so the steps taken at once do not see it."""
    data = torch.tensor([0.3, -1.0, 0.7, 0.1]).double()

    def model(at_once: dict[str, Any], carried: bool) -> None:
        level: Any = torch.zeros(()).double()
        for t in sumout.markov(range(4), **at_once):
            x = sumout.sample(f"x_{t}", dist.Normal(torch.zeros(()).double(), 1.0), obs=data[t])
            level = 0.9 * level + x if carried else x
            sumout.sample(f"y_{t}", dist.Normal(level, 1.0), obs=data[t] + 1)

    def guide(at_once: dict[str, Any], carried: bool) -> None:
        pass

    steps = {"dim": -1, "name": "time"}
    losses = [objective().loss(model, guide, each, False) for each in ({}, steps)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    objective().loss(model, guide, {}, True)
    with pytest.raises(EnumerationError, match=r"Site 'y_\d' has log-probability"):
        objective().loss(model, guide, steps, True)
