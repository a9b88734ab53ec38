"""Samples in the place of all values (tensor Monte Carlo): shapes, moments, estimates of known numbers.

Statistical bounds are five standard errors, computed from the estimates themselves or from known moments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.effects import Message, Trace
from sumout.effects.enumerate_site import enumerate_site
from sumout.effects.handlers import enum, infer_config, replay, seed, trace
from sumout.effects.primitives import markov, plate, sample
from sumout.errors import EnumerationError
from sumout.infer import config_enumerate
from sumout.poutine.enum_messenger import enumerate_site as public_enumerate_site

STRATEGIES = ("diagonal", "mixture")


def asking(n: int, **more: Any) -> dict[str, Any]:
    return {"enumerate": "parallel", "num_samples": n, **more}


def enumerated(program: Callable[[], Any], first_available_dim: int = -1, rng_seed: int = 0) -> Trace:
    return trace(enum(seed(program, rng_seed=rng_seed), first_available_dim=first_available_dim)).get_trace()


def within(estimates: Tensor, expected: float) -> None:
    """The mean of independent estimates is the expected number, up to five standard errors."""
    error = 5 * estimates.std() / math.sqrt(len(estimates))
    assert error > 0
    assert abs(estimates.mean() - expected) < error, (estimates.mean(), expected, error)


# --------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("tmc", STRATEGIES)
@pytest.mark.parametrize(
    "fn",
    [
        dist.Normal(0.0, 1.0),
        dist.Bernoulli(0.3),
        dist.Poisson(3.0),
        dist.Dirichlet(torch.ones(4)),
        dist.Delta(torch.tensor(1.0)),
    ],
)
def test_a_site_without_parents_has_its_samples_along_its_own_dimension(fn: Any, tmc: str) -> None:
    def program() -> None:
        with plate("data", 3):
            sample("z", fn, infer=asking(7, tmc=tmc))

    z = enumerated(program, first_available_dim=-2).nodes["z"]
    assert z.value.shape == (7, 3, *fn.event_shape)
    assert z["log_prob"].shape == (7, 3)
    assert (z.enum_dim, z.enum_dims) == (-2, {-2: "z"})
    if not isinstance(fn, (dist.Delta, dist.Bernoulli)):
        assert len(z.value.unique(dim=0)) > 1
        assert len(z.value.unique(dim=1)) > 1


def chain(n: int, **more: Any) -> Callable[[], None]:
    """x ~ N(0, 1), y ~ N(2x + 1, 1/2), z ~ N(y - x, 1)."""

    def program() -> None:
        x = sample("x", dist.Normal(0.0, 1.0), infer=asking(n, **more))
        y = sample("y", dist.Normal(2 * x + 1, 0.5), infer=asking(n, **more))
        sample("z", dist.Normal(y - x, 1.0), infer=asking(n, **more))

    return program


@pytest.mark.parametrize("tmc", STRATEGIES)
def test_samples_of_parents_do_not_appear_in_the_values_but_in_the_density(tmc: str) -> None:
    nodes = enumerated(chain(5, tmc=tmc)).nodes
    x, y, z = nodes["x"], nodes["y"], nodes["z"]
    assert (x.enum_dim, y.enum_dim, z.enum_dim) == (-1, -2, -3)
    assert (x.value.shape, y.value.shape, z.value.shape) == ((5,), (5, 1), (5, 1, 1))
    assert (x["log_prob"].shape, y["log_prob"].shape, z["log_prob"].shape) == ((5,), (5, 5), (5, 5, 5))
    assert z.enum_dims == {-1: "x", -2: "y", -3: "z"}
    assert len(z.value.unique()) == 5


def test_expanded_there_are_samples_for_each_combination_of_the_parents() -> None:
    nodes = enumerated(chain(5, expand=True)).nodes
    assert (nodes["y"].value.shape, nodes["z"].value.shape) == ((5, 5), (5, 5, 5))
    assert len(nodes["z"].value.unique()) == 125
    assert nodes["z"]["log_prob"].shape == (5, 5, 5)


@pytest.mark.parametrize("tmc", STRATEGIES)
def test_plates_stay(tmc: str) -> None:
    def program() -> None:
        top = sample("top", dist.Normal(0.0, 1.0), infer=asking(4, tmc=tmc))
        with plate("rows", 2, dim=-2):
            row = sample("row", dist.Normal(top, 1.0), infer=asking(4, tmc=tmc))
            with plate("data", 3, dim=-1):
                loc = torch.stack([top + row, top - row], -1)
                sample("x", dist.Normal(loc, 1.0).to_event(1), infer=asking(4, tmc=tmc))

    nodes = enumerated(program, first_available_dim=-3).nodes
    assert nodes["row"].value.shape == (4, 1, 2, 1)
    assert nodes["x"].value.shape == (4, 1, 1, 2, 3, 2)
    assert nodes["x"]["log_prob"].shape == (4, 4, 4, 2, 3)
    assert len(nodes["x"].value.unique()) == 4 * 2 * 3 * 2


@pytest.mark.parametrize("tmc", STRATEGIES)
def test_one_sample(tmc: str) -> None:
    nodes = enumerated(chain(1, tmc=tmc)).nodes
    assert nodes["z"].value.shape == (1, 1, 1)
    assert nodes["z"].enum_dim == -3


@pytest.mark.parametrize("tmc", STRATEGIES)
def test_gradients_flow_where_the_family_allows(tmc: str) -> None:
    loc = torch.tensor(0.5, requires_grad=True)

    def program() -> None:
        x = sample("x", dist.Normal(loc, 1.0), infer=asking(3, tmc=tmc))
        sample("y", dist.Normal(x, 1.0), infer=asking(3, tmc=tmc))
        sample("b", dist.Bernoulli(torch.sigmoid(x)), infer=asking(3, tmc=tmc))

    nodes = enumerated(program).nodes
    (slope,) = torch.autograd.grad(nodes["y"].value.sum(), loc)
    assert slope == 3
    assert not nodes["b"].value.requires_grad


# ------------------------------------------------------------------------------------------ the strategies


def test_on_the_diagonal_sample_j_is_drawn_given_sample_j() -> None:
    def program() -> None:
        x = sample("x", dist.Normal(0.0, 100.0), infer=asking(50))
        y = sample("y", dist.Normal(-x, 0.1), infer=asking(50))
        with plate("data", 2):
            sample("z", dist.Normal(x + 3 * y.reshape(50, 1, 1), 0.1), infer=asking(50))

    nodes = enumerated(program, first_available_dim=-2).nodes
    x, y, z = nodes["x"].value.reshape(50), nodes["y"].value.reshape(50), nodes["z"].value.reshape(50, 2)
    assert (y + x).abs().max() < 1
    assert (z - (x + 3 * y)[:, None]).abs().max() < 1


def test_in_a_mixture_parents_are_chosen_for_each_sample_and_each_parent() -> None:
    def program() -> None:
        x = sample("x", dist.Normal(0.0, 100.0), infer=asking(40, tmc="mixture"))
        y = sample("y", dist.Normal(0.0, 1e4), infer=asking(30, tmc="mixture"))
        with plate("data", 2):
            sample("z", dist.Normal(x + y, 1e-3), infer=asking(2000, tmc="mixture"))

    nodes = enumerated(program, first_available_dim=-2).nodes
    sums = (nodes["x"].value + nodes["y"].value).reshape(-1)
    z = nodes["z"].value.reshape(2000, 2).double()
    distance, chosen = (z[:, 0, None] - sums.double()).abs().min(-1)
    assert distance.max() < 0.02  # floats near 1e4 have steps of 0.001
    assert (z[:, 0] - z[:, 1]).abs().max() < 0.05  # one choice for all elements of the plate
    # All 1200 combinations are equally likely: the numbers of hits of x's samples are multinomial.
    for hits in (
        torch.bincount(chosen % 40, minlength=40).double(),
        torch.bincount(chosen // 40, minlength=30).double(),
    ):
        expected = 2000 / len(hits)
        chi2 = ((hits - expected) ** 2 / expected).sum()
        freedom = len(hits) - 1
        assert abs(chi2 - freedom) < 5 * math.sqrt(2 * freedom)
    assert len(chosen.unique()) > 800  # of 1200, 973 are expected


@pytest.mark.parametrize("tmc", STRATEGIES)
def test_the_samples_have_the_marginal_moments(tmc: str) -> None:
    """y ~ N(1, 4 + 1/4) and z = y - x + noise ~ N(1, 1 + 1/4 + 1), if z's parents are x and y as drawn together."""
    n = 60
    runs = [enumerated(chain(n, tmc=tmc), rng_seed=number).nodes for number in range(150)]
    x, y, z = (torch.stack([run[name].value.reshape(n) for run in runs]).double() for name in "xyz")
    within(y.mean(-1), 1.0)
    within(((y - 1) ** 2).mean(-1), 4.25)
    within(z.mean(-1), 1.0)
    # The mixture over x and the mixture over y are independent of each other.
    within(((z - 1) ** 2).mean(-1), 2.25 if tmc == "diagonal" else 4.25 + 1 + 1 - 2 * 2 / n)
    # How sample j goes with sample j of the parent: the covariance is 2 for pairs, and 2/n on average over all.
    within((x * (y - 1)).mean(-1), 2.0 if tmc == "diagonal" else 2 / n)


