"""A potential is minus the log joint of unconstrained values, all discrete values written out, Jacobians included."""

from __future__ import annotations

import itertools
import math
import pickle

import pytest
import torch

import sumout
import sumout.distributions as dist
from sumout import Vindex, markov, param, plate, sample
from sumout.distributions import biject_to, constraints
from sumout.errors import EnumerationError, ModelError
from sumout.infer import (
    Predictive,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
    log_evidence,
    potential_fn,
)
from sumout.infer.reparam import LocScaleReparam
from sumout.poutine import collapse, condition, mask, reparam, scale, trace

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def f64(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers if len(numbers) > 1 else numbers[0], dtype=torch.float64)


def many_supports() -> None:
    sample("positive", dist.Gamma(f64(2.0), 3.0))
    sample("unit", dist.Beta(f64(2.0, 3.0, 1.5), 2.0).to_event(1))
    sample("simplex", dist.Dirichlet(f64(1.0, 2.0, 3.0)))
    sample("interval", dist.Uniform(f64(-1.0), 3.0))
    sample("greater", dist.Pareto(f64(2.0), 3.0))
    sample("cholesky", dist.LKJCholesky(3, f64(1.5)))
    sample("vector", dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double()))
    with plate("rows", 3):
        loc = sample("loc", dist.Normal(f64(0.0), 1.0))
        with plate("columns", 2, dim=-2):
            sample("scale", dist.LogNormal(loc, 1.0))


def test_jacobians_of_all_kinds_of_supports() -> None:
    potential = potential_fn(many_supports)
    values = potential.constrain(potential.initial_params)
    run = trace(condition(many_supports, data=values)).get_trace()
    log_det = 0.0
    for name, value in values.items():
        site = run.nodes[name]
        assert site["fn"].support.check(value).all()
        transform = biject_to(site["fn"].support)
        unconstrained = potential.transforms[name](value)
        torch.testing.assert_close(unconstrained, potential.initial_params[name])
        log_det = log_det + transform.log_abs_det_jacobian(unconstrained, value).sum()
    expected = -(run.log_prob_sum() + log_det)
    torch.testing.assert_close(potential(potential.initial_params), expected, **EXACT)
    assert potential.initial_params["simplex"].shape == (2,)
    assert potential.initial_params["scale"].shape == (2, 3)


@pytest.mark.parametrize(
    "fn", [dist.Gamma(f64(2.5), 1.5), dist.Beta(f64(2.0), 3.0), dist.Uniform(f64(1.0), 4.0)]
)
def test_densities_of_unconstrained_values_integrate_to_one(fn: dist.Distribution) -> None:
    potential = potential_fn(lambda: sample("x", fn))
    grid = torch.linspace(-25, 25, 20_001).double()
    density = torch.stack([(-potential({"x": u})).exp() for u in grid[::20]])
    assert torch.trapezoid(density, grid[::20]).item() == pytest.approx(1.0, abs=1e-6)


X = f64(0.3, 2.4, -0.5)
COIN = f64(0.0, 1.0)


def mixture(x: torch.Tensor) -> None:
    weights = sample("weights", dist.Dirichlet(f64(1.0, 2.0)))
    with plate("components", 2):
        locs = sample("locs", dist.Normal(f64(0.0), 3.0))
    spread = sample("spread", dist.LogNormal(f64(0.0), 1.0))
    with plate("data", len(x)):
        z = sample("z", dist.Categorical(weights))
        sample("x", dist.Normal(locs[z], spread), obs=x)


def brute_force(
    program, names: dict[str, tuple[torch.Tensor, tuple[int, ...]]], values, *args
) -> torch.Tensor:
    """The log of the sum over all values of the named sites, each of (support, shape)."""
    logs = []
    spaces = [itertools.product(support, repeat=math.prod(shape)) for support, shape in names.values()]
    for states in itertools.product(*spaces):
        data = dict(values)
        for (name, (_, shape)), each in zip(names.items(), states, strict=True):
            data[name] = torch.stack(each).reshape(shape)
        logs.append(trace(condition(program, data=data)).get_trace(*args).log_prob_sum())
    return torch.stack(logs).logsumexp(0)


