"""Guides as handlers: what they record, the bound that follows from it, and training to posteriors in closed form."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from forms import in_threads
from sumout import infer, optim
from sumout.distributions import constraints
from sumout.effects import Trace
from sumout.effects.handlers import GuideMessenger, block, condition, mask, replay, scale, trace
from sumout.effects.primitives import deterministic, factor, get_param_store, param, plate, sample
from sumout.effects.stack import state
from sumout.errors import ModelError, UnknownSiteError
from sumout.infer.objectives.particles import ParticlePlate

X = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
ZERO, ONE = torch.tensor([0.0, 1.0], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _params_of_each_test() -> Any:
    with get_param_store().scope():
        yield


def model(x: Tensor, spread: float = 1.0) -> Tensor:
    """A mean, and for each datum an effect: z ~ N(0, 1), w_i ~ N(z, 1), x_i ~ N(w_i, 1)."""
    z = sample("z", dist.Normal(ZERO, spread * ONE))
    deterministic("twice", 2 * z)
    with plate("data", len(x)):
        w = sample("w", dist.Normal(z, ONE))
        sample("x", dist.Normal(w, ONE), obs=x)
    return z


class MeanField(GuideMessenger):
    """Every latent site has a normal posterior of its own."""

    def get_posterior(self, name: str, prior: Any) -> Any:
        loc = param(f"{name}_loc", lambda: torch.zeros(prior.shape(), dtype=torch.float64))
        spread = param(
            f"{name}_scale",
            lambda: torch.ones(prior.shape(), dtype=torch.float64),
            constraint=constraints.positive,
        )
        return dist.Normal(loc, spread)


class Structured(MeanField):
    """The effects follow from the mean, as they do in the posterior."""

    def get_posterior(self, name: str, prior: Any) -> Any:
        if name != "w":
            return super().get_posterior(name, prior)
        (x,), kwargs = self.args_kwargs
        assert kwargs == {}
        z, twice = self.upstream_value("z"), self.upstream_value("twice")
        assert z is not None
        assert twice is not None
        assert torch.equal(twice, 2 * z)
        assert torch.equal(self.trace.nodes["z"]["value"], z)
        spread = param("w_scale", torch.ones((), dtype=torch.float64), constraint=constraints.positive)
        slope = param("slope", torch.zeros((), dtype=torch.float64))
        return dist.Normal(slope * (z + x), spread)


def test_gives_the_values_of_all_sites() -> None:
    guide = MeanField(model)
    values = guide(X)
    assert sorted(values) == ["twice", "w", "x", "z"]
    assert values["x"] is X
    assert values["w"].shape == (3,)
    assert values["z"] is guide.trace.nodes["z"]["value"]
    assert guide.model is model
    assert state.stack == []


def test_a_guide_is_abstract_and_takes_a_program() -> None:
    with pytest.raises(TypeError, match="get_posterior"):
        GuideMessenger(model)  # type: ignore[abstract]
    with pytest.raises(ModelError, match="not 3"):
        MeanField(3)  # type: ignore[arg-type]


def test_the_two_traces() -> None:
    guide = MeanField(model)
    guide(X)
    model_trace, guide_trace = guide.get_traces()
    assert guide_trace.stochastic_nodes == ["z", "w"]
    assert guide_trace.observation_nodes == []
    assert model_trace.stochastic_nodes == ["z", "w"]
    assert model_trace.observation_nodes == ["twice", "x"]
    assert isinstance(guide_trace.nodes["z"]["fn"], dist.Normal)
    assert guide_trace.nodes["z"]["fn"].loc.requires_grad
    assert not model_trace.nodes["z"]["fn"].loc.requires_grad
    assert model_trace.nodes["z"]["value"] is guide_trace.nodes["z"]["value"]
    before = guide.trace.log_prob_sum()
    model_trace.remove_node("z")
    assert guide.trace.log_prob_sum() == before  # they are copies


def bound(model_trace: Trace, guide_trace: Trace) -> Tensor:
    return torch.as_tensor(model_trace.log_prob_sum() - guide_trace.log_prob_sum())


@pytest.mark.parametrize("kind", [MeanField, Structured])
@pytest.mark.parametrize("around", ["nothing", "particles", "scale and mask"])
def test_they_give_the_bound_that_trace_and_replay_give(kind: Any, around: str) -> None:
    """Exactly: the values are the same and so is every operation."""
    guide = kind(model)
    program = guide
    if around == "particles":
        program = ParticlePlate(7, dim=-2)(guide)
        replayed_model: Any = ParticlePlate(7, dim=-2)(model)
    elif around == "scale and mask":
        present = torch.tensor(True)
        program, replayed_model = (mask(scale(each, scale=0.5), mask=present) for each in (guide, model))
    else:
        replayed_model = model
    guide(X)  # Parameters are as large as the sites are without particles.
    outside = trace(program).get_trace(X)
    assert outside.stochastic_nodes == ["z", "data", "w"]
    assert outside.observation_nodes == []  # what the model observes is no part of the guide
    replayed = trace(replay(replayed_model, trace=outside)).get_trace(X)
    expected = bound(replayed, outside)
    assert torch.equal(bound(*guide.get_traces()), expected)
    assert guide.get_traces()[0].observation_nodes == ["twice", "x"]


def test_the_bound_at_the_posterior_is_the_evidence() -> None:
    """z | x ~ N(x/2, 1/2) for one datum, so log p(x, z) - log q(z) is log N(x; 0, 2) at any z."""

    def one(x: Tensor) -> None:
        sample("x", dist.Normal(sample("z", dist.Normal(ZERO, ONE)), ONE), obs=x)

    class Posterior(GuideMessenger):
        def get_posterior(self, name: str, prior: Any) -> Any:
            return dist.Normal(self.args_kwargs[0][0] / 2, ONE / 2**0.5)

    guide = Posterior(one)
    x = 1.3 * ONE
    evidence = dist.Normal(ZERO, 2**0.5).log_prob(x)
    for _ in range(3):
        guide(x)
        torch.testing.assert_close(bound(*guide.get_traces()), evidence, rtol=1e-12, atol=1e-12)
    loss = infer.Trace_ELBO(num_particles=3).loss(one, guide, x)
    assert loss == pytest.approx(-float(evidence), abs=1e-12)


def posterior_of_z() -> tuple[float, float]:
    """x_i ~ N(z, 2) once the effects are summed out: precision 1 + 3/2, mean (sum x / 2) / precision."""
    precision = 1 + len(X) / 2
    return float(X.sum() / 2 / precision), precision**-0.5


def test_training_reaches_the_posterior() -> None:
    """It is of the guide's form: z normal, w_i | z ~ N((z + x_i)/2, 1/2). The bound is the evidence there."""
    guide = Structured(model)
    guide(X)  # The parameters are made without the dimension of the particles.
    elbo = infer.Trace_ELBO(num_particles=100, vectorize_particles=True, max_plate_nesting=1)
    for rate in (0.05, 0.01, 0.001):
        losses = infer.SVI(model, guide, optim.Adam({"lr": rate}), elbo).run(200, X)
    params = {name: value.item() for name, value in get_param_store().items()}
    mean, deviation = posterior_of_z()
    # With four other seeds the errors were at most 0.01.
    assert params["z_loc"] == pytest.approx(mean, abs=0.02)
    assert params["z_scale"] == pytest.approx(deviation, abs=0.02)
    assert params["slope"] == pytest.approx(0.5, abs=0.02)
    assert params["w_scale"] == pytest.approx(0.5**0.5, abs=0.02)
    covariance = 2 * torch.eye(3, dtype=torch.float64) + 1
    evidence = dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(X)
    assert losses[-1] == pytest.approx(-float(evidence), abs=0.01)