@pytest.mark.parametrize("tmc", STRATEGIES)
def test_a_discrete_site_and_its_child(tmc: str) -> None:
    locs = torch.tensor([-1.0, 3.0])

    def program() -> None:
        z = sample("z", dist.Categorical(torch.tensor([0.25, 0.75])), infer=asking(50, tmc=tmc))
        sample("x", dist.Normal(locs[z], 0.5), infer=asking(50, tmc=tmc))

    runs = [enumerated(program, rng_seed=number).nodes for number in range(100)]
    z, x = (torch.stack([run[name].value.reshape(50) for run in runs]).double() for name in "zx")
    within(z.mean(-1), 0.75)
    within(x.mean(-1), 2.0)
    within((x**2).mean(-1), 0.25 * 1 + 0.75 * 9 + 0.25)


def test_a_mixture_over_all_values_of_an_exhaustive_parent_is_uniform() -> None:
    def program() -> None:
        z = sample("z", dist.Bernoulli(0.01), infer={"enumerate": "parallel"})
        sample("x", dist.Normal(10 * z, 1.0), infer=asking(4000, tmc="mixture"))
        sample("y", dist.Normal(10 * z, 1.0), infer=asking(3, expand=True))

    nodes = enumerated(program).nodes
    assert nodes["x"].value.shape == (4000, 1)
    assert abs((nodes["x"].value > 5).double().mean() - 0.5) < 5 * 0.5 / math.sqrt(4000)
    assert nodes["y"].value.shape == (3, 1, 2)
    assert (nodes["y"].value[..., 1] > nodes["y"].value[..., 0]).all()