def check(potential, program, names, *args) -> None:
    """Value and gradient against all assignments written out, at two points."""
    for number in range(2):
        vector = potential.initial_vector + 0.3 * number
        vector.requires_grad_()
        params = potential.unflatten(vector)
        values = {name: potential.transforms[name].inv(u) for name, u in params.items()}
        log_det = sum(
            potential.transforms[name].inv.log_abs_det_jacobian(u, values[name]).sum()
            for name, u in params.items()
        )
        expected = -(brute_force(program, names, values, *args) + log_det)
        value, gradient = potential.value_and_grad(vector)
        torch.testing.assert_close(value, expected.detach(), **EXACT)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, vector)[0], **EXACT)


def test_a_mixture() -> None:
    check(potential_fn(mixture, X), mixture, {"z": (torch.arange(2), (3,))}, X)


def hmm(x: torch.Tensor, dim: int | None = None) -> None:
    with plate("states", 2):
        step = sample("step", dist.Dirichlet(f64(1.0, 1.0)))
        locs = sample("locs", dist.Normal(f64(0.0), 3.0))
    z = torch.tensor(0)
    for t in markov(range(len(x)), **({} if dim is None else {"dim": dim, "name": "time"})):
        z = sample(f"z_{t}", dist.Categorical(Vindex(step)[z]))
        sample(f"x_{t}", dist.Normal(locs[z], 1.0), obs=x[t])


def test_chains() -> None:
    states = {f"z_{t}": (torch.arange(2), ()) for t in range(3)}
    check(potential_fn(hmm, X), hmm, states, X)
    looped, at_once = potential_fn(hmm, X), potential_fn(hmm, X, dim=-1)
    for vector in torch.randn(3, len(looped.initial_vector), dtype=torch.float64):
        torch.testing.assert_close(at_once.flat(vector), looped.flat(vector), **EXACT)


def crossed(x: torch.Tensor) -> None:
    slope = sample("slope", dist.Normal(f64(1.0), 1.0))
    chance = sample("chance", dist.Beta(f64(1.0), 1.0))
    rows, columns = plate("rows", 2, dim=-2), plate("columns", 3, dim=-1)
    with rows:
        a = sample("a", dist.Bernoulli(chance))
    with columns:
        b = sample("b", dist.Bernoulli(0.5 * chance))
    with rows, columns:
        sample("x", dist.Normal(slope * a * b, 0.7), obs=x)


def test_crossed_plates() -> None:
    x = torch.linspace(-1, 1, 6).double().reshape(2, 3)
    check(potential_fn(crossed, x), crossed, {"a": (COIN, (2, 1)), "b": (COIN, (3,))}, x)


def test_sites_that_steer_the_program() -> None:
    def steered(x: torch.Tensor) -> None:
        loc = sample("loc", dist.Normal(f64(0.0), 1.0))
        k = sample("k", dist.Bernoulli(f64(0.3)), infer={"enumerate": "sequential"})
        if k:
            z = sample("z", dist.Bernoulli(f64(0.4)))
            sample("x", dist.Normal(loc + z, 1.0), obs=x[0])
        else:
            sample("x", dist.Normal(-loc, 2.0), obs=x[0])

    potential = potential_fn(steered, X)
    u = f64(0.7)
    log = dist.Normal(0.0, 1.0).log_prob(u)
    parts = [
        math.log(0.7) + dist.Normal(-u, 2.0).log_prob(X[0]),
        math.log(0.3 * 0.6) + dist.Normal(u, 1.0).log_prob(X[0]),
        math.log(0.3 * 0.4) + dist.Normal(u + 1, 1.0).log_prob(X[0]),
    ]
    torch.testing.assert_close(potential({"loc": u}), -(log + torch.stack(parts).logsumexp(0)), **EXACT)


def test_decisions_that_are_found_and_sites_that_only_some_runs_have() -> None:
    def model() -> None:
        loc = sample("loc", dist.Normal(f64(0.0), 1.0))
        z = sample("z", dist.Categorical(f64(0.2, 0.5, 0.3)))
        factor = 2.0 if z == 1 else -1.0
        sample("x", dist.Normal(factor * loc, 1.0), obs=f64(1.0))

    potential = potential_fn(model, enumeration="auto")
    again = pickle.loads(pickle.dumps(potential_fn(hmm, X)))
    assert again.flat(torch.zeros(4).double()) == potential_fn(hmm, X).flat(torch.zeros(4).double())
    u = f64(-0.4)
    parts = [math.log(p) + dist.Normal(k * u, 1.0).log_prob(f64(1.0)) for k, p in ((2, 0.5), (-1, 0.5))]
    expected = dist.Normal(0.0, 1.0).log_prob(u) + torch.stack(parts).logsumexp(0)
    torch.testing.assert_close(potential({"loc": u}), -expected, **EXACT)

    def sometimes() -> None:
        if sample("z", dist.Bernoulli(f64(0.5)), infer={"enumerate": "sequential"}):
            sample("loc", dist.Normal(f64(0.0), 1.0))

    for _ in range(5):  # whether the trial run has the site or not
        with pytest.raises(ModelError, match="'loc' (is in some runs|has no value)"):
            potential_fn(sometimes)({})


