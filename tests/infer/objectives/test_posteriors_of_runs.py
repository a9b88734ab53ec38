"""Marginals and samples of the objective where programs are run for each value of sequential sites."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from sumout import factor, infer, plate, poutine, sample
from sumout.errors import EnumerationError, ImpossibleEvidenceError

SEQUENTIAL = {"enumerate": "sequential"}
PARALLEL = {"enumerate": "parallel"}
X = torch.tensor([0.4, 1.3]).double()


def real(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _store_of_its_own() -> Iterator[None]:
    with sumout.get_param_store().scope():
        yield


def model(marks: dict[str, Any] | None = None) -> None:
    """``z`` decides whether there is a ``w``; ``u`` lives in a plate; ``g`` may be the guide's."""
    g = sample("g", dist.Bernoulli(real(0.4)))
    z = sample("z", dist.Bernoulli(0.2 + 0.5 * g), infer=SEQUENTIAL)
    w = sample("w", dist.Bernoulli(0.3 + 0.3 * g), infer=PARALLEL) if z else real(0.0)
    with plate("data", 2):
        u = sample("u", dist.Bernoulli(0.5 - 0.3 * w), infer=PARALLEL)
        sample("x", dist.Normal(u + z - g, 1.0), obs=X)


def joint(g: float, z: float, w: float | None, u: tuple[float, float]) -> float:
    p = 0.2 + 0.5 * g
    weight = p if z else 1 - p
    if w is not None:
        p = 0.3 + 0.3 * g
        weight *= p if w else 1 - p
    for place in range(2):
        p = 0.5 - 0.3 * (w or 0.0)
        weight *= p if u[place] else 1 - p
        weight *= float(dist.Normal(real(u[place] + z - g), 1.0).log_prob(X[place]).exp())
    return weight


def ways(g: float) -> list[tuple[dict[str, Any], float]]:
    """All assignments given the guide's, and their posterior probabilities."""
    found = []
    for z, *u in itertools.product((0.0, 1.0), repeat=3):
        found += [
            ({"z": z, "w": w, "u": tuple(u)}, joint(g, z, w, (u[0], u[1])))
            for w in ((0.0, 1.0) if z else (None,))
        ]
    total = sum(weight for _, weight in found)
    return [(way, weight / total) for way, weight in found]


def expected(of_g: dict[float, float]) -> dict[str, Any]:
    """Means over the guide."""
    z, there, w = 0.0, 0.0, 0.0
    u = [0.0, 0.0]
    for g, share in of_g.items():
        for way, weight in ways(g):
            z += share * weight * way["z"]
            there += share * weight * (way["w"] is not None)
            w += share * weight * (way["w"] or 0.0)
            u = [u[place] + share * weight * way["u"][place] for place in range(2)]
    return {"z": real(z), "w": real(w / there), "u": real(u)}


def guide(mark: dict[str, Any] | None) -> Callable[[], None]:
    def program() -> None:
        sample("g", dist.Bernoulli(real(0.25)), infer=mark)

    return program


@pytest.mark.parametrize("mark", [PARALLEL, SEQUENTIAL])
def test_runs_of_guide_and_model(mark: dict[str, Any]) -> None:
    found = infer.TraceEnum_ELBO().compute_marginals(model, guide(mark))
    wanted = {"g": real(0.25), **expected({0.0: 0.75, 1.0: 0.25})}
    assert set(found) == set(wanted)
    for name, probs in wanted.items():
        torch.testing.assert_close(found[name].probs, probs, rtol=1e-9, atol=1e-12)


def test_given_one_draw_of_the_guide() -> None:
    elbo = infer.TraceEnum_ELBO()
    fixed = poutine.condition(model, data={"g": real(1.0)})
    found = elbo.compute_marginals(fixed, lambda: None)
    wanted = expected({1.0: 1.0})
    assert set(found) == set(wanted)
    for name, probs in wanted.items():
        torch.testing.assert_close(found[name].probs, probs, rtol=1e-9, atol=1e-12)
    torch.manual_seed(0)
    counts: dict[str, list[Tensor]] = {"z": [], "w": [], "u": []}
    for _ in range(600):
        with poutine.trace() as recorder:
            elbo.sample_posterior(fixed, lambda: None)
        assert ("w" in recorder.trace.nodes) == bool(recorder.trace.nodes["z"].value)
        for name, values in counts.items():
            if name in recorder.trace.nodes:
                values.append(recorder.trace.nodes[name].value)
    for name, values in counts.items():
        assert (torch.stack(values).mean(0) - wanted[name]).abs().max() < 0.08


