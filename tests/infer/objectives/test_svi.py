"""SVI learns what can be known otherwise, and leaves nothing behind."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

import sumout
import sumout.distributions as dist
from sumout import infer, optim
from sumout.errors import EnumerationError, ModelError
from sumout.infer import config_enumerate
from sumout.infer.objectives.svi import SVI
from sumout.infer.objectives.trace_elbo import Trace_ELBO
from sumout.infer.objectives.traceenum_elbo import TraceEnum_ELBO

DATA = torch.tensor([1.5, 0.5, 2.0, 1.0, 3.0], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _own_parameters():
    with sumout.get_param_store().scope():
        yield


def model(x: torch.Tensor) -> None:
    z = sumout.sample("z", dist.Normal(x.new_zeros(()), 2.0))
    with sumout.plate("data", len(x)):
        sumout.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x: torch.Tensor) -> None:
    loc = sumout.param("loc", x.new_zeros(()))
    scale = sumout.param("scale", x.new_ones(()), constraint=dist.constraints.positive)
    sumout.sample("z", dist.Normal(loc, scale))


def test_a_conjugate_posterior_is_found() -> None:
    svi = SVI(
        model, guide, optim.ClippedAdam({"lr": 0.05, "lrd": 0.995}), Trace_ELBO(20, vectorize_particles=True)
    )
    losses = svi.run(1000, DATA)

    precision = 1 / 4 + len(DATA)
    store = sumout.get_param_store()
    assert store["loc"].item() == pytest.approx(DATA.sum().item() / precision, abs=0.01)
    assert store["scale"].item() == pytest.approx(precision**-0.5, abs=0.01)
    covariance = torch.eye(5, dtype=torch.float64) + 4.0
    evidence = dist.MultivariateNormal(torch.zeros(5, dtype=torch.float64), covariance).log_prob(DATA).item()
    # With the posterior as the guide every estimate is exact.
    assert losses[-1] == pytest.approx(-evidence, abs=0.01)
    assert svi.evaluate_loss(DATA) == pytest.approx(-evidence, abs=0.01)


def test_maximum_likelihood_with_states_summed_out() -> None:
    """EM's fixed point: at a maximum, the weight of a component is its mean responsibility."""

    @config_enumerate
    def mixture(x: torch.Tensor) -> None:
        weight = sumout.param("weight", torch.tensor(0.4).double(), constraint=dist.constraints.unit_interval)
        with sumout.plate("data", len(x)):
            z = sumout.sample("z", dist.Bernoulli(weight))
            sumout.sample("x", dist.Normal(2.0 * z, 0.7), obs=x)

    svi = SVI(mixture, lambda x: None, optim.Adam({"lr": 0.05}), TraceEnum_ELBO())
    svi.run(300, DATA)
    weight = sumout.get_param_store()["weight"].item()
    likely = [weight * math.exp(-0.5 * ((x - 2.0) / 0.7) ** 2) for x in DATA.tolist()]
    unlikely = [(1 - weight) * math.exp(-0.5 * (x / 0.7) ** 2) for x in DATA.tolist()]
    responsibilities = [a / (a + b) for a, b in zip(likely, unlikely, strict=True)]
    assert weight == pytest.approx(sum(responsibilities) / 5, abs=1e-6)


def test_a_step_clears_gradients_and_steps_only_what_was_used() -> None:
    def switching(x: torch.Tensor, which: str) -> None:
        a = sumout.param("a", x.new_zeros(()))
        value = sumout.param(which, x.new_zeros(())) if which != "a" else a.detach()
        with sumout.plate("data", len(x)):
            sumout.sample("x", dist.Normal(value, 1.0), obs=x)

    svi = SVI(switching, lambda x, which: None, optim.Adam({"lr": 0.1}), Trace_ELBO())
    store = sumout.get_param_store()
    svi.step(DATA, "b")
    after = store["b"].item()
    assert after != 0
    assert store["a"].item() == 0  # used, but without influence on the loss
    svi.step(DATA, "c")
    assert store["b"].item() == after  # not used this time
    assert all(leaf.grad is None for _, leaf in store.named_parameters())
    assert set(svi.optim.get_state()) == {"b", "c"}


def test_evaluating_changes_nothing() -> None:
    svi = SVI(model, guide, optim.Adam({"lr": 0.1}), Trace_ELBO())
    svi.step(DATA)
    before = {name: leaf.detach().clone() for name, leaf in sumout.get_param_store().named_parameters()}
    assert isinstance(svi.evaluate_loss(DATA), float)
    for name, leaf in sumout.get_param_store().named_parameters():
        assert torch.equal(leaf, before[name])
        assert leaf.grad is None