def test_a_continuous_site_that_depends_on_discrete_ones() -> None:
    """Its values are given, so its density is one more term of the sum."""

    def model(x: torch.Tensor) -> None:
        with plate("data", len(x)):
            z = sample("z", dist.Bernoulli(f64(0.4)))
            level = sample("level", dist.Normal(3 * z, 1.0))
            sample("x", dist.Normal(level, 0.5), obs=x)

    check(potential_fn(model, X), model, {"z": (COIN, (3,))}, X)


def test_counts_that_are_cut_off() -> None:
    """Thinned by one half, a Poisson is a Poisson of half the rate."""

    def model(seen: torch.Tensor) -> None:
        rate = sample("rate", dist.Gamma(f64(3.0), 1.0))
        n = sample("n", dist.Poisson(rate), infer={"truncate": 80})
        sample("seen", dist.Binomial(n, 0.5), obs=seen)

    potential = potential_fn(model, f64(2.0))
    for u in (-1.0, 0.5, 1.5):
        rate = f64(u).exp()
        log = dist.Gamma(f64(3.0), 1.0).log_prob(rate) + dist.Poisson(rate / 2).log_prob(f64(2.0)) + u
        torch.testing.assert_close(potential({"rate": f64(u)}), -log, **EXACT)


def test_more_sites_than_dimensions() -> None:
    """70 sites without ``markov`` are what they are with it."""

    def told(loop):
        def model() -> None:
            size = sample("size", dist.Normal(f64(0.0), 1.0))
            z = f64(0.0)
            for t in loop(range(70)):
                z = sample(f"z_{t}", dist.Bernoulli(torch.where(z == 1, f64(0.8), f64(0.3))))
                sample(f"y_{t}", dist.Normal(z * size, 1.0), obs=f64(0.1 * t))

        return model

    looped, chained = potential_fn(told(list)), potential_fn(told(markov))
    for u in (-1.0, 2.0):
        one, two = looped.value_and_grad(f64(u).reshape(1)), chained.value_and_grad(f64(u).reshape(1))
        torch.testing.assert_close(one, two, **EXACT)


def test_masks_scales_params_and_reparameterized_sites() -> None:
    def model(x: torch.Tensor) -> None:
        spread = param("spread", f64(2.0), constraint=constraints.positive)
        loc = sample("loc", dist.Normal(f64(0.0), spread))
        with mask(mask=torch.tensor([True, True, False])), scale(scale=2.0), plate("data", 3):
            sample("x", dist.Normal(loc, 1.0), obs=x)

    with sumout.get_param_store().scope():
        potential = potential_fn(model, X)
        u = f64(0.4)
        plain = dist.Normal(0.0, f64(2.0)).log_prob(u) + 2 * dist.Normal(u, 1.0).log_prob(X[:2]).sum()
        torch.testing.assert_close(potential({"loc": u}), -plain, **EXACT)
        apart = potential_fn(reparam(model, config={"loc": LocScaleReparam(centered=0.0)}), X)
        (name,) = apart.initial_params
        expected = dist.Normal(0.0, 1.0).log_prob(u) + 2 * dist.Normal(2 * u, 1.0).log_prob(X[:2]).sum()
        torch.testing.assert_close(apart({name: u}), -expected, **EXACT)


def test_missing_data_and_masked_latent_sites() -> None:
    """What is missing is a latent site; its elements that are not missing keep their density, and bear on nothing."""
    seen = torch.tensor([True, False, True])

    def model(x: torch.Tensor) -> None:
        loc = sample("loc", dist.Normal(f64(0.0), 1.0))
        with plate("data", 3):
            whole = sample("x", dist.Normal(loc, 2.0), obs=x, obs_mask=seen)
        sample("total", dist.Normal(whole.sum(), 1.0), obs=f64(3.0))

    potential = potential_fn(model, X)
    assert {name: tuple(u.shape) for name, u in potential.initial_params.items()} == {
        "loc": (),
        "x_unobserved": (3,),
    }
    loc, missing = f64(0.3), f64(5.0, -0.7, 6.0)
    whole = torch.where(seen, X, missing)
    expected = dist.Normal(0.0, 1.0).log_prob(loc) + dist.Normal(loc, 2.0).log_prob(X)[seen].sum()
    expected = expected + dist.Normal(loc, 2.0).log_prob(missing).sum()
    expected = expected + dist.Normal(whole.sum(), 1.0).log_prob(f64(3.0))
    found = potential({"loc": loc, "x_unobserved": missing})
    torch.testing.assert_close(found, -expected, **EXACT)