# -------------------------------------------------------------------------------------- estimates of evidence


def evidence(run: Trace, tmc: str) -> Tensor:
    """The tensor Monte Carlo estimate of p(x) for b | a, x | b: the mean over all pairs of samples of p / q.

    b's samples are drawn from q, which is its density given parent sample j on the diagonal, the mean over all
    parent samples in a mixture, and the density that is scored where values are expanded.
    """
    density = run.nodes["b"]["log_prob"].exp()  # (n of b, n of a)
    likelihood = run.nodes["x"]["log_prob"].exp()
    if tmc == "expand":
        return likelihood.mean()
    proposal = density.diagonal()[:, None] if tmc == "diagonal" else density.mean(-1, keepdim=True)
    return (likelihood * density / proposal).mean()


@pytest.mark.parametrize("tmc", [*STRATEGIES, "expand"])
def test_the_estimate_of_the_evidence_is_unbiased(tmc: str) -> None:
    """a ~ N(0, 1), b ~ N(a/2, 1), x ~ N(b, 1/2) at 1.5: p(x) = N(1.5; 0, 1/4 + 1 + 1/4)."""
    how = asking(6, expand=True) if tmc == "expand" else asking(6, tmc=tmc)

    def program() -> None:
        a = sample("a", dist.Normal(torch.tensor(0.0).double(), 1.0), infer=how)
        b = sample("b", dist.Normal(a / 2, 1.0), infer=how)
        sample("x", dist.Normal(b, 0.5), obs=torch.tensor(1.5).double())

    expected = dist.Normal(0.0, math.sqrt(1.5)).log_prob(torch.tensor(1.5).double()).exp()
    estimates = torch.stack([evidence(enumerated(program, rng_seed=number), tmc) for number in range(1500)])
    within(estimates, float(expected))


