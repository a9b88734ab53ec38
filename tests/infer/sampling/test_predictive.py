"""Runs at many samples: shapes, given values, both ways of running, discrete sites from their posterior."""

from __future__ import annotations

import math

import pytest
import torch

import sumout
import sumout.distributions as dist
from sumout import Vindex, deterministic, markov, param, plate, sample
from sumout.errors import ModelError
from sumout.infer import Predictive
from sumout.infer.reparam import LocScaleReparam
from sumout.poutine import trace

both = pytest.mark.parametrize("parallel", [False, True])


def regression(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    weights = sample("weights", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
    scale = sample("scale", dist.Gamma(torch.tensor(2.0, dtype=torch.float64), 2.0))
    mean = deterministic("mean", (x * weights).sum(-1), event_dim=0)
    deterministic("largest", weights.amax(-1), event_dim=0)
    with plate("data", len(x)):
        noise = sample("noise", dist.Delta(mean))
        return sample("y", dist.Normal(noise, scale), obs=y)


def plated(x: torch.Tensor | None = None) -> None:
    """Plates at two depths, events, and discrete sites in and out of them."""
    level = sample("level", dist.Categorical(torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)))
    locs = torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64)
    outer, inner = plate("outer", 2, dim=-2), plate("inner", 3, dim=-1)
    with outer:
        sample("simplex", dist.Dirichlet(torch.ones(4).double()))
        with inner:
            z = sample("z", dist.Bernoulli(torch.tensor(0.5, dtype=torch.float64)))
            sample("x", dist.Normal(Vindex(locs)[level] + 10 * z, 1.0), obs=x)
    with inner:
        sample("vector", dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double()))


@both
def test_shapes_are_those_of_a_plain_run_with_samples_first(parallel: bool) -> None:
    for model, args in ((regression, (torch.ones(5, 2).double(),)), (plated, ())):
        plain = trace(model).get_trace(*args)
        drawn = Predictive(model, num_samples=7, parallel=parallel)(*args)
        wanted = [name for name, site in plain.nodes.items() if site["type"] == "sample"]
        assert list(drawn) == [name for name in wanted if name not in ("data", "outer", "inner")]
        for name, value in drawn.items():
            assert value.shape == (7, *plain.nodes[name]["value"].shape), name
            assert not value.requires_grad
    drawn = Predictive(plated, num_samples=1, parallel=parallel)()
    assert drawn["z"].shape == (1, 2, 3)
    assert drawn["level"].shape == (1,)


@both
def test_samples_are_drawn_and_not_repeated(parallel: bool) -> None:
    drawn = Predictive(plated, num_samples=50, parallel=parallel)()
    for name in ("simplex", "vector", "x"):
        assert len(drawn[name].flatten(1)[:, 0].unique()) == 50
    assert set(drawn["level"].tolist()) <= {0, 1, 2}
    assert len(drawn["level"].unique()) > 1