def test_a_support_that_depends_on_another_site() -> None:
    def model() -> None:
        top = sample("top", dist.Gamma(f64(2.0), 1.0))
        sample("x", dist.Uniform(f64(0.0), top))

    potential = potential_fn(model)
    params = {"top": f64(0.5), "x": f64(-0.2)}
    top, share = math.exp(0.5), 1 / (1 + math.exp(0.2))
    values = potential.constrain(params)
    assert values["x"].item() == pytest.approx(top * share, rel=1e-12)
    log_joint = dist.Gamma(f64(2.0), 1.0).log_prob(f64(top)) - math.log(top)
    log_det = 0.5 + math.log(top * share * (1 - share))
    assert potential(params).item() == pytest.approx(-(log_joint.item() + log_det), rel=1e-12)
    rows = potential.constrain({name: torch.stack([u, u + 1]) for name, u in params.items()})
    assert rows["x"].shape == (2,)
    assert rows["x"][0] == values["x"]
    with pytest.raises(ModelError, match="'x' depends on other sites"):
        _ = potential.transforms


def test_a_support_that_depends_on_a_discrete_site_is_refused() -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(f64(0.5)))
        sample("x", dist.Uniform(f64(0.0), 1.0 + z))

    with pytest.raises(ModelError, match="'x' depends on sites that are summed out"):
        potential_fn(model)


def test_vectors() -> None:
    potential = potential_fn(mixture, X)
    assert list(potential.initial_params) == ["weights", "locs", "spread"]
    vector = torch.arange(4.0).double()
    params = potential.unflatten(vector)
    assert {name: tuple(value.shape) for name, value in params.items()} == {
        "weights": (1,),
        "locs": (2,),
        "spread": (),
    }
    assert torch.equal(potential.flatten(params), vector)
    assert potential.flat(vector) == potential(params)
    rows = potential.unflatten(torch.randn(7, 4).double())
    assert rows["locs"].shape == (7, 2)
    assert potential.flatten(rows).shape == (7, 4)
    assert potential.constrain(rows)["weights"].shape == (7, 2)
    value, gradient = potential.value_and_grad(vector)
    assert not value.requires_grad
    assert gradient.shape == (4,)


def test_where_a_chain_begins() -> None:
    def model() -> None:
        rate = sample("rate", dist.Gamma(f64(1000.0), 1.0))
        with plate("data", 3):
            sample("x", dist.Normal(rate, 1.0))

    near = potential_fn(model, init=init_to_median(num_samples=25)).initial_params
    assert 6.8 < near["rate"] < 7.0
    assert (near["x"] - 1000).abs().max() < 100
    drawn = potential_fn(model, init=init_to_sample).initial_params
    assert 6.5 < drawn["rate"] < 7.3
    start = init_to_value(values={"rate": 2.0, "x": f64(1.0, 2.0, 3.0)})
    given = potential_fn(model, init=start).initial_params
    assert given["rate"].item() == pytest.approx(math.log(2.0))
    assert given["x"].tolist() == [1.0, 2.0, 3.0]
    close = potential_fn(model, init=init_to_uniform(radius=1e-3)).initial_params
    assert max(value.abs().max().item() for value in close.values()) <= 1e-3
    with pytest.raises(ModelError, match="outside of its support"):
        potential_fn(model, init=init_to_value(values={"rate": -2.0}))
    with pytest.raises(ModelError, match="shape"):
        potential_fn(model, init=init_to_value(values={"x": torch.zeros(4)}))