def test_samples_go_with_the_draw_of_the_guide() -> None:
    torch.manual_seed(0)
    by_g: dict[float, list[Tensor]] = {0.0: [], 1.0: []}
    for _ in range(600):
        with poutine.trace() as recorder:
            infer.TraceEnum_ELBO().sample_posterior(model, guide(SEQUENTIAL))
        nodes = recorder.trace.nodes
        by_g[float(nodes["g"].value)].append(nodes["z"].value)
    assert abs(len(by_g[1.0]) / 600 - 0.25) < 0.06
    for g, values in by_g.items():
        assert abs(torch.stack(values).mean() - expected({g: 1.0})["z"]) < 0.12


def test_a_saved_sample() -> None:
    fixed = poutine.condition(model, data={"g": real(0.0)})
    elbo = infer.TraceEnumSample_ELBO()
    elbo.loss(fixed, lambda: None)
    torch.manual_seed(0)
    drawn = []
    for _ in range(300):
        with poutine.trace() as recorder:
            elbo.sample_saved()
        drawn.append(recorder.trace.nodes["z"].value)
    assert abs(torch.stack(drawn).mean() - expected({0.0: 1.0})["z"]) < 0.1
    elbo.loss(model, guide(SEQUENTIAL))
    with pytest.raises(EnumerationError, match="'g' is enumerated in the guide"):
        elbo.sample_saved()


def test_weights_of_cases_in_runs() -> None:
    weights = real([2.0, 1.0])

    def make(x: Tensor, weights: Tensor | None) -> Callable[[], None]:
        def program() -> None:
            g = sample("g", dist.Bernoulli(real(0.4)), infer=PARALLEL)
            z = sample("z", dist.Bernoulli(0.2 + 0.5 * g), infer=SEQUENTIAL)
            shift = 1.0 if z else 0.0
            with plate("data", len(x)), poutine.scale(scale=1.0 if weights is None else weights):
                u = sample("u", dist.Bernoulli(0.3 + 0.3 * g), infer=PARALLEL)
                sample("x", dist.Normal(u + shift - g, 1.0), obs=x)

        return program

    for of_guide in (lambda: None, guide(PARALLEL), guide(SEQUENTIAL)):
        elbo = infer.TraceEnum_ELBO()
        found = elbo.compute_marginals(make(X, weights), of_guide)
        copies = elbo.compute_marginals(make(X[[0, 0, 1]], None), of_guide)
        for name in ("g", "z"):
            torch.testing.assert_close(found[name].probs, copies[name].probs, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found["u"].probs, copies["u"].probs[1:], rtol=1e-9, atol=1e-12)
        losses = [elbo.loss(each, of_guide) for each in (make(X, weights), make(X[[0, 0, 1]], None))]
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_what_is_impossible() -> None:
    def never() -> None:
        z = sample("z", dist.Bernoulli(real(0.3)), infer=SEQUENTIAL)
        if z:
            sample("w", dist.Bernoulli(real(0.3)), infer=PARALLEL)
        factor("no", real(-torch.inf))

    elbo = infer.TraceEnum_ELBO()
    with pytest.raises(ImpossibleEvidenceError):
        elbo.compute_marginals(never, lambda: None)
    with pytest.raises(ImpossibleEvidenceError):
        elbo.sample_posterior(never, lambda: None)


def test_a_site_of_an_impossible_run_only() -> None:
    def program() -> None:
        z = sample("z", dist.Bernoulli(real(0.3)), infer=SEQUENTIAL)
        if z:
            sample("w", dist.Bernoulli(real(0.3)), infer=PARALLEL)
            factor("no", real(-torch.inf))

    found = infer.TraceEnum_ELBO().compute_marginals(program, lambda: None)
    assert list(found) == ["z"]
    assert found["z"].probs == 0