@both
def test_given_samples_are_used_one_each(parallel: bool) -> None:
    x = torch.randn(5, 2, dtype=torch.float64)
    samples = {"weights": torch.randn(30, 2, dtype=torch.float64), "scale": torch.full((30,), 1e-12).double()}
    # Values of deterministic sites are passed over: they follow from the others.
    samples["mean"] = torch.full((30, 5), math.nan)
    drawn = Predictive(regression, samples, parallel=parallel)(x)
    assert list(drawn) == ["mean", "largest", "noise", "y"]
    expected = samples["weights"] @ x.T
    torch.testing.assert_close(drawn["mean"], expected)
    torch.testing.assert_close(drawn["y"], expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(drawn["largest"], samples["weights"].amax(-1))
    some = Predictive(regression, samples, return_sites=["weights", "_RETURN"], parallel=parallel)(x)
    assert list(some) == ["weights", "_RETURN"]
    torch.testing.assert_close(some["weights"], samples["weights"])
    torch.testing.assert_close(some["_RETURN"], expected, atol=1e-9, rtol=0)


@both
def test_observed_values_come_back_once_a_sample(parallel: bool) -> None:
    x = torch.arange(6.0).double().reshape(2, 3)
    drawn = Predictive(plated, num_samples=4, parallel=parallel)(x)
    torch.testing.assert_close(drawn["x"], x.expand(4, 2, 3))


@both
def test_a_guide_gives_the_latent_sites(parallel: bool) -> None:
    def guide(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        loc = param("loc", torch.tensor([1.0, -1.0], dtype=torch.float64))
        sample("weights", dist.Normal(loc, 1e-9).to_event(1))
        sample("extra", dist.Normal(torch.zeros(()).double(), 1.0), infer={"is_auxiliary": True})
        sample("scale", dist.Delta(torch.tensor(1e-9, dtype=torch.float64)))

    x = torch.randn(5, 2, dtype=torch.float64)
    with sumout.get_param_store().scope():
        drawn = Predictive(regression, guide=guide, num_samples=3, parallel=parallel)(x)
    assert drawn["weights"].shape == (3, 2)
    torch.testing.assert_close(drawn["y"], (x[:, 0] - x[:, 1]).expand(3, 5), atol=1e-6, rtol=0)


@both
def test_discrete_sites_from_their_posterior(parallel: bool) -> None:
    """Given samples of the continuous sites: local ones element by element, and a global one that they share."""

    def model(x: torch.Tensor) -> None:
        loc = sample("loc", dist.Normal(torch.zeros(()).double(), 1.0))
        shift = sample("shift", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
        with plate("data", 2):
            z = sample("z", dist.Bernoulli(torch.tensor(0.6, dtype=torch.float64)))
            sample("x", dist.Normal(loc + shift + 2 * z, 1.0), obs=x)
        sample("new", dist.Normal(100 * shift, 1.0))

    x = torch.tensor([0.5, 2.0], dtype=torch.float64)
    locs = torch.tensor([-0.5, 1.0], dtype=torch.float64)
    count = 4000 if parallel else 300
    drawn = Predictive(model, {"loc": locs.repeat_interleave(count)}, parallel=parallel, infer_discrete=True)(
        x
    )
    assert drawn["z"].shape == (2 * count, 2)
    assert torch.equal(drawn["new"] > 50, drawn["shift"] == 1)
    bits = torch.cartesian_prod(*[torch.arange(2.0).double()] * 3)
    for number, loc in enumerate(locs):
        logs = torch.where(bits[:, 0] == 1, math.log(0.3), math.log(0.7))
        for place in (0, 1):
            z = bits[:, 1 + place]
            logs = logs + torch.where(z == 1, math.log(0.6), math.log(0.4))
            logs = logs + dist.Normal(loc + bits[:, 0] + 2 * z, 1.0).log_prob(x[place])
        exact = logs.softmax(0)
        part = slice(number * count, (number + 1) * count)
        rows = (4 * drawn["shift"] + 2 * drawn["z"][:, 0] + drawn["z"][:, 1])[part].long()
        found = torch.bincount(rows, minlength=8) / count
        # Five standard deviations of each frequency.
        assert ((found - exact).abs() < 5 * (exact * (1 - exact) / count).sqrt() + 1 / count).all()


def hmm(x: torch.Tensor) -> None:
    loc = sample("loc", dist.Normal(torch.zeros(2).double(), 5.0).to_event(1))
    step = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    z = torch.zeros((), dtype=torch.long)
    for t in markov(range(len(x))):
        z = sample(f"z_{t}", dist.Categorical(Vindex(step)[z, :]))
        sample(f"x_{t}", dist.Normal(Vindex(loc)[..., z], 1.0), obs=x[t])


def test_a_chain_given_many_samples() -> None:
    x = torch.tensor([0.2, 3.1, 2.8], dtype=torch.float64)
    locs = torch.tensor([[0.0, 3.0], [3.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    many = Predictive(hmm, {"loc": locs.repeat(2000, 1)}, parallel=True, infer_discrete=True)(x)
    for number, loc in enumerate(locs):
        exact = sumout.infer.marginals(sumout.condition(hmm, data={"loc": loc}))(x)
        for t in range(3):
            found = many[f"z_{t}"][number::3].double().mean()
            assert abs(found - exact[f"z_{t}"].probs[1]) < 5 * 0.5 / 2000**0.5


def test_a_table_that_loses_the_dimension_of_a_plate_is_told_before_it_grows() -> None:
    """Indexing takes the plate's dimension away, and the samples move into its place."""

    def model() -> None:
        with plate("components", 2):
            loc = sample("loc", dist.Normal(0.0, 1.0))
        z = sample("z", dist.Categorical(torch.ones(2)))
        sample("x", dist.Normal(Vindex(loc)[..., z], 1.0))

    with pytest.raises(ModelError, match="'x' varies along dim -1 .size 3.*parallel=False"):
        Predictive(model, num_samples=10**9, parallel=True)()
    assert Predictive(model, num_samples=3)()["x"].shape == (3,)


def test_a_program_that_only_runs_one_by_one() -> None:
    def model() -> None:
        z = sample("z", dist.Normal(0.0, 1.0))
        sign = 1.0 if z > 0 else -1.0
        deterministic("sign", torch.tensor(sign))

    drawn = Predictive(model, num_samples=20)()
    assert torch.equal(drawn["sign"], drawn["z"].sign())

    def mixing() -> None:
        with plate("data", 3):
            x = sample("x", dist.Normal(0.0, 1.0))
        deterministic("mean", x.mean())

    assert Predictive(mixing, num_samples=5)()["mean"].shape == (5,)

    def cutting() -> None:
        with plate("data", 3):
            x = sample("x", dist.Normal(0.0, 1.0))
        deterministic("first", x[:2], event_dim=0)

    assert Predictive(cutting, num_samples=5)()["first"].shape == (5, 2)
    with pytest.raises(ModelError, match="parallel=False"):
        Predictive(cutting, num_samples=5, parallel=True)()


def test_a_site_that_only_some_runs_have() -> None:
    def model() -> None:
        if sample("z", dist.Bernoulli(0.5)):
            sample("w", dist.Normal(0.0, 1.0))

    torch.manual_seed(0)
    with pytest.raises(ModelError, match=r"'w' is in \d+ of 20 runs"):
        Predictive(model, num_samples=20)()
    assert Predictive(model, num_samples=20, return_sites=["z"])()["z"].shape == (20,)


def test_the_trace_of_all_samples() -> None:
    run = Predictive(plated, num_samples=4, parallel=True).get_vectorized_trace()
    assert run.nodes["z"]["value"].shape == (4, 2, 3)
    assert run.nodes["level"]["value"].shape == (4, 1, 1)
    assert run.nodes["x"]["log_prob"].shape == (4, 2, 3)


def test_subsampled_plates_and_random_state() -> None:
    def model() -> None:
        with plate("data", 100, subsample_size=5):
            sample("x", dist.Normal(0.0, 1.0))

    predictive = Predictive(model, num_samples=4, parallel=True)
    torch.manual_seed(0)
    first = predictive()["x"]
    torch.manual_seed(0)
    assert torch.equal(predictive()["x"], first)  # trial runs leave the generators alone
    assert first.shape == (4, 5)


@both
def test_samples_of_sites_that_the_model_never_comes_to_are_refused(parallel: bool) -> None:
    """A misspelt name would otherwise leave the site to the prior, as would samples of a reparameterized model."""
    x = torch.ones(5, 2).double()
    samples = {"weights": torch.zeros(3, 2).double(), "scale": torch.ones(3).double()}
    misspelt = {"weigths": samples["weights"], "scale": samples["scale"]}
    with pytest.raises(ModelError, match="'weigths'. Did you mean 'weights'.*leave them out"):
        Predictive(regression, misspelt, parallel=parallel)(x)
    apart = sumout.poutine.reparam(regression, config={"weights": LocScaleReparam(0.0)})
    own = {"weights_decentered": samples["weights"], "scale": samples["scale"]}
    with pytest.raises(
        ModelError, match="'weights_decentered'.*not given: 'weights', 'noise', 'y'.*reparameterized"
    ):
        Predictive(regression, own, parallel=parallel)(x)
    assert set(Predictive(apart, own, parallel=parallel)(x)) >= {"weights", "y"}
    for infer_discrete in (False, True):
        with pytest.raises(ModelError, match="'lvel'. Did you mean 'level'"):
            Predictive(plated, {"lvel": torch.zeros(3)}, parallel=parallel, infer_discrete=infer_discrete)()


@both
def test_a_guide_of_which_the_model_lacks_a_site_is_told(parallel: bool) -> None:
    def model() -> None:
        sample("loc", dist.Normal(0.0, 1.0))

    def guide() -> None:
        u = sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        deterministic("twice", 2 * u)
        sample("lco", dist.Delta(u))

    with pytest.warns(UserWarning, match="model never comes to: 'lco'. Did you mean 'loc'.*is_auxiliary"):
        Predictive(model, guide=guide, num_samples=3, parallel=parallel)()


@both
@pytest.mark.parametrize("infer_discrete", [False, True])
def test_samples_of_another_shape_are_refused(parallel: bool, infer_discrete: bool) -> None:
    """Grouped by chain, or of other data."""

    def model(size: int = 2) -> None:
        loc = sample("loc", dist.Normal(torch.zeros(()).double(), 1.0))
        with plate("data", size):
            z = sample("z", dist.Bernoulli(torch.tensor(0.5).double()))
            level = sample("level", dist.Normal(loc, 1.0))
            sample("x", dist.Normal(level + z, 1.0))

    chains = {"loc": torch.zeros(3, 5).double()}
    asked = {"parallel": parallel, "infer_discrete": infer_discrete, "return_sites": ["z"]}
    with pytest.raises(
        ModelError, match=r"'loc' is given samples of shape \(5,\) each.*shape \(\).*flatten\(0, 1\)"
    ):
        Predictive(model, chains, **asked)()
    flat = {"loc": chains["loc"].flatten(0, 1), "level": torch.zeros(15, 2).double()}
    assert Predictive(model, flat, **asked)()["z"].shape == (15, 2)
    with pytest.raises(ModelError, match=r"'level' is given samples of shape \(2,\) each.*shape \(4,\)"):
        Predictive(model, flat, **asked)(4)


def test_samples_for_sites_that_only_some_runs_have() -> None:
    def model() -> None:
        if sample("z", dist.Bernoulli(torch.tensor(0.5))):
            sample("w", dist.Normal(0.0, 1.0))

    samples = {"z": torch.tensor([0.0, 1.0, 0.0]), "w": torch.tensor([math.nan, 2.0, math.nan])}
    drawn = Predictive(model, samples, return_sites=["z"])()
    assert torch.equal(drawn["z"], samples["z"])
    with pytest.raises(ModelError, match="'w'"):
        Predictive(model, {"z": torch.zeros(3), "w": torch.zeros(3)})()


def test_wrong_use() -> None:
    with pytest.raises(ModelError, match="num_samples=1000"):
        Predictive(plated)
    with pytest.raises(ModelError, match="level: 3, simplex: 4"):
        Predictive(plated, {"level": torch.zeros(3), "simplex": torch.zeros(4, 2, 4)})
    with pytest.raises(ModelError, match="num_samples: 5"):
        Predictive(plated, {"level": torch.zeros(3)}, num_samples=5)
    with pytest.raises(ModelError, match="dimension 0"):
        Predictive(plated, {"level": torch.tensor(3)})
    with pytest.raises(ModelError, match="whole number"):
        Predictive(plated, num_samples=0)
    with pytest.raises(ModelError, match="both"):
        Predictive(plated, {"level": torch.zeros(3)}, guide=plated)
    with pytest.raises(ModelError, match="list of names"):
        Predictive(plated, num_samples=3, return_sites="z")
    with pytest.raises(ModelError, match="Did you mean 'simplex'"):
        Predictive(plated, num_samples=3, return_sites=["simplx"])()
    with pytest.raises(ModelError, match="'z' is given samples of shape"):
        Predictive(plated, {"z": torch.zeros(3, 1, 1, 2, 3)}, parallel=True)()
    with pytest.raises(ModelError, match="program first"):
        Predictive({"level": torch.zeros(3)})


def test_many_discrete_sites_and_chains_in_either_form() -> None:
    """More sites than torch has dimensions; a loop; all steps at once: the same posterior, for each sample."""
    steps = 70
    y = torch.sin(torch.arange(steps).double())

    def told(loop):
        def model(y: torch.Tensor) -> None:
            size = sample("size", dist.Normal(torch.zeros(()).double(), 1.0))
            z = torch.zeros(()).double()
            for t in loop(range(steps)):
                z = sample(f"z_{t}", dist.Bernoulli(torch.where(z == 1, 0.8, 0.3).double()))
                sample(f"y_{t}", dist.Normal(z * size, 1.0), obs=y[t])

        return model

    sizes = torch.tensor([2.0, -1.0], dtype=torch.float64)
    exact = torch.stack([_chances(told(markov), size, y) for size in sizes])
    for loop in (list, markov, lambda steps: markov(steps, dim=-1, name="time")):
        drawn = Predictive(
            told(loop), {"size": sizes.repeat_interleave(1000)}, parallel=True, infer_discrete=True
        )(y)
        parts = [value.reshape(2, 1000, -1) for name, value in drawn.items() if name.startswith("z")]
        found = torch.cat(parts, -1).mean(1)
        assert found.shape == (2, steps)
        assert (found - exact).abs().max() < 5.5 * 0.5 / 1000**0.5


def _chances(model, size: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    answer = sumout.infer.marginals(sumout.condition(model, data={"size": size}))(y)
    return torch.stack([answer[f"z_{t}"].probs for t in range(len(y))])


def test_counts_that_are_cut_off() -> None:
    """A Poisson of which each is seen with probability one half: what was not seen is Poisson of half the rate."""

    def model(seen: torch.Tensor) -> None:
        rate = sample("rate", dist.Gamma(torch.tensor(3.0, dtype=torch.float64), 1.0))
        n = sample("n", dist.Poisson(rate), infer={"truncate": 60})
        sample("seen", dist.Binomial(n, 0.5), obs=seen)

    rates = torch.tensor([3.0, 8.0], dtype=torch.float64)
    drawn = Predictive(model, {"rate": rates.repeat(3000)}, parallel=True, infer_discrete=True)(rates[0])
    unseen = drawn["n"].reshape(3000, 2) - 3
    assert (unseen.mean(0) - rates / 2).abs().max() < 5 * (4 / 3000) ** 0.5
    assert (unseen.var(0) - rates / 2).abs().max() < 0.6