def test_values_with_density_zero() -> None:
    """Their potential is infinite, and a chain does not begin there."""

    def model() -> None:
        x = sample("x", dist.Normal(f64(0.0), 1.0))
        z = sample("z", dist.Bernoulli(f64(0.5)))
        sumout.factor("half", torch.where((x > 0) & (z == 1), 0.0, -math.inf))

    for _ in range(5):
        potential = potential_fn(model)
        assert potential.initial_params["x"] > 0
    assert potential({"x": f64(-1.0)}) == math.inf

    def impossible() -> None:
        x = sample("x", dist.Normal(f64(0.0), 1.0))
        sumout.factor("never", torch.where(x > 100, 0.0, -math.inf))

    with pytest.raises(ModelError, match="100 tries"):
        potential_fn(impossible)


def test_what_has_no_potential() -> None:
    def poisson() -> None:
        rate = sample("rate", dist.Gamma(2.0, 1.0))
        sample("count", dist.Poisson(rate))

    with pytest.raises(ModelError, match="'count' is latent with Poisson"):
        potential_fn(poisson)
    with pytest.raises(ModelError, match="'z'.*enumerate"):
        potential_fn(lambda: sample("z", dist.Bernoulli(0.5), infer={"enumerate": None}))

    def subsampled() -> None:
        loc = sample("loc", dist.Normal(0.0, 1.0))
        with plate("data", 10, subsample_size=2):
            sample("x", dist.Normal(loc, 1.0), obs=torch.zeros(2))

    with pytest.raises(ModelError, match="'data' looks at 2 of its 10"):
        potential_fn(subsampled)

    potential = potential_fn(mixture, X)
    with pytest.raises(ModelError, match="'spread' has no value"):
        potential({name: u for name, u in potential.initial_params.items() if name != "spread"})
    with pytest.raises(ModelError, match="Did you mean 'spread'"):
        potential({**potential.initial_params, "sprad": f64(0.0)})


def test_without_continuous_sites_it_is_the_evidence() -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(f64(0.3)))
        sample("x", dist.Normal(z, 1.0), obs=f64(1.0))

    potential = potential_fn(model)
    assert potential.initial_params == {}
    torch.testing.assert_close(potential({}), -log_evidence(model)(), **EXACT)


def test_it_pickles_and_leaves_the_program_alone() -> None:
    potential = potential_fn(mixture, X)
    again = pickle.loads(pickle.dumps(potential))
    vector = torch.arange(4.0).double() / 3
    assert again.flat(vector) == potential.flat(vector)
    with trace() as outside, scale(scale=2.0):
        assert potential.flat(vector) == again.flat(vector)
    assert not outside.trace.nodes
    assert sumout.settings.validation


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_recorded_operations_give_the_same() -> None:
    start = init_to_value(values={"locs": f64(0.0, 2.0), "weights": f64(0.4, 0.6), "spread": 1.0})
    plain = potential_fn(mixture, X, init=start)
    for compile in ("record", "eager"):
        recorded = potential_fn(mixture, X, init=start, compile=compile)
        for number in range(4):
            torch.manual_seed(number)
            vector = 2 * torch.randn(4).double()
            value, gradient = recorded.value_and_grad(vector)
            expected, slope = plain.value_and_grad(vector)
            torch.testing.assert_close(value, expected, **EXACT)
            torch.testing.assert_close(gradient, slope, **EXACT)
        params = {name: u.requires_grad_() for name, u in plain.unflatten(vector).items()}
        gradients = torch.autograd.grad(2 * recorded(params), list(params.values()))
        slopes = plain.unflatten(2 * slope)
        for name, found in zip(params, gradients, strict=True):
            torch.testing.assert_close(found, slopes[name], **EXACT)
        # A vector of another type goes the plain way.
        torch.testing.assert_close(recorded.flat(vector.float()), plain.flat(vector.float()))
    again = pickle.loads(pickle.dumps(recorded))
    assert again.transforms.keys() == plain.transforms.keys()


def test_recorded_sums_see_numbers_that_are_too_far_apart(monkeypatch) -> None:
    """Recorded where all numbers are near, asked where products of exponentials lose what they are made of."""

    def ring(x: torch.Tensor) -> None:
        slope = sample("slope", dist.Normal(f64(0.0), 1.0))
        zs = [sample(f"z_{t}", dist.Categorical(torch.ones(3).double())) for t in range(4)]
        for t in range(4):
            sumout.factor(f"f_{t}", slope * (zs[t] - 1) * (zs[t - 1] - 1) * (t + 1) + slope * zs[t])

    start = init_to_value(values={"slope": 0.1})
    plain = potential_fn(ring, X, init=start)
    recorded = potential_fn(ring, X, init=start, compile="record")
    recorded({"slope": f64(0.1)})
    asked = []
    answer = recorded._potential.value_and_grad
    monkeypatch.setattr(
        recorded._potential, "value_and_grad", lambda vector: asked.append(vector.item()) or answer(vector)
    )
    for slope in (0.2, -3.0, 500.0, -900.0):
        params = {"slope": f64(slope)}
        torch.testing.assert_close(recorded(params), plain(params), **EXACT)
    assert asked
    assert 0.2 not in asked


