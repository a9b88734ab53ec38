"""The same programs and the same reparameterizers in Pyro: the same sites in the same order, of the same shapes, and
from the same seed the same values with the same densities.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.infer.reparam
import pyro.poutine
import pytest
import torch

import sumout
import sumout.distributions as dist
import sumout.infer.reparam
import sumout.poutine

PYRO = SimpleNamespace(
    sample=pyro.sample,
    plate=pyro.plate,
    get_param_store=pyro.get_param_store,
    poutine=pyro.poutine,
    reparam=pyro.infer.reparam,
)
OURS = SimpleNamespace(
    sample=sumout.sample,
    plate=sumout.plate,
    get_param_store=sumout.get_param_store,
    poutine=sumout.poutine,
    reparam=sumout.infer.reparam,
)


@pytest.fixture(autouse=True)
def _fresh_params() -> Iterator[None]:
    for language in (PYRO, OURS):
        language.get_param_store().clear()
    yield
    for language in (PYRO, OURS):
        language.get_param_store().clear()


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.2 + torch.rand(shape, generator=torch.Generator().manual_seed(seed + 17 * sum(shape)))


def run(language: Any, program: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return language.poutine.trace(program).get_trace()


def compare(build: Any, config: Any, density: bool = True) -> None:
    """``build(language)`` is a program, ``config(language.reparam)`` what it is reparameterized by."""
    seen = []
    for language in (PYRO, OURS):
        program = language.poutine.reparam(build(language), config=config(language.reparam))
        run(language, program)
        seen.append(run(language, program, seed=1))
    theirs, ours = seen
    sites = [
        [name for name, site in each.nodes.items() if site["type"] in ("sample", "param")] for each in seen
    ]
    assert sites[0] == sites[1]
    for name in sites[0]:
        one, other = theirs.nodes[name], ours.nodes[name]
        torch.testing.assert_close(other["value"], one["value"], rtol=1e-6, atol=1e-8)
        if one["type"] == "sample":
            assert one["is_observed"] == other["is_observed"], name
            assert [each.name for each in one["cond_indep_stack"]] == [
                each.name for each in other["cond_indep_stack"]
            ]
            for shape in ("batch_shape", "event_shape"):
                if type(one["fn"]).__name__ != "_Subsample":
                    assert getattr(one["fn"], shape) == getattr(other["fn"], shape), (name, shape)
    if density:
        theirs.compute_log_prob()
        torch.testing.assert_close(ours.log_prob_sum(), theirs.log_prob_sum(), rtol=1e-6, atol=1e-8)


def one_site(make: Any, obs: Any = None, plated: bool = True) -> Any:
    def build(P: Any) -> Any:
        def program() -> Any:
            if not plated:
                return P.sample("x", make(), obs=obs)
            with P.plate("data", 3):
                return P.sample("x", make(), obs=obs)

        return program

    return build


STABLE = {
    "symmetric": lambda: dist.Stable(numbers(3) + 0.4, 0.0, numbers(3, seed=1)),
    "skewed": lambda: dist.Stable(numbers(3) / 2 + 1.1, 0.3, numbers(3, seed=1), 1.0),
}
CASES: dict[str, tuple[Any, Any]] = {
    "LocScale learned": (
        lambda: dist.Normal(numbers(3, 2), numbers(2)).to_event(1),
        lambda r: {"x": r.LocScaleReparam()},
    ),
    "LocScale of StudentT": (
        lambda: dist.StudentT(numbers(3) + 2, numbers(3), 2.0),
        lambda r: {"x": r.LocScaleReparam(0.3, shape_params=["df"])},
    ),
    "LocScale centered": (lambda: dist.Normal(numbers(3), 1.0), lambda r: {"x": r.LocScaleReparam(1.0)}),
    "Transform": (
        lambda: dist.LogNormal(numbers(3, 2), 1.5).to_event(1),
        lambda r: {"x": r.TransformReparam(), "x_base": r.LocScaleReparam(0.0)},
    ),
    "StudentT": (
        lambda: dist.StudentT(numbers(3) + 2, numbers(3), 2.0),
        lambda r: {"x": r.StudentTReparam()},
    ),
    "DiscreteCosine": (
        lambda: dist.Normal(numbers(3, 4), 2.0).to_event(1),
        lambda r: {"x": r.DiscreteCosineReparam(smooth=1.0)},
    ),
    "DiscreteCosine of a batch": (
        lambda: dist.LogNormal(numbers(3), 2.0),
        lambda r: {"x": r.DiscreteCosineReparam(experimental_allow_batch=True)},
    ),
    "Haar": (
        lambda: dist.Gamma(numbers(3, 4) + 1, 2.0).to_event(1),
        lambda r: {"x": r.HaarReparam(flip=True)},
    ),
    "UnitJacobian": (
        lambda: dist.Normal(numbers(3, 4), 2.0).to_event(1),
        lambda r: {
            "x": r.UnitJacobianReparam(dist.transforms.Permute(torch.tensor([2, 0, 1, 3])), "permuted")
        },
    ),
    "ProjectedNormal": (
        lambda: dist.ProjectedNormal(numbers(3, 4)),
        lambda r: {"x": r.ProjectedNormalReparam()},
    ),
    "GumbelSoftmax": (
        lambda: dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=numbers(3, 4)),
        lambda r: {"x": r.GumbelSoftmaxReparam()},
    ),
    "LatentStable": (STABLE["skewed"], lambda r: {"x": r.LatentStableReparam()}),
    "SymmetricStable": (STABLE["symmetric"], lambda r: {"x": r.SymmetricStableReparam()}),
    "Stable": (STABLE["skewed"], lambda r: {"x": r.StableReparam()}),
    "Stable and LocScale": (
        STABLE["skewed"],
        lambda r: {"x": r.LocScaleReparam(0.5), "x_decentered": r.StableReparam()},
    ),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_latent_site(case: str) -> None:
    make, config = CASES[case]
    compare(one_site(make), config)


@pytest.mark.parametrize("case", ["StudentT", "SymmetricStable", "Stable"])
def test_an_observed_site(case: str) -> None:
    make, config = CASES[case]
    compare(one_site(make, obs=torch.tensor([0.3, -1.0, 2.0])), config)


@pytest.mark.parametrize("case", ["LocScale learned", "Transform", "DiscreteCosine", "Haar"])
def test_an_observed_site_with_a_jacobian(case: str) -> None:
    """The same sites; Pyro's density lacks the Jacobian, so that it is not compared."""
    make, config = CASES[case]
    compare(one_site(make, obs=make().sample()), config, density=False)


