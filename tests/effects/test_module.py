"""Modules of torch as parameters: their own, those of the store, values that handlers give; types, autocast."""

from __future__ import annotations

import copy

import pytest
import torch

import sumout
import sumout.distributions as dist
from sumout import infer, optim, plate, poutine, sample
from sumout.errors import ModelError

X = torch.linspace(-1, 1, 12).reshape(4, 3)
Y = torch.tensor([0.5, -0.2, 1.0, 0.3])


@pytest.fixture(autouse=True)
def _own_parameters():
    with sumout.get_param_store().scope():
        yield


def regression(net: torch.nn.Module):
    def model(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        used = sumout.module("net", net)
        with plate("data", len(x)):
            return sample("y", dist.Normal(used(x).squeeze(-1), 0.5), obs=y)

    return model


def priors(net: torch.nn.Module) -> dict[str, dist.Distribution]:
    return {
        name: dist.Normal(torch.zeros_like(value), 1.0).to_event(value.dim())
        for name, value in net.named_parameters()
    }


def nothing(*args: torch.Tensor) -> None:
    pass


def fit(net: torch.nn.Module, steps: int) -> infer.SVI:
    svi = infer.SVI(regression(net), nothing, optim.Adam(lr=0.05), infer.Trace_ELBO())
    svi.run(steps, X, Y)
    return svi


def test_a_module_is_fitted_as_torch_would() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    other = copy.deepcopy(net)
    fit(net, 20)
    plain = torch.optim.Adam(other.parameters(), lr=0.05)
    for _ in range(20):
        plain.zero_grad()
        (-dist.Normal(other(X).squeeze(-1), 0.5).log_prob(Y).sum()).backward()
        plain.step()
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_state_is_saved_and_loaded(tmp_path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 1)
    svi = fit(net, 10)
    sumout.get_param_store().save(tmp_path / "params")
    svi.optim.save(tmp_path / "optimizer")
    expected = copy.deepcopy(net)
    fit_on = copy.deepcopy(svi.optim.get_state())
    svi.run(5, X, Y)

    sumout.clear_param_store()
    sumout.get_param_store().load(tmp_path / "params")
    fresh = torch.nn.Linear(3, 1)
    assert not torch.equal(fresh.weight, expected.weight)
    sumout.module("net", fresh, update_module_params=True)
    assert torch.equal(fresh.weight, expected.weight)
    assert torch.equal(fresh.state_dict()["bias"], expected.bias)
    again = infer.SVI(regression(fresh), nothing, optim.Adam(lr=0.05), infer.Trace_ELBO())
    again.optim.load(tmp_path / "optimizer")
    assert again.optim.get_state().keys() == fit_on.keys()
    again.run(5, X, Y)
    torch.testing.assert_close(fresh.weight, net.weight)


def test_going_back_to_a_state_takes_the_module_along() -> None:
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 1)
    svi = fit(net, 5)
    state, weight = sumout.get_param_store().get_state(), net.weight.detach().clone()
    svi.run(5, X, Y)
    assert not torch.equal(net.weight, weight)
    sumout.get_param_store().set_state(state)
    assert torch.equal(net.weight, weight)
    svi.run(1, X, Y)  # and it is the module's own parameters that are stepped
    assert not torch.equal(net.weight, weight)


def test_a_module_that_takes_the_parameters_of_the_store() -> None:
    """Tied ones stay tied; one that is made in every run is fitted as one that is made once."""
    torch.manual_seed(0)
    fit(net := Tied(), 5)
    state = sumout.get_param_store().get_state()
    sumout.clear_param_store()
    sumout.get_param_store().set_state(state)
    last = Tied()

    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        nonlocal last
        last = Tied()
        used = sumout.module("net", last, update_module_params=True)
        with plate("data", len(x)):
            sample("y", dist.Normal(used(x).squeeze(-1), 0.5), obs=y)

    infer.SVI(model, nothing, optim.Adam(lr=0.05), infer.Trace_ELBO()).run(4, X, Y)
    once = infer.SVI(regression(net), nothing, optim.Adam(lr=0.05), infer.Trace_ELBO())
    with sumout.get_param_store().scope():
        once.run(4, X, Y)
    torch.testing.assert_close(last.one.weight, net.one.weight)
    assert last.two.weight is last.one.weight
    assert isinstance(last.one.weight, torch.nn.Parameter)
    assert last.one.weight.grad is None
    wide = torch.nn.Module()
    wide.one = torch.nn.Linear(4, 3, bias=False)
    with pytest.raises(ModelError, match=r"'one.weight' of module 'net' has shape \(3, 4\), and \(3, 3\) in"):
        sumout.module("net", wide, update_module_params=True)