def test_a_program_that_looks_at_its_values_is_not_compiled() -> None:
    def model() -> None:
        x = sample("x", dist.Normal(f64(0.0), 1.0))
        sample("y", dist.Normal(x if x > 0 else 2 * x, 1.0), obs=f64(1.0))

    potential = potential_fn(model, compile="record")
    with pytest.raises(ModelError, match="looks at the values"):
        potential(potential.initial_params)


def test_sites_that_are_integrated_out() -> None:
    """Collapsed sites have no place among the parameters; discrete ones may stand before them."""

    def model(x: torch.Tensor) -> None:
        spread = sample("spread", dist.LogNormal(f64(0.0), 1.0), infer={"collapse": False})
        z = sample("z", dist.Bernoulli(f64(0.3)))
        loc = sample("loc", dist.Normal(3 * z, 2.0))
        with plate("data", len(x)):
            sample("x", dist.Normal(loc, spread), obs=x)

    potential = potential_fn(collapse(model), X)
    assert list(potential.initial_params) == ["spread"]
    for u in (-0.5, 0.3):
        variance = math.exp(2 * u)
        joint = torch.eye(3).double() * variance + 4.0
        logs = [
            math.log(p) + dist.MultivariateNormal(torch.full((3,), 3.0 * z).double(), joint).log_prob(X)
            for z, p in ((0, 0.7), (1, 0.3))
        ]
        log = dist.Normal(0.0, 1.0).log_prob(f64(u)) + torch.stack(logs).logsumexp(0)
        torch.testing.assert_close(potential({"spread": f64(u)}), -log, **EXACT)
    drawn = Predictive(
        collapse(model), {"spread": f64(math.exp(u)).expand(4000)}, parallel=True, infer_discrete=True
    )(X)
    chance = torch.stack(logs).softmax(0)[1]
    assert (drawn["z"].mean() - chance).abs() < 5 * (chance * (1 - chance) / 4000).sqrt()


def test_it_tells_what_it_is_of() -> None:
    assert repr(potential_fn(mixture, X)).splitlines() == [
        "Potential of mixture, 4 unconstrained dimensions",
        "  sites: weights (1,), locs (2,), spread ()",
        "  summed out: z",
    ]

    def model() -> None:
        loc = sample("loc", dist.Normal(f64(0.0), 1.0))
        z = sample("z", dist.Bernoulli(f64(0.3)), infer={"enumerate": "sequential"})
        spread = sample("spread", dist.LogNormal(f64(0.0), 1.0), infer={"collapse": False})
        for number in range(25):
            sample(f"k_{number}", dist.Bernoulli(f64(0.3)))
        sample("x", dist.Normal(loc + z, spread), obs=f64(1.0))

    told = repr(potential_fn(collapse(model), compile="record")).splitlines()
    assert told[0] == "CompiledPotential of model, 1 unconstrained dimension"
    assert told[2].startswith("  summed out: z, k_0, k_1, ")
    assert told[2].endswith(", k_18, 6 more")
    assert told[3] == "  integrated out: loc"


def switching(history: int):
    """Continuous states whose next values depend on discrete ones, in a loop or all at once."""

    def model(y: torch.Tensor, dim: int | None = None) -> None:
        spread = sample("spread", dist.LogNormal(f64(0.0), 1.0))
        steps = torch.tensor([[0.7, 0.3], [0.2, 0.8]]).double()
        xs, z = [torch.zeros(2).double()] * history, torch.tensor(0)
        named = {} if dim is None else {"dim": dim, "name": "time"}
        for t in markov(range(len(y)), history=history, **named):
            z = sample(f"z_{t}", dist.Categorical(steps[z]))
            mean = sum((0.5 ** (k + 1) * x for k, x in enumerate(xs)), start=z.unsqueeze(-1))
            x = sample(f"x_{t}", dist.Normal(mean, spread.unsqueeze(-1)).to_event(1))
            level = sample(f"level_{t}", dist.Gamma((0.1 * x).exp().sum(-1), 1.0))
            sample(f"y_{t}", dist.Normal(x.sum(-1) * level, 1.0), obs=y[t])
            xs = [*xs[1:], x]

    return model


