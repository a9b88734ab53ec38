"""Training programs of Pyro's by sumout's objectives: the same losses, gradients and steps as Pyro's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.infer
import pyro.optim
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal, init_to_value
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor

import sumout
from sumout import infer, poutine
from sumout_contrib.pyro_bridge import as_sumout

Store = dict[str, Tensor]
Args = tuple[Any, ...]
PARALLEL = {"enumerate": "parallel"}
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
DATA = torch.tensor([-2.1, -1.9, 0.2, 1.7, 2.2, 2.4], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _double_precision_and_an_empty_store() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
    torch.set_default_dtype(torch.float32)


@pyro.infer.config_enumerate
def mixture(data: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(0.0, 3.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(data)):
        assignment = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(locs[assignment], scale), obs=data)


def trained(kind: str, model: Any, guide: Any, args: Args, steps: int) -> tuple[list[float], Store]:
    """The losses of a training run by Pyro or by us, from the same random state, and the parameters after it."""
    options: dict[str, Any] = {"max_plate_nesting": 1, "strict_enumeration_warning": False}
    pyro.set_rng_seed(3)
    if kind == "pyro":
        elbo = pyro.infer.TraceEnum_ELBO(**options)
        svi: Any = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), elbo)
    else:
        ours = infer.TraceEnum_ELBO(**options)
        svi = infer.SVI(as_sumout(model), as_sumout(guide), sumout.optim.Adam({"lr": 0.05}), ours)
    losses = [svi.step(*args) for _ in range(steps)]
    return losses, {name: value.detach().clone() for name, value in pyro.get_param_store().items()}


def assert_same_training(model: Callable[[], tuple[Any, Any]], *args: Any, steps: int = 100) -> Store:
    """Compares runs of a model and a guide that are made anew for each."""
    pyro.clear_param_store()
    expected, expected_store = trained("pyro", *model(), args, steps)
    pyro.clear_param_store()
    found, found_store = trained("ours", *model(), args, steps)
    assert found == pytest.approx(expected, rel=1e-8)
    assert list(expected_store) == list(found_store)
    for name, value in expected_store.items():
        torch.testing.assert_close(found_store[name], value, rtol=1e-7, atol=1e-7, msg=f"{{}}: {name}".format)
    assert found[-1] < found[0]
    return found_store


def no_guide(*args: Any) -> None:
    """The guide of a model that is summed out completely."""


# ---------------------------------------------------------------------------------------------------- autoguides


@pytest.mark.parametrize("family", [AutoNormal, AutoDelta, AutoDiagonalNormal])
def test_a_mixture_with_an_autoguide(family: Any) -> None:
    def model() -> tuple[Any, Any]:
        return mixture, family(pyro.poutine.block(mixture, hide=["assignment"]))

    assert_same_training(model, DATA)


def test_the_loss_and_its_gradient_at_many_parameter_values() -> None:
    guide = AutoNormal(pyro.poutine.block(mixture, hide=["assignment"]))
    guide(DATA)
    theirs, ours = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1), infer.TraceEnum_ELBO(max_plate_nesting=1)
    store = pyro.get_param_store()
    for seed in range(10):
        with torch.no_grad():
            for _, leaf in store.named_parameters():
                leaf.copy_(torch.randn(leaf.shape))
        found = []
        for loss in (
            lambda: theirs.differentiable_loss(mixture, guide, DATA),
            lambda: ours.differentiable_loss(as_sumout(mixture), as_sumout(guide), DATA),
        ):
            torch.manual_seed(seed)
            value = loss()
            leaves = [leaf for _, leaf in store.named_parameters()]
            found.append([value, *torch.autograd.grad(value, leaves)])
        for expected, other in zip(*found, strict=True):
            torch.testing.assert_close(other, expected, **CLOSE)


def test_a_guide_that_is_set_up_while_the_nesting_is_looked_for() -> None:
    start = init_to_value(values={"locs": torch.tensor([-1.0, 1.0]), "weights": torch.tensor([0.5, 0.5])})
    guide = AutoNormal(pyro.poutine.block(mixture, hide=["assignment"]), init_loc_fn=start)
    optim = sumout.optim.Adam({"lr": 0.05})
    svi = infer.SVI(as_sumout(mixture), as_sumout(guide), optim, infer.TraceEnum_ELBO())
    losses = svi.run(300, DATA)
    assert sum(losses[-50:]) < sum(losses[:50])
    median = guide.median(DATA)
    # Near the means of the two heaps, up to the prior's pull, the middle point and the noise of the steps.
    assert (median["locs"] - torch.tensor([-2.0, 2.1])).abs().max() < 0.6
    posterior = infer.marginals(as_sumout(pyro.poutine.condition(mixture, data=median)))(DATA)
    assert list(posterior) == ["assignment"]
    density = dist.Normal(median["locs"], pyro.param("scale")).log_prob(DATA[:, None]).exp()
    weight = median["weights"] * density
    torch.testing.assert_close(posterior["assignment"].probs, weight / weight.sum(-1, keepdim=True), **CLOSE)


# ------------------------------------------------------------------------------------------------------- modules


class Regression(PyroModule):
    """Bayesian regression with outliers: a discrete site that says which, a trained width of the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[torch.nn.Linear](2, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        self.width = PyroParam(torch.tensor(0.5), constraint=dist.constraints.positive)
        self.slack = torch.nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        mean = self.linear(x).squeeze(-1)
        width, slack = self.width, self.slack
        with pyro.plate("data", len(x)):
            outlier = pyro.sample("outlier", dist.Bernoulli(0.1), infer=PARALLEL)
            pyro.sample("y", dist.Normal(mean, width + slack.abs() * outlier), obs=y)
        return mean


X = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, -1.0], [0.5, 0.5], [-1.0, 1.0]]).double()
Y = X @ torch.tensor([1.0, -2.0]).double() + 0.3 + torch.tensor([0.1, 0.0, -0.1, 9.0, 0.1, 0.0]).double()


