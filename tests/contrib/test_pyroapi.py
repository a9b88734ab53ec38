"""Programs written against pyro-api: right numbers, and the numbers of the backend "pyro"."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pyroapi
import pytest
import torch
from pyroapi import distributions as dist
from pyroapi import handlers, infer, ops, optim, pyro, pyro_backend
from torch import Tensor

import sumout
import sumout_contrib.pyroapi
from sumout_contrib.pyroapi import BACKEND

MODULES = {
    name: getattr(pyroapi, name) for name in ("pyro", "distributions", "handlers", "infer", "optim", "ops")
}
X = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)
Y = 1.5 * X + 0.5 + 0.1 * torch.cos(7 * X)
COUNTS = torch.tensor([0.0, 2.0, 1.0, 9.0, 11.0, 3.0], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _empty_param_stores() -> Iterator[None]:
    yield
    for backend in ("sumout", "pyro"):
        with pyro_backend(backend):
            pyro.clear_param_store()
            pyro.enable_validation(True)


def on_both(task: Callable[[], Any], **tolerance: float) -> Any:
    """What the task gives with our backend, after a check that Pyro's gives the same; both begin with one seed."""
    found = {}
    for backend in ("pyro", "sumout"):
        with pyro_backend(backend):
            pyro.clear_param_store()
            found[backend] = task()
    torch.testing.assert_close(found["sumout"], found["pyro"], **(tolerance or {"rtol": 1e-7, "atol": 1e-9}))
    return found["sumout"]


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# ------------------------------------------------------------------------------------------ the registration


def test_the_backend_is_for_every_module_of_pyro_api() -> None:
    assert set(BACKEND) == set(MODULES)
    with pyro_backend("sumout"):
        assert pyro.sample is sumout.sample
        assert pyro.plate is sumout.plate
        assert handlers.trace is sumout.poutine.trace
        assert dist.Normal is sumout.distributions.Normal
        assert optim.Adam is sumout.optim.Adam
        assert infer.SVI is sumout.infer.SVI
        assert issubclass(infer.Trace_ELBO, sumout.infer.Trace_ELBO)
        assert ops.matmul is torch.matmul
    assert pyro.sample is not sumout.sample  # as before


def test_single_modules_can_be_chosen() -> None:
    with pyro_backend(handlers="sumout_contrib.pyroapi.handlers", pyro="sumout_contrib.pyroapi.pyro"):
        assert pyro.param is sumout.param
        assert infer.SVI is not sumout.infer.SVI


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"ops"}))
def test_every_name_that_is_listed_resolves(module: str) -> None:
    with pyro_backend("sumout"):
        listed = dir(importlib.import_module(BACKEND[module]))
        assert len(listed) > 15
        for name in listed:
            assert getattr(MODULES[module], name) is not None


def test_statements_of_the_language_are_all_there() -> None:
    names = """sample param plate plate_stack markov factor deterministic subsample barrier module condition do
    get_param_store clear_param_store set_rng_seed enable_validation validation_enabled poutine infer optim
    distributions"""
    with pyro_backend("sumout"):
        assert all(hasattr(pyro, name) for name in names.split())
        assert pyro.poutine.trace is handlers.trace
        assert pyro.infer.Trace_ELBO is infer.Trace_ELBO


@pytest.mark.parametrize("module", ["pyro", "infer", "optim", "handlers", "distributions"])
def test_each_of_pyros_public_names_is_there_or_is_refused_by_name(module: str) -> None:
    with pyro_backend("pyro"):
        names = MODULES[module].__all__
    missing = {}
    with pyro_backend("sumout"):
        for name in names:
            try:
                getattr(MODULES[module], name)
            except NotImplementedError as error:
                missing[name] = str(error.__context__)
    assert all(f"no {module}.{name}." in message for name, message in missing.items())
    assert module != "distributions" or missing == {}
    assert not {"SVI", "Trace_ELBO", "TraceEnum_ELBO", "config_enumerate", "Adam", "sample"} & missing.keys()


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: pyro.smaple, "'sample'"),
        (lambda: pyro.iarange, "Use plate"),
        (lambda: handlers.blok, "'block'"),
        (lambda: dist.Normall, "'Normal'"),
        (lambda: optim.Adma, "'Adam'"),
        (lambda: optim.LBFGS, "torch.optim.LBFGS"),
        (lambda: infer.NUTS, "no samplers"),
    ],
    ids=["smaple", "iarange", "blok", "Normall", "Adma", "LBFGS", "NUTS"],
)
def test_a_name_that_is_not_there(ask: Callable[[], Any], told: str) -> None:
    with pyro_backend("sumout"), pytest.raises(NotImplementedError) as refused:
        ask()
    # pyro-api makes its own error of an AttributeError, and Python shows both.
    assert isinstance(refused.value.__context__, AttributeError)
    assert told in str(refused.value.__context__)