def test_a_tensor_is_a_point_mass() -> None:
    """The best point is the mode: of z and w together, that of a normal, which is its mean."""

    class Point(GuideMessenger):
        def get_posterior(self, name: str, prior: Any) -> Any:
            return param(f"{name}_at", lambda: torch.zeros(prior.shape(), dtype=torch.float64))

    guide = Point(model)
    assert isinstance(trace(guide).get_trace(X).nodes["w"]["fn"], dist.Delta)
    infer.SVI(model, guide, optim.Adam({"lr": 0.05}), infer.Trace_ELBO()).run(800, X)
    mean, _ = posterior_of_z()
    assert get_param_store()["z_at"].item() == pytest.approx(mean, abs=1e-3)
    torch.testing.assert_close(get_param_store()["w_at"].detach(), (mean + X) / 2, rtol=0, atol=1e-3)


def test_a_point_mass_of_vectors_has_the_event_shape() -> None:
    def vectors() -> None:
        with plate("data", 2):
            sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    class Point(GuideMessenger):
        def get_posterior(self, name: str, prior: Any) -> Any:
            return torch.ones(3)

    guide = Point(vectors)
    assert guide()["z"].shape == (2, 3)
    assert guide.trace.nodes["z"]["fn"].event_shape == (3,)


def test_auxiliary_sites_belong_to_the_guide() -> None:
    """q(z) = integral N(z; a, 1) N(a; 0, 1) da; the bound counts q(a) q(z | a), as for any guide with such a site."""

    class Auxiliary(GuideMessenger):
        def __init__(self, program: Any, marks: dict[str, Any]) -> None:
            super().__init__(program)
            self.marks = marks
            self.asked: list[str] = []

        def get_posterior(self, name: str, prior: Any) -> Any:
            self.asked.append(name)
            a = sample("a", dist.Normal(ZERO, ONE), infer=self.marks)
            factor("penalty", -0.25 * a**2, has_rsample=True)
            return dist.Normal(a, ONE)

    def one() -> None:
        z = sample("z", dist.Normal(ZERO, ONE))
        sample("x", dist.Normal(z, ONE), obs=ONE)

    for marks in ({"is_auxiliary": True}, {}):
        guide = Auxiliary(one, marks)
        assert sorted(guide()) == ["x", "z"]
        assert guide.asked == ["z"]
        model_trace, guide_trace = guide.get_traces()
        assert sorted(guide_trace) == ["a", "penalty", "z"]
        assert guide_trace.nodes["a"]["infer"]["is_auxiliary"]
        assert sorted(model_trace) == ["x", "z"]
        outside = trace(guide).get_trace()
        replayed = trace(replay(one, trace=outside)).get_trace()
        assert torch.equal(bound(*guide.get_traces()), bound(replayed, outside))
    assert infer.Trace_ELBO().loss(one, guide) != 0.0