def test_a_loss_may_be_a_function() -> None:
    def loss(model, guide, x):
        return (sumout.param("w", x.new_ones(())) - 3.0) ** 2

    svi = SVI(model, guide, optim.SGD({"lr": 0.25}), loss)
    assert svi.step(DATA) == 4.0
    assert sumout.get_param_store()["w"].item() == 2.0
    assert svi.evaluate_loss(DATA) == 1.0


def test_a_bar_is_shown_on_a_terminal_only(capsys, monkeypatch) -> None:
    svi = SVI(model, guide, optim.Adam(lr=0.1), Trace_ELBO())
    assert len(svi.run(3, DATA)) == 3
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # by which rich takes anything for a terminal
    assert len(svi.run(3, DATA)) == 3
    shown = capsys.readouterr().err
    assert "fitting" in shown
    assert f"{svi.history[-1]:.6g}" in shown
    assert len(svi.run(3, DATA, progress=False)) == 3
    assert capsys.readouterr() == ("", "")


def test_the_history_of_all_runs_and_of_each() -> None:
    svi = SVI(model, guide, optim.Adam(lr=0.1), Trace_ELBO())
    first, second = svi.run(3, DATA), svi.run(2, DATA)
    assert list(svi.history) == [*first, *second]
    assert torch.equal(svi.history.tensor, torch.cat([first.tensor, second.tensor]))
    assert svi.history[1:3] == [first[1], first[2]]
    assert torch.allclose(first.smoothed(2), (first.tensor[1:] + first.tensor[:-1]) / 2)
    axes = first.plot()
    assert list(axes.lines[0].get_ydata()) == list(first)


OBJECTIVES = [
    name
    for name, value in vars(infer).items()
    if isinstance(value, type) and issubclass(value, infer.ELBO) and not inspect.isabstract(value)
]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_objective_is_made_smaller(name: str) -> None:
    """Of a model with a discrete and a continuous site; objectives that do not sum out draw the discrete one."""

    @config_enumerate
    def mixed(x: torch.Tensor) -> None:
        z = sumout.sample("z", dist.Normal(x.new_zeros(()), 2.0))
        with sumout.plate("data", len(x)):
            k = sumout.sample("k", dist.Bernoulli(torch.tensor(0.5).double()))
            sumout.sample("x", dist.Normal(z + k, 1.0), obs=x)

    torch.manual_seed(0)
    svi = SVI(mixed, guide, optim.Adam(lr=0.1), getattr(infer, name)())
    losses = svi.run(60, DATA)
    assert len(losses) == 60
    assert losses.tensor.isfinite().all()
    assert losses.tensor[-20:].mean() < losses.tensor[:5].mean()
    assert math.isfinite(svi.evaluate_loss(DATA))


def test_an_interrupted_run_can_go_on() -> None:
    """An interrupt inside a step leaves parameters as after the step before, no gradients, and the losses so far."""
    steps = []

    def interrupting(x: torch.Tensor) -> None:
        steps.append(0)
        model(x)
        if len(steps) == 4:
            raise KeyboardInterrupt

    with sumout.get_param_store().scope() as plain:
        torch.manual_seed(0)
        SVI(model, guide, optim.Adam(lr=0.1), Trace_ELBO()).run(3, DATA)
    torch.manual_seed(0)
    svi = SVI(interrupting, guide, optim.Adam(lr=0.1), Trace_ELBO())
    with pytest.raises(KeyboardInterrupt):
        svi.run(10, DATA)
    assert len(svi.history) == 3
    for name, leaf in sumout.get_param_store().named_parameters():
        assert torch.equal(leaf, plain["params"][name])
        assert leaf.grad is None
    svi.run(2, DATA)
    assert len(svi.history) == 5


def test_a_torch_optimizer_is_refused() -> None:
    with pytest.raises(TypeError, match=r"sumout.optim.Adam"):
        SVI(model, guide, torch.optim.Adam([torch.zeros(1, requires_grad=True)]), Trace_ELBO())