@pytest.mark.parametrize("returned", [True, False])
def test_trial_runs_leave_buffers_alone(returned: bool) -> None:
    """One step, one batch: running means are those of torch's own loop. Pyro's users often use the module itself."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    plain = copy.deepcopy(net)

    @infer.config_enumerate
    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        used = sumout.module("net", net)
        with plate("data", len(x)):
            z = sample("z", dist.Bernoulli(logits=(used if returned else net)(x).squeeze(-1)))
            sample("y", dist.Normal(z, 0.5), obs=y)

    svi = infer.SVI(model, nothing, optim.SGD(lr=0.01), infer.TraceEnum_ELBO())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01)
    for step in range(1, 3):
        svi.step(X, Y)
        optimizer.zero_grad()
        chance = torch.sigmoid(plain(X).squeeze(-1))
        terms = [p.log() + dist.Normal(z, 0.5).log_prob(Y) for z, p in ((0.0, 1 - chance), (1.0, chance))]
        (-torch.stack(terms).logsumexp(0).sum()).backward()
        optimizer.step()
        assert net[1].num_batches_tracked == step
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, plain.state_dict()[name], msg=name)


def test_parameters_without_a_shape_are_told() -> None:
    net = torch.nn.LazyLinear(1)
    with pytest.raises(ModelError, match="'weight' of module 'net' has no shape yet"):
        fit(net, 1)
    net(X)
    fit(net, 1)
    assert sumout.get_param_store()["net$$$weight"] is net.weight


NETWORKS = {
    "linear": lambda: torch.nn.Linear(3, 1),
    "nested": lambda: torch.nn.Sequential(
        torch.nn.Linear(3, 2), torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Linear(2, 1))
    ),
    "recurrent": lambda: Recurrent(),
    "tied": lambda: Tied(),
}


class Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = torch.nn.GRU(3, 2, batch_first=True)
        self.out = torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.cell(x.unsqueeze(1))[0][:, -1])


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(3, 3, bias=False)
        self.two = torch.nn.Linear(3, 3, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.one(x))).sum(-1, keepdim=True)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_lifted_parameters_are_used_and_the_module_stays_as_it_is(make) -> None:
    torch.manual_seed(0)
    net = make()
    before = copy.deepcopy(net.state_dict())
    lifted = poutine.lift(
        regression(net), prior={f"net$$${key}": prior for key, prior in priors(net).items()}
    )
    means = []
    for _ in range(2):  # The second run is like the first.
        run = poutine.trace(lifted).get_trace(X, Y)
        names = [f"net$$${key}" for key, _ in net.named_parameters()]
        assert [name for name in run.nodes if name.startswith("net")] == names
        values = {key: run.nodes[f"net$$${key}"]["value"] for key, _ in net.named_parameters()}
        expected = torch.func.functional_call(net, values, (X,)).squeeze(-1)
        mean = run.nodes["y"]["fn"].mean
        torch.testing.assert_close(mean, expected)
        means.append(mean)
        assert torch.equal(torch.cat([*map(torch.flatten, net.state_dict().values())]), flat(before))
        assert all(isinstance(each, torch.nn.Parameter) for each in net.parameters())
    assert not torch.equal(*means)
    # And what was drawn can be given: the posterior predictive of a Bayesian network.
    draws = {f"net$$${key}": torch.stack([value, value + 1]) for key, value in values.items()}
    drawn = infer.Predictive(lifted, draws, return_sites=["y"])(X)
    assert drawn["y"].shape == (2, 4)


def flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([*map(torch.flatten, state.values())])


def test_gradients_reach_values_that_a_handler_gives() -> None:
    net = torch.nn.Linear(3, 1)
    weight = torch.ones(1, 3, requires_grad=True)
    given = poutine.substitute(regression(net), data={"net$$$weight": weight})
    log_prob = poutine.trace(given).get_trace(X, Y).log_prob_sum()
    (slope,) = torch.autograd.grad(log_prob, weight)
    residual = Y - (X @ weight.T + net.bias).squeeze(-1)
    torch.testing.assert_close(slope, ((residual / 0.25) @ X).unsqueeze(0).detach())


def test_nuts_on_a_small_network() -> None:
    """A lifted network has a potential; for a linear one it is that of a linear regression."""
    net = torch.nn.Linear(3, 1).double()
    lifted = poutine.lift(
        regression(net), prior={f"net$$${key}": prior for key, prior in priors(net).items()}
    )
    potential = infer.potential_fn(lifted, X.double(), Y.double())
    w, b = torch.randn(1, 3).double(), torch.randn(1).double()
    log = dist.Normal(0.0, 1.0).log_prob(w).sum() + dist.Normal(0.0, 1.0).log_prob(b).sum()
    log = log + dist.Normal((X.double() @ w.T + b).squeeze(-1), 0.5).log_prob(Y.double()).sum()
    torch.testing.assert_close(potential({"net$$$weight": w, "net$$$bias": b}), -log, rtol=1e-9, atol=1e-9)


def test_to_another_type_between_steps() -> None:
    """The state of the optimizer follows the parameter."""
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 1)
    svi = fit(net, 5)
    single = copy.deepcopy(net)
    net.double()
    loss = svi.step(X.double(), Y.double())
    assert sumout.get_param_store()["net$$$weight"].dtype == torch.float64
    state = svi.optim.get_state()["net$$$weight"]["state"][0]
    assert state["exp_avg"].dtype == torch.float64
    assert state["step"] == 6
    assert 0 < (net.weight - single.weight).abs().max() < 0.06
    assert loss == pytest.approx(svi.history[-1], rel=0.5)


def test_types_that_do_not_go_together_are_told() -> None:
    net = torch.nn.Linear(3, 1)
    with pytest.raises(
        RuntimeError, match=r"(?s)net\$\$\$weight.*float32.*arguments.*float64.*\.to\("
    ) as told:
        poutine.trace(regression(net)).get_trace(X.double(), Y.double())
    assert "dtype" in str(told.value)
    assert "Trace Shapes" in str(told.value)
    asked = [infer.log_evidence(regression(net)), lambda *data: infer.potential_fn(regression(net), *data)]
    for ask in asked:
        with pytest.raises(RuntimeError, match=r"(?s)net\$\$\$weight.*float32.*arguments.*float64.*\.to\("):
            ask(X.double(), Y.double())


def test_mixed_precision() -> None:
    """Under autocast the network works in half the digits, and the sums over discrete sites do not."""
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 1)

    @infer.config_enumerate
    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        used = sumout.module("net", net)
        with plate("data", len(x)):
            z = sample("z", dist.Bernoulli(logits=used(x).squeeze(-1)))
            sample("y", dist.Normal(z, 0.5), obs=y)

    exact = infer.TraceEnum_ELBO().loss(model, nothing, X, Y)
    svi = infer.SVI(model, nothing, optim.Adam(lr=0.01), infer.TraceEnum_ELBO())
    before = net.weight.detach().clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = svi.step(X, Y)
    assert loss == pytest.approx(exact, abs=0.05)
    assert net.weight.dtype == torch.float32
    assert not torch.equal(net.weight, before)


def test_wrong_use() -> None:
    with pytest.raises(ModelError, match="instance"):
        sumout.module("net", torch.nn.Linear)
    with pytest.raises(ModelError, match="divides"):
        sumout.module("a$$$b", torch.nn.Linear(1, 1))