def test_plates_are_in_force_in_get_posterior() -> None:
    seen = {}

    class Local(GuideMessenger):
        def get_posterior(self, name: str, prior: Any) -> Any:
            seen[name] = [frame.name for frame in sumout.poutine.get_plates()], tuple(prior.batch_shape)
            # One number an element, of which those of the subsample are taken.
            return dist.Normal(param("local", torch.arange(5.0), event_dim=0), 0.001)

    def program() -> None:
        with plate("data", 5, subsample=torch.tensor([1, 4])):
            sample("w", dist.Normal(0.0, 1.0))

    guide = Local(program)
    assert guide()["w"].round().tolist() == [1.0, 4.0]
    assert seen == {"w": (["data"], (2,))}
    guide_trace = guide.get_traces()[1]
    assert guide_trace.nodes["w"]["scale"] == 2.5


def test_a_subsample_is_the_same_for_model_and_guide() -> None:
    def program() -> None:
        with plate("data", 100, subsample_size=5) as chosen:
            w = sample("w", dist.Normal(0.0, 1.0))
            sample("x", dist.Normal(w, 1.0), obs=torch.arange(100.0)[chosen])

    class Prior(GuideMessenger):
        def get_posterior(self, name: str, prior: Any) -> Any:
            return prior

    guide = Prior(program)
    recorded = trace(guide).get_trace()
    assert list(recorded) == ["_INPUT", "data", "w", "_RETURN"]
    again = trace(replay(program, trace=recorded)).get_trace()
    assert torch.equal(again.nodes["data"]["value"], recorded.nodes["data"]["value"])
    assert sorted(guide.get_traces()[0]) == ["w", "x"]  # without the site that chose
    infer.Trace_ELBO().loss(program, guide)


def test_the_prior_is_also_in_infer() -> None:
    guide = MeanField(model)
    with plate("outside", 2, dim=-2):
        guide(X)
    guide_trace = guide.get_traces()[1]
    assert list(guide_trace) == ["z", "w"]
    for name, shape in (("z", (2, 1)), ("w", (2, 3))):
        site = guide_trace.nodes[name]
        assert site["infer"]["prior"] is site["prior"]
        assert site["infer"]["prior"].batch_shape == shape == site["fn"].batch_shape
    assert "prior" not in guide.trace.nodes["x"]["infer"]