# ------------------------------------------------------------------------------------- with other handlers


def test_a_long_chain_uses_few_dimensions() -> None:
    """A random walk: x_t has mean 0 and variance t; dimensions are used again, so values move right."""
    n, steps = 200, 12

    def program() -> None:
        x = torch.zeros(())
        for t in markov(range(steps)):
            x = sample(f"x{t}", dist.Normal(x, 1.0), infer=asking(n))
            assert x.numel() == n

    last = []
    for number in range(60):
        nodes = enumerated(program, rng_seed=number).nodes
        assert min(nodes[f"x{t}"].enum_dim for t in range(steps)) >= -4
        last.append(nodes[f"x{steps - 1}"].value.reshape(n).double())
    walks = torch.stack(last)
    within(walks.mean(-1), 0.0)
    within((walks**2).mean(-1), float(steps))


@pytest.mark.parametrize("how", [{"tmc": "diagonal"}, {"tmc": "mixture"}, {"expand": True}])
def test_in_a_chain_each_step_is_drawn_from_the_one_before(how: dict[str, Any]) -> None:
    def program() -> None:
        x, data = torch.zeros(()), plate("data", 2)
        for t in markov(range(7)):
            with data:
                x = sample(f"x{t}", dist.Normal(3 * x + 10.0**t, 1e-3), infer=asking(4, **how))

    nodes = enumerated(program, first_available_dim=-2).nodes
    expected = 0.0
    for t in range(7):
        site = nodes[f"x{t}"]
        expected = 3 * expected + 10.0**t
        assert (site.value / expected - 1).abs().max() < 0.05
        assert site.value.shape[site.enum_dim] == 4
        assert set(site.enum_dims) >= {
            dim for dim in range(-site["log_prob"].dim(), -1) if site["log_prob"].shape[dim] > 1
        }


def test_expanded_samples_pass_their_parents_on_in_a_chain() -> None:
    def program() -> None:
        x = sample("x", dist.Normal(0.0, 1.0), infer=asking(3))
        for t in markov(range(3)):
            x = sample(f"x{t}", dist.Normal(x, 1.0), infer=asking(3, expand=True))

    nodes = enumerated(program).nodes
    assert nodes["x2"].value.numel() == 3**4
    for dim, size in zip(range(-nodes["x2"].value.dim(), 0), nodes["x2"].value.shape, strict=True):
        assert size == 1 or dim in nodes["x2"].enum_dims


def test_replay_reproduces_the_samples() -> None:
    before = enumerated(chain(5))
    after = trace(replay(chain(5), trace=before)).get_trace()
    for name in "xyz":
        assert after.nodes[name].value is before.nodes[name].value
        assert torch.equal(after.nodes[name]["log_prob"], before.nodes[name]["log_prob"])
        assert after.nodes[name].enum_dims == before.nodes[name].enum_dims


def test_observed_sites_and_subsamples_are_left_alone() -> None:
    @config_enumerate(num_samples=5)
    def program() -> None:
        with plate("data", 6, subsample_size=2) as indices:
            assert indices.shape == (2,)
            z = sample("z", dist.Normal(0.0, 1.0))
            sample("x", dist.Normal(z, 1.0), obs=torch.zeros(2))

    nodes = enumerated(program, first_available_dim=-2).nodes
    assert nodes["z"].value.shape == (5, 2)
    assert nodes["x"].value.shape == (2,)
    assert nodes["x"].enum_dim is None
    assert nodes["x"]["log_prob"].shape == (5, 2)