def test_a_draw_from_the_prior_says_nothing() -> None:
    def program() -> None:
        z = sample("z", dist.Bernoulli(real(0.3)), infer=SEQUENTIAL)
        if z:
            sample("loc", dist.Normal(real(0.0), 1.0))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(EnumerationError, match="'loc' of the model is latent and has no guide"):
            infer.TraceEnum_ELBO().compute_marginals(program, lambda: None)


# ------------------------------------------------------------------------------------- particles as a dimension


def leaves_its_plate() -> None:
    with plate("data", 2):
        z = sample("z", dist.Bernoulli(real(0.3)), infer={"enumerate": "auto"})
    sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=real(0.5))


def of_a_draw(use: Callable[[Tensor], Any]) -> Callable[[], None]:
    def program() -> None:
        loc = sample("loc", dist.Normal(real(0.5), 0.1))
        z = sample("z", dist.Bernoulli(real(0.3)), infer=PARALLEL)
        sample("x", dist.Normal(z + use(loc), 1.0), obs=real(0.5))

    return program


def loc_guide() -> None:
    sample("loc", dist.Normal(real(0.5), 0.1))


USES: list[Callable[[Tensor], Any]] = [
    lambda loc: 1.0 if loc > 0 else 0.0,
    lambda loc: loc.item(),
    float,
    lambda loc: [1.0, 2.0][(loc > 0).long()],
    lambda loc: sum(range((loc > 0).long())),
    lambda loc: max(loc, real(0.2)),
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("objective", [infer.TraceEnum_ELBO, infer.Trace_ELBO, infer.TraceTMC_ELBO])
def test_python_decides_on_many_particles(use: Callable[[Tensor], Any], objective: Any) -> None:
    program = of_a_draw(use)
    options = {"num_particles": 3, "strict_enumeration_warning": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Trace_ELBO draws z from the prior
        objective(**options).loss(program, loc_guide)
        with pytest.raises(
            EnumerationError, match="differs from particle to particle.*vectorize_particles=False"
        ):
            objective(vectorize_particles=True, **options).loss(program, loc_guide)


def test_programs_that_do_not_keep_the_dimension_of_particles() -> None:
    program = of_a_draw(lambda loc: sum(loc.tolist()) if loc.dim() else loc)
    torch.manual_seed(0)
    infer.TraceEnum_ELBO(num_particles=3).loss(program, loc_guide)

    def fails() -> None:
        loc = sample("loc", dist.Normal(real(0.5), 0.1))
        sample("x", dist.MultivariateNormal(torch.ones(2).double() * loc, torch.eye(2).double()), obs=X)

    def guided() -> None:
        sample("loc", dist.Normal(real(0.5), 0.1))

    infer.TraceEnum_ELBO(num_particles=3, strict_enumeration_warning=False).loss(fails, guided)
    with pytest.raises(EnumerationError, match="fails with 3 particles.*vectorize_particles=False"):
        infer.TraceEnum_ELBO(
            num_particles=3, vectorize_particles=True, strict_enumeration_warning=False
        ).loss(fails, guided)


def test_values_of_all_particles_in_one_sum() -> None:
    """Each joint value of the plate is a run, and the particles' logarithms of sums are not those of one sum."""
    total = sum(
        0.3 ** (a + b) * 0.7 ** (2 - a - b) * float(dist.Normal(real(a + b), 1.0).log_prob(real(0.5)).exp())
        for a, b in itertools.product((0, 1), repeat=2)
    )
    loss = infer.TraceEnum_ELBO(num_particles=2).loss(leaves_its_plate, lambda: None)
    assert loss == pytest.approx(-float(real(total).log()), rel=1e-12)
    with pytest.raises(EnumerationError, match="vectorize_particles=False"):
        infer.TraceEnum_ELBO(num_particles=2, vectorize_particles=True).loss(leaves_its_plate, lambda: None)
    gone = leaves_without_its_dimension
    with pytest.raises(EnumerationError, match="not with one particle.*vectorize_particles=False"):
        infer.TraceEnum_ELBO(num_particles=2, vectorize_particles=True).loss(gone, lambda: None)


def leaves_without_its_dimension() -> None:
    with plate("data", 2):
        z = sample("z", dist.Bernoulli(real(0.3)), infer={"enumerate": "auto"})
    sample("x", dist.Normal(z.sum(-1), 1.0), obs=real(0.5))