def test_sites_that_a_handler_inside_hides_are_left_to_the_model() -> None:
    """The discrete site is summed out by the objective, the other is drawn by the guide."""
    data = torch.tensor([-1.0, 4.0])

    def mixture(x: Tensor) -> None:
        loc = sample("loc", dist.Normal(0.0, 1.0))
        with plate("data", 2):
            z = sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            sample("x", dist.Normal(loc + 4 * z, 1.0), obs=x)

    def by_hand(x: Tensor) -> None:
        sample("loc", dist.Normal(0.5, 0.25))

    class Normal(GuideMessenger):
        def get_posterior(self, name: str, prior: Any) -> Any:
            assert name == "loc"
            return dist.Normal(0.5, 0.25)

    guide = Normal(block(mixture, hide=["z", "x"]))
    losses = []
    for each in (by_hand, guide):
        torch.manual_seed(3)
        losses.append(infer.TraceEnum_ELBO(max_plate_nesting=1).loss(mixture, each, data))
    assert losses[0] == losses[1]


def test_other_shapes_and_other_things_are_told() -> None:
    def guide_with(posterior: Any) -> GuideMessenger:
        class Wrong(GuideMessenger):
            def get_posterior(self, name: str, prior: Any) -> Any:
                return posterior

        return Wrong(lambda: sample("z", dist.Normal(torch.zeros(3), 1.0)))

    with pytest.raises(ModelError, match=r"'z' has event_shape \(\) in the model and \(3,\) in the guide"):
        guide_with(dist.Normal(torch.zeros(3), 1.0).to_event(1))()
    with pytest.raises(ModelError, match=r"'z' has batch_shape \(3,\) in the model and \(4,\) in the guide"):
        guide_with(dist.Normal(torch.zeros(4), 1.0))()
    with pytest.raises(ModelError, match="gave None for site 'z'"):
        guide_with(None)()
    assert guide_with(dist.Normal(0.0, 1.0))()["z"].shape == (3,)
    assert state.stack == []


def test_what_is_not_upstream_and_no_call() -> None:
    class Curious(GuideMessenger):
        def get_posterior(self, name: str, prior: Any) -> Any:
            return dist.Normal(self.upstream_value("zz"), 1.0) if name == "w" else prior

    guide = Curious(model)
    with pytest.raises(ModelError, match="no site 'zz' upstream.*Did you mean 'z'"):
        guide(X)
    with pytest.raises(KeyError) as caught:  # as in Pyro
        guide(X)
    assert isinstance(caught.value, UnknownSiteError)
    assert str(caught.value).startswith("There is no site 'zz' upstream")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    with pytest.raises(ModelError, match="while it is called"):
        guide.args_kwargs  # noqa: B018
    assert state.stack == []


def test_conditioning_the_model_inside() -> None:
    guide = MeanField(condition(model, data={"z": ONE}))
    assert guide(X)["z"] is ONE
    assert guide.get_traces()[1].stochastic_nodes == ["w"]


def test_keyword_arguments() -> None:
    class Wide(GuideMessenger):
        def get_posterior(self, name: str, prior: Any) -> Any:
            assert self.args_kwargs == ((X,), {"spread": 3.0})
            return prior

    guide = Wide(model)
    guide(X, spread=3.0)
    assert guide.get_traces()[1].nodes["z"]["fn"].scale == 3.0


def test_copies_and_pickles_without_its_trace() -> None:
    guide = MeanField(model)
    guide(X)
    for again in (copy.deepcopy(guide), pickle.loads(pickle.dumps(guide))):
        assert len(again.trace) == 0
        assert sorted(again(X)) == ["twice", "w", "x", "z"]
    assert len(guide.trace) > 0


def test_threads() -> None:
    class Own(GuideMessenger):
        def get_posterior(self, name: str, prior: Any) -> Any:
            return dist.Delta(self.args_kwargs[0][0])

    guide = Own(lambda x: sample("z", dist.Normal(0.0, 1.0)))
    values = in_threads(*[lambda i=i: guide(torch.tensor(float(i)))["z"].item() for i in range(4)])
    assert values == [0.0, 1.0, 2.0, 3.0]