def test_a_pyro_module() -> None:
    def model() -> tuple[Any, Any]:
        regression = Regression()
        return regression, AutoNormal(pyro.poutine.block(regression, hide=["outlier"]))

    store = assert_same_training(model, X, Y)
    assert {"width", "slack", "AutoNormal.locs.linear.weight"} <= set(store)


def test_exact_answers_from_a_pyro_module() -> None:
    regression = Regression()
    known = {"linear.weight": torch.tensor([[1.0, -2.0]]), "linear.bias": torch.tensor([0.3])}
    program = as_sumout(pyro.poutine.condition(regression, data=known))
    found = infer.marginals(program)(X, Y)
    mean = X @ known["linear.weight"][0] + 0.3
    inside = 0.9 * dist.Normal(mean, 0.5).log_prob(Y).exp()
    outside = 0.1 * dist.Normal(mean, 4.5).log_prob(Y).exp()
    torch.testing.assert_close(found["outlier"].probs, outside / (inside + outside), **CLOSE)
    record = poutine.trace(program).get_trace(X, Y)
    assert {"width", "slack"} <= set(record.param_nodes)
    assert record.observation_nodes == ["linear.weight", "linear.bias", "y"]


def test_a_wrapped_module_is_a_module() -> None:
    regression = Regression()
    guide = AutoNormal(pyro.poutine.block(regression, hide=["outlier"]))
    guide(X, Y)
    objective = infer.TraceEnum_ELBO()(as_sumout(regression), as_sumout(guide))
    expected = [*regression.parameters(), *guide.parameters()]
    assert {id(each) for each in objective.parameters()} == {id(each) for each in expected}
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.05)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = objective(X, Y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < sum(losses[:20])


def test_module_local_params() -> None:
    with pyro.settings.context(module_local_params=True):
        regression = Regression()
        guide = AutoNormal(pyro.poutine.block(regression, hide=["outlier"]))
        guide(X, Y)
        objective = infer.TraceEnum_ELBO()(as_sumout(regression), as_sumout(guide))
        objective(X, Y).backward()
    assert all(each.grad is not None for each in objective.parameters())
    assert len(pyro.get_param_store()) == 0


def test_a_plain_network() -> None:
    def model() -> tuple[Any, Any]:
        torch.manual_seed(1)
        network = torch.nn.Linear(2, 1)

        def program(x: Tensor, y: Tensor) -> None:
            pyro.module("network", network)
            with pyro.plate("data", len(x)):
                outlier = pyro.sample("outlier", dist.Bernoulli(0.1), infer=PARALLEL)
                pyro.sample("y", dist.Normal(network(x).squeeze(-1), 0.5 + 4.0 * outlier), obs=y)

        return program, no_guide

    store = assert_same_training(model, X, Y)
    assert list(store) == ["network$$$weight", "network$$$bias"]


# -------------------------------------------------------------------------------------------------------- params


def test_trained_values_are_in_pyros_store() -> None:
    sumout.clear_param_store()

    def model(x: Tensor) -> None:
        rate = pyro.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(rate), obs=x)

    svi = infer.SVI(as_sumout(model), as_sumout(no_guide), sumout.optim.Adam({"lr": 0.1}), infer.Trace_ELBO())
    svi.run(300, torch.tensor([3.0, 5.0, 4.0]))
    assert pyro.get_param_store()["rate"].item() == pytest.approx(4.0, abs=1e-3)
    assert pyro.param("rate").item() == pytest.approx(4.0, abs=1e-3)
    assert len(sumout.get_param_store()) == 0


def test_params_in_a_subsampled_plate() -> None:
    def model(data: Tensor) -> None:
        with pyro.plate("data", len(data), subsample_size=3) as batch:
            locs = pyro.param("locs", torch.zeros(len(data)), event_dim=0)
            assert locs.shape == (3,)
            assert torch.equal(pyro.subsample(data, event_dim=0), data[batch])
            pyro.sample("x", dist.Normal(locs, 1.0), obs=data[batch])

    def program() -> tuple[Any, Any]:
        return model, lambda data: None

    assert_same_training(program, DATA)
    record = poutine.trace(as_sumout(model)).get_trace(DATA)
    assert record.nodes["locs"]["value"].unconstrained().shape == (6,)
    assert math.isclose(record.nodes["x"]["scale"], 2.0)


def test_a_guide_and_a_model_share_a_subsample() -> None:
    def model(data: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(data), subsample_size=2) as batch:
            pyro.sample("x", dist.Normal(z, 1.0), obs=data[batch])

    def guide(data: Tensor) -> None:
        pyro.plate("data", len(data), subsample_size=2)
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))

    def program() -> tuple[Any, Any]:
        return model, guide

    assert_same_training(program, DATA)