def test_modules_of_the_backend_are_no_packages_of_ours() -> None:
    with pytest.raises(ImportError):
        __import__("sumout_contrib.pyroapi.handlers.trace_messenger")
    assert not hasattr(sumout_contrib.pyroapi.infer, "__path__")


def test_a_missing_package_is_told_with_the_extra_that_brings_it() -> None:
    script = (
        "import sys; sys.modules['pyroapi'] = None\n"
        "from sumout.errors import MissingExtraError\n"
        "try:\n    import sumout_contrib.pyroapi\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "needs the package 'pyro-api'" in run.stdout, run.stderr
    assert "sumout[pyroapi]" in run.stdout


# ----------------------------------------------------------------------------------- variational inference


def regression(x: Tensor, y: Tensor) -> None:
    """Intercept and slope ~ N(0, 2), y ~ N(slope x + intercept, 0.5)."""
    w = [pyro.sample(f"w_{i}", dist.Normal(number(0.0), 2.0)) for i in range(2)]
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w[0] + w[1] * x, 0.5), obs=y)


def regression_guide(x: Tensor, y: Tensor) -> None:
    loc = pyro.param("loc", lambda: ops.zeros(2, dtype=ops.float64))
    scale = pyro.param("scale", lambda: ops.ones(2, dtype=ops.float64), constraint=dist.constraints.positive)
    for i in range(2):
        pyro.sample(f"w_{i}", dist.Normal(loc[i], scale[i]))


