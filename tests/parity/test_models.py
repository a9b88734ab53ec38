"""Every named model: loss and gradients as in Pyro where Pyro answers, and as by brute force everywhere.

Continuous sites are given the values of one draw from the prior, the same for everybody; models with a guide are then
asked again with it. Brute force is ``brute``, which shares nothing with either library.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.infer
import pytest
import torch
from torch import Tensor

import brute
import sumout
from models import APART, MODELS, Model, Program, pyro_language, sumout_language
from sumout import infer
from sumout.effects.handlers import condition
from sumout.effects.trace import sample_sites
from sumout.errors import SumoutError

ENUMERABLE = [each for each in (MODELS | APART).values() if each.discrete or each.sequential]
DEFINED = [each for each in ENUMERABLE if each.ours != "refuses"]
GUIDED = [each for each in DEFINED if each.guide is not None]
EXACT = {"rtol": 1e-8, "atol": 1e-8}
SEED = 3


def named(models: list[Model]) -> Any:
    return pytest.mark.parametrize("model", models, ids=lambda model: model.name)


@pytest.fixture(autouse=True)
def _stores_of_their_own() -> Iterator[None]:
    with sumout.get_param_store().scope(), pyro.get_param_store().scope():
        yield


def nothing() -> None:
    """The guide of what is summed out completely."""


@dataclass
class Answer:
    """A loss, and the gradients of the unconstrained params by name."""

    loss: Tensor
    grads: dict[str, Tensor] = field(default_factory=dict)


def given(model: Model) -> dict[str, Tensor]:
    """Values of the continuous sites."""
    drawn = brute.draw(model.build, model.max_plate_nesting, seed=SEED)
    return {name: drawn.values[name] for name in model.continuous}


def by_force(model: Model, guided: bool = False) -> Answer:
    store = brute.Store()
    if guided:
        assert model.guide is not None
        enumerated = tuple(name for name in model.guided if name in model.discrete)
        nesting = model.max_plate_nesting
        value = brute.elbo(model.build, model.guide, store, nesting, model.discrete, enumerated, SEED)
    elif model.evidence is not None:
        brute.Run(store, model.max_plate_nesting, given(model)).record(model.build)
        value = model.evidence(store.values())
    elif model.sequential or not model.elementwise:
        value = torch.logsumexp(torch.stack([path.log_joint for path in every_path(model, store)]), 0)
    else:
        value = whole(model, store).log_evidence
    leaves = store.leaves
    grads = torch.autograd.grad(-value, list(leaves.values()), allow_unused=True) if leaves else ()
    return Answer(-value.detach(), dict(zip(leaves, grads, strict=True)))


def whole(model: Model, store: brute.Store) -> brute.Answer:
    return brute.evidence(model.build, store, model.max_plate_nesting, model.discrete, given(model))


def every_path(model: Model, store: brute.Store) -> list[brute.Path]:
    return brute.paths(model.build, store, model.max_plate_nesting, given(model))


def by_library(
    model: Model,
    language: Any,
    mark: Callable[[Program], Program],
    hold: Callable[..., Program],
    objective: Any,
    store: Any,
    guided: bool,
) -> Answer:
    program, guide = model.program(language), nothing
    if guided:
        assert model.guide is not None
        guide = model.guide(language)
    elif model.continuous:
        program = hold(program, data=given(model))
    torch.manual_seed(SEED)
    loss = objective.loss_and_grads(mark(program), guide)
    return Answer(
        torch.as_tensor(loss, dtype=torch.float64),
        {name: leaf.grad for name, leaf in store.named_parameters()},
    )


def by_sumout(model: Model, guided: bool = False) -> Answer:
    objective = infer.TraceEnum_ELBO(max_plate_nesting=model.max_plate_nesting)
    return by_library(
        model,
        sumout_language(),
        infer.config_enumerate,
        condition,
        objective,
        sumout.get_param_store(),
        guided,
    )


def by_pyro(model: Model, guided: bool = False) -> Answer:
    objective = pyro.infer.TraceEnum_ELBO(max_plate_nesting=model.max_plate_nesting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return by_library(
            model,
            pyro_language(),
            pyro.infer.config_enumerate,
            pyro.poutine.condition,
            objective,
            pyro.get_param_store(),
            guided,
        )


def assert_same(found: Answer, expected: Answer) -> None:
    torch.testing.assert_close(found.loss, expected.loss, **EXACT)
    assert set(found.grads) == set(expected.grads)
    for name, wanted in expected.grads.items():
        grad = found.grads[name]
        if grad is None or wanted is None:  # of a param that nothing depends on
            assert all(each is None or not each.any() for each in (grad, wanted)), name
        else:
            torch.testing.assert_close(grad, wanted, **EXACT, msg=f"{{}}: {name}".format)


def target(model: Model) -> Program:
    return condition(model.program(), data=given(model)) if model.continuous else model.program()


# ---------------------------------------------------------------------------------------------- what is known


def test_there_are_enough() -> None:
    assert len(DEFINED) >= 40


@named(list(MODELS.values()))
def test_a_model_is_what_its_record_says(model: Model) -> None:
    record = sumout.poutine.trace(model.program()).get_trace()
    sites = {site.name: site for site in sample_sites(record) if site.name not in model.factors}
    assert {name for name, site in sites.items() if not site.is_observed} == set(model.latent)
    assert set(sites) == {*model.latent, *model.observed}
    assert set(record.param_nodes) <= set(model.params)
    assert {*model.discrete, *model.sequential} <= set(model.latent)


# -------------------------------------------------------------------------------------------- losses, gradients


@named(DEFINED)
def test_loss_and_gradients_are_those_of_brute_force(model: Model) -> None:
    assert_same(by_sumout(model), by_force(model))


@named([each for each in DEFINED if each.pyro == "agrees"])
def test_loss_and_gradients_are_those_of_pyro(model: Model) -> None:
    assert_same(by_sumout(model), by_pyro(model))


@named([each for each in DEFINED if each.pyro == "refuses"])
def test_pyro_refuses(model: Model) -> None:
    with pytest.raises((NotImplementedError, ValueError, RuntimeError)):
        by_pyro(model)


@named([each for each in ENUMERABLE if each.pyro == "differs"])
def test_pyro_gives_another_number(model: Model) -> None:
    assert abs(by_pyro(model).loss - by_force(model).loss) > 1e-3


@named([each for each in ENUMERABLE if each.ours == "refuses"])
def test_what_is_not_defined_is_refused(model: Model) -> None:
    with pytest.raises(SumoutError):
        by_sumout(model)
    with pytest.raises(SumoutError):
        infer.log_evidence(target(model))()


@named(DEFINED)
def test_the_nesting_of_plates_is_found(model: Model) -> None:
    loss = infer.TraceEnum_ELBO().loss(infer.config_enumerate(target(model)), nothing)
    assert loss == pytest.approx(by_force(model).loss.item(), rel=1e-10, abs=1e-10)


@named([each for each in DEFINED if each.elementwise and not each.sequential])
def test_vectorized_particles_of_what_is_summed_out_are_all_alike(model: Model) -> None:
    objective = infer.TraceEnum_ELBO(
        num_particles=2, vectorize_particles=True, max_plate_nesting=model.max_plate_nesting
    )
    loss = objective.loss(infer.config_enumerate(target(model)), nothing)
    assert loss == pytest.approx(by_force(model).loss.item(), rel=1e-10, abs=1e-10)


@named(GUIDED)
def test_a_guide_beside_brute_force(model: Model) -> None:
    assert_same(by_sumout(model, guided=True), by_force(model, guided=True))


@named(GUIDED)
def test_a_guide_beside_pyro(model: Model) -> None:
    assert_same(by_sumout(model, guided=True), by_pyro(model, guided=True))


# ------------------------------------------------------------------------------------------------- exact queries


@named(DEFINED)
def test_log_evidence(model: Model) -> None:
    found = infer.log_evidence(target(model))()
    torch.testing.assert_close(found.detach(), -by_force(model).loss, rtol=1e-10, atol=1e-10)


UNSCALED = [each for each in DEFINED if each.evidence is None and each.elementwise and not each.sequential]


@named([MODELS["dims_shared"], MODELS["sum_over_a_plate"]])
def test_what_leaves_its_plate_is_taken_one_by_one_if_allowed(model: Model) -> None:
    expected = torch.logsumexp(torch.stack([path.log_joint for path in every_path(model, brute.Store())]), 0)
    found = infer.log_evidence(target(model), enumeration="auto")()
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-10, atol=1e-10)


@named(UNSCALED)
def test_marginals(model: Model) -> None:
    expected = whole(model, brute.Store())
    found = infer.marginals(target(model))()
    torch.testing.assert_close(found.log_evidence, expected.log_evidence, rtol=1e-10, atol=1e-10)
    assert set(found) == set(model.discrete)
    for name in model.discrete:
        wanted = expected.marginal(name)
        probs = found.tables[name].reshape(wanted.shape)
        torch.testing.assert_close(probs, wanted, rtol=1e-9, atol=1e-9, msg=f"{{}}: {name}".format)


@named(UNSCALED)
def test_the_most_probable_assignment(model: Model) -> None:
    expected = whole(model, brute.Store())
    found = infer.map_assignment(target(model))()
    best = expected.log_joint.max()
    torch.testing.assert_close(found.log_prob.detach(), best.detach(), rtol=1e-10, atol=1e-10)
    reached = expected.log_joint[expected.row({name: found[name] for name in model.discrete})]
    torch.testing.assert_close(reached.detach(), best.detach(), rtol=1e-10, atol=1e-10)


@named(UNSCALED)
def test_samples_have_the_joint_s_log_probability(model: Model) -> None:
    expected = whole(model, brute.Store())
    drawn = infer.posterior_samples(target(model), 5)()
    for i in range(5):
        row = expected.row({name: drawn[name][i] for name in model.discrete})
        torch.testing.assert_close(drawn.log_joint[i], expected.log_joint[row], rtol=1e-10, atol=1e-10)
        wanted = expected.log_joint[row] - expected.log_evidence
        torch.testing.assert_close(drawn.log_prob[i], wanted, rtol=1e-10, atol=1e-9)


BY_RUNS = [each for each in DEFINED if each.evidence is None and (each.sequential or not each.elementwise)]


@named(BY_RUNS)
def test_the_best_path(model: Model) -> None:
    best = max(every_path(model, brute.Store()), key=lambda path: path.log_joint.item())
    found = infer.map_assignment(target(model))()
    torch.testing.assert_close(found.log_prob.detach(), best.log_joint.detach(), rtol=1e-10, atol=1e-10)
    assert set(found) == set(best.values)
    for name, value in best.values.items():
        assert torch.equal(torch.as_tensor(found[name]).reshape(value.shape).double(), value.double())


@named([each for each in BY_RUNS if each.name != "branching"])  # whose "second" is of two kinds
def test_marginals_over_paths(model: Model) -> None:
    """Of a site that only some paths have: given that it is there."""
    ways = every_path(model, brute.Store())
    weights = torch.softmax(torch.stack([path.log_joint.detach() for path in ways]), 0)
    found = infer.marginals(target(model))()
    assert set(found) == {name for path in ways for name in path.values}
    for name in found:
        there = [
            (weight, path.values[name])
            for weight, path in zip(weights, ways, strict=True)
            if name in path.values
        ]
        whole = sum(weight for weight, _ in there)
        for state in range(found.tables[name].shape[-1]):
            wanted = sum((weight * (value == state) for weight, value in there)) / whole
            torch.testing.assert_close(
                found.tables[name][..., state].reshape(wanted.shape), wanted.double(), rtol=1e-9, atol=1e-9
            )


@named(UNSCALED)
def test_marginals_of_the_objective(model: Model) -> None:
    objective = infer.TraceEnum_ELBO(max_plate_nesting=model.max_plate_nesting)
    found = objective.compute_marginals(infer.config_enumerate(target(model)), nothing)
    expected = whole(model, brute.Store())
    for name in model.discrete:
        support = expected.copies[name].support
        for state, value in enumerate(support):
            probs = found[name].log_prob(value).exp()
            wanted = expected.marginal(name)[:, state].reshape(probs.shape)
            torch.testing.assert_close(probs, wanted, rtol=1e-9, atol=1e-9)