def test_the_objective_as_a_torch_module() -> None:
    class Shift(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> None:
            with sumout.plate("data", len(x)):
                sumout.sample("x", dist.Normal(self.loc, 1.0), obs=x)

    shift = Shift()
    loss = Trace_ELBO()(shift, lambda x: None)
    optimizer = torch.optim.LBFGS(loss.parameters())

    def closure():
        optimizer.zero_grad()
        value = loss(DATA)
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(closure)
    assert shift.loc.item() == pytest.approx(DATA.mean().item(), abs=1e-6)


def test_what_is_no_program_no_loss_and_no_number_of_steps() -> None:
    with pytest.raises(TypeError, match=r"guide is None.*lambda \*args: None"):
        SVI(model, None, optim.Adam(lr=0.1), Trace_ELBO())
    with pytest.raises(TypeError, match=r"loss is .*e\.g\. infer\.TraceEnum_ELBO\(\)"):
        SVI(model, guide, optim.Adam(lr=0.1), TraceEnum_ELBO)
    svi = SVI(model, guide, optim.Adam(lr=0.1), Trace_ELBO())
    for wrong in (-1, DATA, 2.0):
        with pytest.raises(ModelError, match="num_steps is"):
            svi.run(wrong, DATA)


def test_a_nan_ends_a_step_before_it_spoils_the_parameters() -> None:
    """The site, or the parameter, is named; nothing is stepped, and the next step can be a right one."""

    def edge(x: torch.Tensor) -> None:
        spread = sumout.param("spread", torch.tensor(0.0, dtype=torch.float64))
        sumout.param("other", torch.tensor(1.0, dtype=torch.float64))
        with sumout.plate("data", len(x)):
            sumout.sample("x", dist.Normal(0.0, 1.0 + torch.sqrt(spread * spread)), obs=x)

    svi = SVI(edge, lambda x: None, optim.Adam(lr=0.1), Trace_ELBO())
    with pytest.raises(
        ModelError, match=r"gradient of parameter 'spread' is NaN, at 0.0 .*No parameter was changed"
    ):
        svi.step(DATA)
    leaf = sumout.param("spread").unconstrained()
    assert leaf.item() == 0.0
    assert leaf.grad is None
    with torch.no_grad():
        leaf.fill_(0.5)
    assert math.isfinite(svi.step(DATA))

    def cancelling(x: torch.Tensor) -> None:
        sumout.param("spread")
        sumout.factor("minus", torch.tensor(-math.inf))
        sumout.factor("plus", sumout.param("spread") * math.inf)

    quiet = pytest.warns(UserWarning, match="The loss is NaN")
    told = r"The loss is NaN. .*'minus' of the model \(infinite\), 'plus' of the model \(infinite\)"
    with quiet, pytest.raises(ModelError, match=told):
        SVI(cancelling, lambda x: None, optim.Adam(lr=0.1), Trace_ELBO()).step(DATA)
    with torch.no_grad():
        leaf.fill_(math.nan)
    own = SVI(edge, lambda x: None, optim.Adam(lr=0.1), lambda *args: sumout.param("spread") * 1.0)
    with pytest.raises(ModelError, match="Parameter 'spread' is nan"):
        own.run(3, DATA)
    with sumout.validation_enabled(False):
        assert math.isnan(own.step(DATA))


def across_a_plate(x: torch.Tensor) -> None:
    """Moves along the dimension of values: right with one value each, and nonsense with all at once."""
    chance = sumout.param("chance", torch.tensor(0.3), constraint=dist.constraints.unit_interval)
    with sumout.plate("data", 2):
        z = sumout.sample("z", dist.Bernoulli(chance), infer={"enumerate": "parallel"})
        sumout.sample("x", dist.Normal(z.flip(0), 1.0), obs=x)


def test_steps_compare_the_first_run_with_a_plain_one() -> None:
    """As losses do: a handler that notes which parameters are used is no reason not to."""
    x = torch.tensor([0.0, 0.0])
    loss = SVI(across_a_plate, lambda x: None, optim.Adam(lr=0.0), TraceEnum_ELBO()).step(x)
    zero, one = (dist.Normal(mean, 1.0).log_prob(x[0]).exp() for mean in (0.0, 1.0))
    assert loss == pytest.approx(-2 * torch.log(0.7 * zero + 0.3 * one).item(), abs=1e-5)


@pytest.mark.parametrize("ask", ["svi", "recorded", "marginals", "discrete"])
def test_what_has_no_meaning_is_refused_under_handlers_too(ask: str) -> None:
    def over_a_plate(x: torch.Tensor) -> None:
        with sumout.plate("data", 2):
            z = sumout.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            sumout.sample("x", dist.Normal(z.sum() * torch.ones(2), 1.0), obs=x)

    x, elbo = torch.zeros(2), TraceEnum_ELBO()
    asked = {
        "svi": lambda: SVI(over_a_plate, lambda x: None, optim.Adam(lr=0.1), elbo).step(x),
        "recorded": lambda: infer.JitTraceEnum_ELBO().loss_and_grads(over_a_plate, lambda x: None, x),
        "marginals": lambda: elbo.compute_marginals(over_a_plate, lambda x: None, x),
        "discrete": lambda: sumout.poutine.trace(infer.infer_discrete(over_a_plate)).get_trace(x),
    }
    with pytest.raises(EnumerationError, match="do not stay along the dimensions"):
        asked[ask]()