def regression_posterior() -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and log-evidence, for a design whose columns are orthogonal."""
    design = torch.stack([torch.ones_like(X), X], dim=-1)
    precision = design.T @ design / 0.25 + torch.eye(2, dtype=torch.float64) / 4
    assert precision[0, 1].abs() < 1e-12
    mean = torch.linalg.solve(precision, design.T @ Y / 0.25)
    covariance = 0.25 * torch.eye(len(X), dtype=torch.float64) + 4 * design @ design.T
    evidence = torch.distributions.MultivariateNormal(torch.zeros_like(Y), covariance).log_prob(Y)
    return mean, precision.diagonal().rsqrt(), evidence


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "Adam": lambda: optim.Adam({"lr": 0.05}),
    "ClippedAdam": lambda: optim.ClippedAdam({"lr": 0.05, "lrd": 0.9, "clip_norm": 2.0}),
    "SGD": lambda: optim.SGD({"lr": 0.001, "momentum": 0.9}),
    "RMSprop": lambda: optim.RMSprop({"lr": 0.05}),
    "Adagrad": lambda: optim.Adagrad({"lr": 0.5}, {"clip_norm": 3.0}),
    "PyroOptim": lambda: optim.PyroOptim(torch.optim.AdamW, {"lr": 0.05}),
    "by name": lambda: optim.Adam(lambda name: {"lr": 0.05 if name == "loc" else 0.01}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_of_svi(name: str) -> None:
    def task() -> Any:
        svi = infer.SVI(regression, regression_guide, OPTIMIZERS[name](), infer.Trace_ELBO())
        losses = [svi.step(X, Y) for _ in range(5)]
        return losses, {name: value.detach() for name, value in pyro.get_param_store().items()}

    losses, params = on_both(task, rtol=1e-6, atol=1e-8)  # Pyro's ClippedAdam scales its eps otherwise
    assert sorted(params) == ["loc", "scale"]
    assert len(set(losses)) == 5


def test_svi_arrives_at_the_posterior() -> None:
    mean, deviation, evidence = regression_posterior()
    with pyro_backend("sumout"):
        elbo = infer.Trace_ELBO(num_particles=20, vectorize_particles=True, ignore_jit_warnings=True)
        svi = infer.SVI(regression, regression_guide, optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}), loss=elbo)
        for _ in range(500):
            svi.step(X, Y)
        store = pyro.get_param_store()
        # The noise of 20 draws a step, averaged over the last hundred steps or so of a decaying rate.
        torch.testing.assert_close(store["loc"].detach(), mean, atol=0.02, rtol=0)
        torch.testing.assert_close(store["scale"].detach(), deviation, atol=0.02, rtol=0)
        assert svi.evaluate_loss(X, Y) == pytest.approx(-float(evidence), abs=0.1)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_particles": 3},
        {"num_particles": 3, "vectorize_particles": True, "max_plate_nesting": 1},
        {"max_plate_nesting": math.inf, "strict_enumeration_warning": False, "retain_graph": True},
        {"ignore_jit_warnings": True, "jit_options": {"check_trace": False}, "tail_adaptive_beta": -0.5},
    ],
    ids=str,
)
def test_arguments_of_objectives(arguments: dict[str, Any]) -> None:
    def task() -> Any:
        loss = infer.Trace_ELBO(**arguments).differentiable_loss(regression, regression_guide, X, Y)
        leaves = [pyro.param(name).unconstrained() for name in ("loc", "scale")]
        return loss.detach(), torch.autograd.grad(loss, leaves)

    on_both(task)


def test_the_old_name_of_an_argument() -> None:
    with pyro_backend("sumout"):
        assert infer.Trace_ELBO(max_iarange_nesting=2).max_plate_nesting == 2
        assert infer.Trace_ELBO().max_plate_nesting is None


@pytest.mark.parametrize("name", ["Trace_ELBO", "TraceEnum_ELBO"])
def test_a_compiled_objective_gives_the_same_and_says_that_it_is_not_compiled(name: str) -> None:
    def loss(objective: str, **arguments: Any) -> float:
        with pyro_backend("sumout"):
            pyro.clear_param_store()
            elbo = getattr(infer, objective)(strict_enumeration_warning=False, **arguments)
            value: float = elbo.loss(regression, regression_guide, X, Y)
            return value

    plain = loss(name)
    assert loss(f"Jit{name}", ignore_jit_warnings=True) == plain
    with pytest.warns(UserWarning, match=f"Jit{name} is {name} in sumout.*not compiled"):
        assert loss(f"Jit{name}") == plain


def test_a_loss_that_is_a_function() -> None:
    def task() -> Any:
        elbo = infer.Trace_ELBO()
        svi = infer.SVI(regression, regression_guide, optim.Adam({"lr": 0.1}), elbo.differentiable_loss)
        return [float(svi.step(X, Y)) for _ in range(3)]

    on_both(task)


# ----------------------------------------------------------------------------------------- exact enumeration


def mixture(counts: Tensor) -> None:
    weights = pyro.param("weights", lambda: vector(0.3, 0.7), constraint=dist.constraints.simplex)
    rates = pyro.param("rates", lambda: vector(1.0, 8.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(counts)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("count", dist.Poisson(rates[z]), obs=counts)


def nothing(*args: Any) -> None:
    pass


def test_the_evidence_of_a_mixture() -> None:
    def task() -> Any:
        loss = infer.TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(mixture, nothing, COUNTS)
        leaves = [pyro.param(name).unconstrained() for name in ("weights", "rates")]
        return loss.detach(), torch.autograd.grad(loss, leaves)

    loss, _ = on_both(task)
    rates, weights = vector(1.0, 8.0), vector(0.3, 0.7)
    table = COUNTS[:, None] * rates.log() - rates - (COUNTS[:, None] + 1).lgamma() + weights.log()
    torch.testing.assert_close(loss, -table.logsumexp(-1).sum())


def test_marginals_of_a_mixture() -> None:
    def task() -> Any:
        elbo = infer.TraceEnum_ELBO(max_plate_nesting=1)
        return elbo.compute_marginals(mixture, nothing, COUNTS)["z"].probs.detach()

    probs = on_both(task)
    odds = 0.7 / 0.3 * math.exp(-8.0) / math.exp(-1.0)  # of the second rate at a count of zero
    torch.testing.assert_close(probs[0, 1], number(odds / (1 + odds)))


def test_training_a_mixture() -> None:
    def task() -> Any:
        elbo = infer.TraceEnum_ELBO(max_plate_nesting=1)
        svi = infer.SVI(mixture, nothing, optim.Adam({"lr": 0.05}), elbo)
        losses = [svi.step(COUNTS) for _ in range(30)]
        return losses, [pyro.param(name).detach() for name in ("weights", "rates")]

    losses, _ = on_both(task)
    assert losses[-1] < losses[0] - 0.5


def test_a_chain_with_config_enumerate() -> None:
    table = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)

    def chain(data: Tensor) -> None:
        state = 0
        for t in pyro.markov(range(len(data))):
            state = pyro.sample(f"state_{t}", dist.Categorical(table[state]))
            pyro.sample(f"x_{t}", dist.Normal(2.0 * state, number(1.0)), obs=data[t])

    data = vector(0.1, 1.7, 2.2, -0.3)

    def task() -> Any:
        elbo = infer.TraceEnum_ELBO(max_plate_nesting=0)
        return elbo.loss(infer.config_enumerate(chain), nothing, data)

    loss = on_both(task)
    forward = vector(1.0, 0.0)
    for x in data:
        forward = (forward @ table) * torch.exp(-0.5 * (x - vector(0.0, 2.0)) ** 2) / math.sqrt(2 * math.pi)
    assert loss == pytest.approx(-float(forward.sum().log()))


# --------------------------------------------------------------------------------- plates and other statements


def statements() -> Tensor:
    """A program with every statement of the language."""
    net = pyro.module("net", LINEAR)
    shift = pyro.param("shift", number(0.5))
    z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
    columns = pyro.plate("columns", 3, dim=-1)
    with pyro.plate("rows", 2, dim=-2), columns:
        grid = pyro.sample("grid", dist.Normal(z, 1.0).expand([2, 1]))
    with columns:
        pyro.sample("count", dist.Poisson(grid.exp().sum(0)), obs=vector(1.0, 2.0, 3.0))
    with pyro.plate("batch", 10, subsample_size=4) as indices:
        part = pyro.subsample(torch.arange(10.0, dtype=torch.float64), event_dim=0)
        assert part.shape == indices.shape == (4,)
        x = pyro.sample("x", dist.Normal(net(part[:, None])[:, 0] + shift, 1.0), obs=part)
    for i in pyro.plate("loop", 2):
        pyro.sample(f"y_{i}", dist.Bernoulli(logits=z + i), obs=number(1.0))
    pyro.factor("weight", -(z**2))
    twice = pyro.deterministic("twice", 2 * z)
    total: Tensor = twice + x.sum()
    return total


LINEAR = torch.nn.Linear(1, 1, dtype=torch.float64)


def recorded(program: Callable[..., Any], *args: Any) -> Any:
    """Values and log-probabilities of a run."""
    record = handlers.trace(program).get_trace(*args)
    record.compute_log_prob()
    samples = {name: site for name, site in record.nodes.items() if site["type"] == "sample"}
    values = {name: torch.as_tensor(site["value"]).detach() for name, site in samples.items()}
    scores = {name: site["log_prob_sum"].detach() for name, site in samples.items() if name != "batch"}
    return values, scores


def test_every_statement() -> None:
    def task() -> Any:
        found = recorded(statements)
        assert sorted(pyro.get_param_store().keys()) == ["net$$$bias", "net$$$weight", "shift"]
        return found

    values, scores = on_both(task)
    assert {"z", "grid", "count", "batch", "x", "y_0", "y_1", "weight", "twice"} <= values.keys()
    torch.testing.assert_close(scores["weight"], -(values["z"] ** 2))


def test_the_parameter_store_the_seed_and_the_switch_of_checks() -> None:
    def task() -> Any:
        pyro.set_rng_seed(3)
        pyro.param("a", lambda: ops.rand(2, dtype=ops.float64), constraint=dist.constraints.positive)
        store = pyro.get_param_store()
        state = store.get_state()
        pyro.clear_param_store()
        assert "a" not in store
        store.set_state(state)
        return store["a"].detach(), {name: leaf.detach() for name, leaf in store.named_parameters()}

    value, leaves = on_both(task)
    torch.testing.assert_close(leaves["a"], value.log())
    with pyro_backend("sumout"):
        pyro.enable_validation(False)
        assert not infer.is_validation_enabled()
        infer.enable_validation(True)
        assert sumout.settings.validation


# ---------------------------------------------------------------------------------------------- handlers


def program() -> Tensor:
    s = pyro.param("s", number(0.5), constraint=dist.constraints.positive)
    a = pyro.sample("a", dist.Normal(number(0.0), 1.0))
    with pyro.plate("data", 3):
        b = pyro.sample("b", dist.Normal(a, s))
        pyro.sample("x", dist.Normal(b, 1.0), obs=vector(0.0, 1.0, 2.0))
    total: Tensor = a + b.sum()
    return total


def _everywhere(site: Any) -> dict[str, Any]:
    return {"mark": site["name"]} if site["type"] == "sample" else {}


HANDLED: dict[str, Callable[[], Callable[[], Any]]] = {
    "block": lambda: handlers.block(program, hide=["a"]),
    "block by function": lambda: handlers.block(program, hide_fn=lambda site: site["name"] == "b"),
    "block by type": lambda: handlers.block(program, expose_types=["sample"]),
    "broadcast": lambda: handlers.broadcast(program),
    "condition": lambda: handlers.condition(program, data={"a": number(2.0)}),
    "do": lambda: handlers.do(program, data={"a": number(2.0)}),
    "infer_config": lambda: handlers.infer_config(program, config_fn=_everywhere),
    "lift": lambda: handlers.lift(program, prior={"s": dist.Exponential(number(1.0))}),
    "mask": lambda: handlers.mask(program, mask=torch.tensor(False)),
    "replay": lambda: handlers.replay(program, trace=handlers.trace(program).get_trace()),
    "scale": lambda: handlers.scale(program, scale=3.0),
    "seed": lambda: handlers.seed(program, rng_seed=5),
    "substitute": lambda: handlers.substitute(program, data={"s": number(4.0)}),
    "uncondition": lambda: handlers.uncondition(program),
    "condition of scale": lambda: handlers.condition(
        handlers.scale(program, scale=0.5), data={"b": vector(0.0, 1.0, 2.0)}
    ),
}


@pytest.mark.parametrize("name", HANDLED)
def test_handlers_as_functions(name: str) -> None:
    values, _ = on_both(lambda: recorded(HANDLED[name]()))
    assert "x" in values or name == "block by type"


def test_handlers_as_context_managers_and_decorators() -> None:
    def task() -> Any:
        @handlers.scale(scale=2.0)
        def doubled() -> Tensor:
            return program()

        with (
            handlers.trace() as outer,
            handlers.seed(rng_seed=2),
            handlers.condition(data={"a": number(1.0)}),
        ):
            result = doubled()
        assert outer.trace.observation_nodes == ["a", "x"]
        return result.detach(), outer.trace.log_prob_sum().detach()

    on_both(task)


def test_an_elbo_made_by_hand() -> None:
    def task() -> Any:
        guide_trace = handlers.trace(regression_guide).get_trace(X, Y)
        model_trace = handlers.trace(handlers.replay(regression, trace=guide_trace)).get_trace(X, Y)
        return (model_trace.log_prob_sum() - guide_trace.log_prob_sum()).detach()

    by_hand = on_both(task)
    assert by_hand == on_both(lambda: -infer.Trace_ELBO().loss(regression, regression_guide, X, Y))


def test_sequential_enumeration() -> None:
    def coins() -> Tensor:
        first = pyro.sample("first", dist.Bernoulli(number(0.3)))
        second: Tensor = pyro.sample("second", dist.Bernoulli(0.2 + 0.6 * first))
        return 2 * first + second

    def task() -> Any:
        waiting: Any = SimpleNamespace(traces=[handlers.trace(lambda: None).get_trace()])
        queue = SimpleNamespace(
            get=lambda: waiting.traces.pop(0), put=waiting.traces.append, empty=lambda: not waiting.traces
        )
        enumerated = handlers.trace(handlers.queue(coins, queue=queue))
        found = {}
        while waiting.traces:
            record = enumerated.get_trace()
            found[int(record.nodes["_RETURN"]["value"])] = record.log_prob_sum().exp()
        return found

    found = on_both(task)
    exact = {0: 0.7 * 0.8, 1: 0.7 * 0.2, 2: 0.3 * 0.2, 3: 0.3 * 0.8}
    assert {key: float(value) for key, value in found.items()} == pytest.approx(exact)


def test_ops_are_torchs() -> None:
    def task() -> Any:
        matrix = ops.eye(3) + ops.ones(3, 3)
        return (
            ops.matmul(matrix, ops.arange(3.0)),
            ops.logsumexp(ops.tensor([0.0, 1.0]), -1),
            ops.einsum("ij,ij->", matrix, matrix),
        )

    product, log_sum, square = on_both(task)
    torch.testing.assert_close(product, torch.tensor([3.0, 4.0, 5.0]))
    assert float(log_sum) == pytest.approx(math.log(1 + math.e))
    assert float(square) == 3 * 4 + 6


def test_the_backend_seeds_what_runs_inside_and_leaves_the_stream_outside() -> None:
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    draws = []
    for _ in range(2):
        with pyro_backend("sumout"):
            draws.append(pyro.sample("z", dist.Normal(0.0, 1.0)))
    assert draws[0] == draws[1]
    assert torch.equal(torch.rand(2), expected)