def test_infer_config_asks_for_samples() -> None:
    def program() -> Any:
        return sample("z", dist.Normal(0.0, 1.0))

    for n in (2, 3):
        configured = infer_config(program, config_fn=lambda site, n=n: asking(n))
        assert enum(configured, first_available_dim=-1)().shape == (n,)


# --------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "3", torch.tensor(3)])
def test_numbers_that_are_none(n: Any) -> None:
    with pytest.raises(EnumerationError, match="'z' asks for num_samples=.*positive integer"), enum(None, -1):
        sample("z", dist.Normal(0.0, 1.0), infer=asking(n))


def test_a_strategy_that_does_not_exist() -> None:
    with pytest.raises(EnumerationError, match="'z' has tmc='full'.*'diagonal' or 'mixture'"), enum(None, -1):
        sample("z", dist.Normal(0.0, 1.0), infer=asking(2, tmc="full"))


def test_on_the_diagonal_the_numbers_are_equal() -> None:
    def program(how: dict[str, Any]) -> Any:
        x = sample("x", dist.Normal(0.0, 1.0), infer=asking(3))
        return sample("y", dist.Normal(x, 1.0), infer=how)

    handled = enum(program, first_available_dim=-1)
    with pytest.raises(
        EnumerationError, match=r"'y' has num_samples=4 and depends on sites that have \[3\].*mixture"
    ):
        handled(asking(4))
    assert handled(asking(4, tmc="mixture")).shape == (4, 1)
    assert handled(asking(4, expand=True)).shape == (4, 3)
    with pytest.raises(EnumerationError, match=r"num_samples=1 .*\[3\]"):
        handled(asking(1))


def test_many_steps_of_a_chain_cannot_be_drawn_at_once() -> None:
    msg = Message(
        type="sample", name="z", fn=dist.Normal(0.0, 1.0), infer={"num_samples": 3, "_undrawable": object()}
    )
    with pytest.raises(EnumerationError, match="'z' stands for many steps of a chain.*loop"):
        enumerate_site(msg)


def test_a_site_that_asks_for_samples_needs_a_dimension() -> None:
    with pytest.raises(EnumerationError, match="no first_available_dim"), enum():
        sample("z", dist.Normal(0.0, 1.0), infer=asking(2))


# -------------------------------------------------------------------------------------------- enumerate_site


def test_values_and_samples_have_the_rank_of_the_batch_and_one() -> None:
    assert public_enumerate_site is enumerate_site
    fn = dist.Categorical(torch.ones(2, 3, 4))

    def of(**infer: Any) -> Tensor:
        return enumerate_site(Message(type="sample", name="z", fn=fn, infer=infer))

    assert torch.equal(of(), torch.arange(4).reshape(4, 1, 1))
    assert torch.equal(of(expand=True), torch.arange(4).reshape(4, 1, 1).expand(4, 2, 3))
    assert of(num_samples=5, expand=True).shape == (5, 2, 3)
    assert of(num_samples=5, tmc="mixture").shape == (5, 1, 1)
    with pytest.raises(EnumerationError, match=r"\[2, 3\]"):
        of(num_samples=5)


def test_along_plates_the_values_are_repeated_only_when_asked() -> None:
    found = []

    def look(site: Message) -> dict[str, Any]:
        if site.name != "z":
            return {}
        found.append(enumerate_site(site))
        site.infer["expand"] = True
        found.append(enumerate_site(site))
        return {}

    def program() -> None:
        with plate("data", 3):
            sample("z", dist.Bernoulli(0.5))

    infer_config(program, config_fn=look)()
    assert [value.shape for value in found] == [(2, 1), (2, 3)]


def test_what_cannot_be_listed() -> None:
    with pytest.raises(EnumerationError, match="'z' cannot be enumerated: Normal"):
        enumerate_site(Message(type="sample", name="z", fn=dist.Normal(0.0, 1.0)))