@pytest.mark.parametrize(("history", "length"), [(1, 1), (1, 2), (1, 5), (2, 5), (3, 5)])
def test_continuous_sites_of_chains_whose_steps_are_taken_at_once(history: int, length: int) -> None:
    """Value and gradient are those of the loop; brute force is where that is checked."""
    y = torch.sin(torch.arange(length)).double()
    loop, many = potential_fn(switching(history), y), potential_fn(switching(history), y, -1)
    params = {name: value.requires_grad_() for name, value in loop.initial_params.items()}
    joined = {}
    for name in many.initial_params:
        kind = name.split("_")[0]
        steps = [params[f"{kind}_{t}"] for t in range(history, length)] if "slice" in name else []
        joined[name] = torch.stack(steps) if steps else params[name]
    one, other = loop(params), many(joined)
    torch.testing.assert_close(one, other, **EXACT)
    slopes = [torch.autograd.grad(each, list(params.values())) for each in (one, other)]
    torch.testing.assert_close(*slopes, **EXACT)
    if (history, length) == (1, 2):
        check(loop, switching(1), {"z_0": (torch.arange(2), ()), "z_1": (torch.arange(2), ())}, y)
    recorded = potential_fn(switching(history), y, -1, compile="record")
    torch.testing.assert_close(recorded(joined), other, **EXACT)
    drawn = many.constrain({name: torch.stack([value, value + 1]) for name, value in joined.items()})
    for parallel in (False, True):
        found = Predictive(switching(history), drawn, parallel=parallel, infer_discrete=True)(y, -1)
        kept = [value for name, value in found.items() if name.startswith("z")]
        assert sum(value.reshape(2, -1).shape[1] for value in kept) == length


def test_a_chain_at_once_begins_where_it_is_told() -> None:
    y = torch.zeros(4).double()
    start = init_to_value(values={"x_slice(1, 4, None)": 2.0, "level_0": 0.5})
    potential = potential_fn(switching(1), y, -1, init=start)
    assert (potential.initial_params["x_slice(1, 4, None)"] == 2).all()
    assert potential.initial_params["x_slice(1, 4, None)"].shape == (3, 2)

    def model() -> None:
        x = f64(1.0)
        for t in markov(range(4), dim=-1, name="time"):
            x = sample(f"x_{t}", dist.Uniform(f64(0.0), 1.0 + x))

    with pytest.raises(ModelError, match="'x_slice.1, 4, None.' stands for many steps.*support depends"):
        potential_fn(model)


def steered(x: torch.Tensor) -> None:
    spread = sample("spread", dist.LogNormal(f64(0.0), 1.0))
    if sample("z", dist.Bernoulli(f64(0.4)), infer={"enumerate": "sequential"}):
        sample("x", dist.Normal(spread, 1.0).expand([3]).to_event(1), obs=x)
    else:
        sample("x", dist.Normal(-spread, 2.0).expand([3]).to_event(1), obs=x)


def mixed(x: torch.Tensor) -> None:
    """A site that is integrated out, one that is summed out, crossed plates, a support that depends on a site."""
    spread = sample("spread", dist.LogNormal(f64(0.0), 1.0), infer={"collapse": False})
    top = sample("top", dist.Uniform(f64(0.0), spread), infer={"collapse": False})
    z = sample("z", dist.Bernoulli(f64(0.3)))
    loc = sample("loc", dist.Normal(3 * z, 2.0))
    rows, columns = plate("rows", 2, dim=-2), plate("columns", 3, dim=-1)
    with rows:
        a = sample("a", dist.Bernoulli(f64(0.3)))
    with columns:
        b = sample("b", dist.Bernoulli(f64(0.6)))
        sample("x", dist.Normal(loc, spread), obs=x)
    with rows, columns:
        sample("y", dist.Normal(a * b, top), obs=x + a.new_ones(2, 1))


def long_loop(x: torch.Tensor) -> None:
    """More sites than dimensions."""
    size = sample("size", dist.Normal(f64(0.0), 1.0))
    z = f64(0.0)
    for t in range(70):
        z = sample(f"z_{t}", dist.Bernoulli(torch.where(z == 1, f64(0.8), f64(0.3))))
        sample(f"y_{t}", dist.Normal(z * size, 1.0), obs=x[t % 3])