def test_split() -> None:
    data = torch.arange(12.0).reshape(3, 4)

    def fn() -> Any:
        return dist.Normal(numbers(3, 4), 2.0).to_event(1)

    compare(one_site(fn, obs=data), lambda r: {"x": r.SplitReparam([1, 3], -1)})

    def build(P: Any) -> Any:
        parts = {"x_split_0": data[:, :1], "x_split_1": data[:, 1:]}
        config = {"x": P.reparam.SplitReparam([1, 3], -1)}
        return P.poutine.condition(P.poutine.reparam(one_site(fn)(P), config=config), data=parts)

    compare(build, lambda r: lambda site: None)


def test_conjugate() -> None:
    count, total = torch.tensor([2.0, 3.0, 9.0]), 10.0

    def build(P: Any) -> Any:
        def program() -> None:
            with P.plate("data", 3):
                x = P.sample("x", dist.Beta(numbers(3), 1.5))
                P.sample("y", dist.Binomial(total, x), obs=count)

        return program

    guide = dist.Beta(1 + count, 1 + total - count)
    compare(build, lambda r: {"x": r.ConjugateReparam(guide)})
    compare(build, lambda r: {"x": r.ConjugateReparam(lambda: dist.Beta(2.0 + count, 4.0))})


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize("independent", [True, False])
def test_linear_hmm(observed: bool, independent: bool) -> None:
    def make() -> Any:
        batch = (2,) if independent else ()
        seen = 1 if independent else 2
        obs = dist.StudentT(4.0, numbers(*batch, 5, seen), 1.0).to_event(1)
        if not independent:
            obs = dist.TransformedDistribution(obs, [dist.transforms.ExpTransform()])
        hmm = dist.LinearHMM(
            dist.Stable(1.5, 0.0, numbers(*batch, 3)).to_event(1),
            numbers(*batch, 1, 3, 3),
            dist.Normal(numbers(*batch, 1, 3), 1.0).to_event(1),
            numbers(*batch, 1, 3, seen),
            obs,
            duration=5,
        )
        return dist.IndependentHMM(hmm) if independent else hmm

    def config(r: Any) -> Any:
        return {"x": r.LinearHMMReparam(init=r.SymmetricStableReparam(), obs=r.StudentTReparam())}

    data = numbers(5, 2) if observed else None
    compare(one_site(make, obs=data, plated=False), config)
    compare(one_site(make, obs=None if data is None else data.expand(3, 5, 2)), config)