def looking(x: torch.Tensor) -> None:
    loc = sample("loc", dist.Normal(f64(0.0), 1.0))
    sample("x", dist.Normal(loc if loc > 0 else 2 * loc, 1.0).expand([3]).to_event(1), obs=x)


CHAINS = {
    "mixture": mixture,
    "hmm": hmm,
    "hmm at once": lambda x: hmm(x, -1),
    "steered": steered,
    "mixed": collapse(mixed),
    "long loop": long_loop,
    "looking": looking,
}


@pytest.mark.parametrize("compile", [False, "record"])
@pytest.mark.parametrize("program", CHAINS.values(), ids=CHAINS)
def test_many_chains_in_one_call(program, compile: bool | str) -> None:
    if compile and program not in (mixture, hmm, CHAINS["hmm at once"]):
        return  # Values are looked at by programs, and by what integrates out.
    potential = potential_fn(program, X, compile=compile)
    torch.manual_seed(0)
    vectors = torch.randn(2, 3, len(potential.initial_vector)).double()
    vectors[1, 1] *= 100  # Numbers that are too far apart for sums that do not look at them.
    each = [[potential_fn(program, X).value_and_grad(vector) for vector in row] for row in vectors]
    expected = torch.stack([torch.stack([value for value, _ in row]) for row in each])
    slopes = torch.stack([torch.stack([slope for _, slope in row]) for row in each])
    for _ in range(2):  # The first call is compared with a plain one.
        values, gradients = potential.value_and_grad(vectors)
        torch.testing.assert_close(values, expected, **EXACT, equal_nan=True)
        torch.testing.assert_close(gradients, slopes, **EXACT, equal_nan=True)
    params = {name: u.requires_grad_() for name, u in potential.unflatten(vectors[0]).items()}
    found = potential(params)
    assert found.shape == (3,)
    weights = f64(1.0, 2.0, -1.0)
    gradients = torch.autograd.grad((found * weights).sum(), list(params.values()))
    joined = potential.flatten(dict(zip(params, gradients, strict=True)))
    torch.testing.assert_close(joined, slopes[0] * weights.unsqueeze(-1), **EXACT)
    torch.testing.assert_close(potential.flat(vectors), expected, **EXACT, equal_nan=True)


def test_chains_that_do_not_fit() -> None:
    potential = potential_fn(mixture, X)
    params = potential.unflatten(torch.zeros(3, 4).double())
    with pytest.raises(ModelError, match=r"spread: \(\); a chain has weights: \(1,\)"):
        potential({**params, "spread": f64(0.0)})
    recorded = potential_fn(mixture, X, compile="record")
    with pytest.raises(ModelError, match="all vectors at once"):
        torch.func.vmap(recorded.flat)(torch.zeros(3, 4).double())
    mapped = torch.func.vmap(torch.func.grad(potential.flat))(torch.zeros(2, 4).double())
    torch.testing.assert_close(mapped, potential.value_and_grad(torch.zeros(2, 4).double())[1], **EXACT)

    calls = []

    def changing() -> None:
        calls.append(sample("x", dist.Normal(f64(0.0), 1.0)))
        sample("y", dist.Normal(f64(0.0), float(len(calls))), obs=f64(1.0))

    with pytest.raises(ModelError, match="does not do the same in every run"):
        potential_fn(changing).value_and_grad(torch.zeros(2, 1).double())


def test_what_a_chain_computes_from_step_to_step_is_not_taken_at_once() -> None:
    """A recursion without a site, as a reparameterized chain has, means something else there: it is refused."""

    def model(y: torch.Tensor, dim: int | None = None) -> None:
        level = f64(0.0)
        for t in markov(range(len(y)), **({} if dim is None else {"dim": dim, "name": "time"})):
            level = sample(f"level_{t}", dist.Normal(0.9 * level, 0.5))
            sample(f"y_{t}", dist.Normal(level, 1.0), obs=y[t])

    y = torch.sin(torch.arange(5)).double()

    def levels(site) -> LocScaleReparam | None:
        own = site["name"].startswith("level") and not site["name"].endswith("decentered")
        return LocScaleReparam(0.0) if own else None

    assert len(potential_fn(reparam(model, config=levels), y).initial_params) == 5
    assert len(potential_fn(model, y, -1).initial_params) == 2
    with pytest.raises(EnumerationError, match="'y_1'.*from step to step"):
        potential_fn(reparam(model, config=levels), y, -1)