@pytest.mark.parametrize("strategy", ["AutoReparam", "MinimalReparam"])
def test_strategies(strategy: str) -> None:
    def build(P: Any) -> Any:
        def program() -> None:
            loc = P.sample("loc", dist.Normal(0.5, 2.0))
            P.sample("scale", dist.LogNormal(loc, 1.0))
            with P.plate("data", 3):
                P.sample("student", dist.StudentT(3.0, loc, 2.0))
                P.sample("stable", dist.Stable(1.5, 0.3, 1.0, loc))
                P.sample("direction", dist.ProjectedNormal(torch.ones(3)))
                P.sample("relaxed", dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=numbers(4)))
                P.sample("gamma", dist.Gamma(2.0, 1.0))
                P.sample("half", dist.HalfNormal(2.0))
                P.sample("x", dist.Normal(loc, 2.0), obs=numbers(3))
                P.sample("y", dist.Stable(1.5, 0.0, 2.0, loc), obs=numbers(3))
                P.sample("z", dist.Stable(1.5, 0.1, 2.0, loc), obs=numbers(3))

        return program

    chosen = []

    def config(r: Any) -> Any:
        chosen.append(getattr(r, strategy)())
        return chosen[-1]

    compare(build, config)
    theirs, ours = ({name: type(each).__name__ for name, each in one.config.items()} for one in chosen)
    assert theirs == ours


def test_reparameterizers_and_strategies_written_for_pyro() -> None:
    """A user's own classes, which derive from Pyro's; only their ``sample`` is ours."""

    class Own(pyro.infer.reparam.reparam.Reparam):
        def apply(self, msg: Any) -> Any:
            fn, event_dim = self._unwrap(msg["fn"])
            assert self.args_kwargs == ((2.0,), {})
            noise = self._wrap(dist.Normal(torch.zeros_like(fn.loc), 1.0), event_dim)
            value = fn.loc + fn.scale * sumout.sample(msg["name"] + "_own", noise)
            return {"fn": dist.Delta(value, event_dim=event_dim), "value": value, "is_observed": True}

    class Old(pyro.infer.reparam.reparam.Reparam):
        def __call__(self, name: str, fn: Any, obs: Any) -> Any:
            assert obs is None
            return dist.Normal(fn.loc, 2 * fn.scale), None

    class OwnStrategy(pyro.infer.reparam.strategies.Strategy):
        def configure(self, msg: Any) -> Any:
            return {"x": Own(), "y": Old()}.get(msg["name"])

    @sumout.poutine.reparam(config=OwnStrategy())
    def model(scale: float) -> None:
        sumout.sample("x", dist.Normal(torch.ones(3), scale).to_event(1))
        sumout.sample("y", dist.Normal(torch.ones(()), scale))

    with pytest.warns(Warning, match="new subclasses should implement .apply"):
        seen = sumout.poutine.trace(model).get_trace(2.0)
    assert seen.stochastic_nodes == ["x_own", "y"]
    torch.testing.assert_close(seen.nodes["x"]["value"], 1.0 + 2.0 * seen.nodes["x_own"]["value"])
    assert seen.nodes["y"]["fn"].scale == 4.0
