from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import sumout.distributions as dist
from forms import forms
from sumout.effects.handlers import IndepMessenger, block, enum, mask, replay, scale, trace
from sumout.effects.primitives import deterministic, plate, sample
from sumout.effects.stack import state
from sumout.errors import ModelError
from sumout.settings import settings

DATA = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
PLAIN = -0.5 * DATA**2 - 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))


def model() -> None:
    with plate("data", 3):
        sample("x", dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0), obs=DATA)


def log_prob(program: Any) -> torch.Tensor:
    result: torch.Tensor = trace(program).get_trace().nodes["x"]["log_prob"]
    return result


def test_scales_multiply() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    handled = scale(scale(model, scale=weights), scale=0.5)
    assert torch.allclose(log_prob(handled), 0.5 * weights * PLAIN, atol=1e-7)


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), torch.tensor([1.0, 0.0])])
def test_a_scale_is_positive(wrong: Any) -> None:
    with pytest.raises(ModelError, match=r"positive.*mask"):
        scale(scale=wrong)


@pytest.mark.parametrize("wrong", [None, [1.0], "2", np.array([1.0, 2.0]), 1j])
def test_a_scale_is_a_number_or_a_tensor(wrong: Any) -> None:
    with pytest.raises(ModelError, match=f"a number or a tensor, not {type(wrong).__name__}.*as_tensor"):
        scale(scale=wrong)


def test_numbers_of_numpy_scale_and_mask() -> None:
    handled = mask(scale(model, scale=np.float32(2.0)), mask=np.bool_(True))
    assert torch.allclose(log_prob(handled), 2.0 * PLAIN, atol=1e-7)


def test_a_tensor_is_looked_at_only_while_checks_are_on() -> None:
    with settings.override(validation=False):
        scale(scale=torch.tensor(-1.0))


def test_masks_are_combined() -> None:
    one, other = torch.tensor([True, True, False]), torch.tensor([True, False, True])
    handled = mask(mask(model, mask=one), mask=other)
    assert torch.allclose(log_prob(handled), torch.where(one & other, PLAIN, 0.0), atol=1e-7)
    assert torch.equal(log_prob(mask(handled, mask=False)), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(log_prob(mask(handled, mask=True)), log_prob(handled))


@pytest.mark.parametrize(
    "wrong",
    [2, "yes", None, [True, False], np.array([True, False]), np.array(True), torch.tensor([1.0, 0.0])],
)
def test_a_mask_is_boolean(wrong: Any) -> None:
    with pytest.raises(ModelError, match="bool"):
        mask(mask=wrong)


def test_what_is_masked_may_be_nan() -> None:
    data = torch.tensor([1.0, float("nan")])

    def program() -> None:
        sample("x", dist.Normal(torch.zeros(2), 1.0, validate_args=False), obs=data)

    present = mask(program, mask=~torch.isnan(data))
    expected = dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
    assert torch.allclose(trace(present).get_trace().log_prob_sum(), expected)


@pytest.mark.parametrize(
    "form", ["function", "decorator", "context manager", "copy", "copy of a handled program"]
)
def test_in_all_forms(form: str) -> None:
    assert torch.allclose(log_prob(forms(scale, model, scale=2.0)[form]), 2.0 * PLAIN, atol=1e-7)
    present = torch.tensor([True, False, True])
    expected = torch.where(present, PLAIN, 0.0)
    assert torch.allclose(log_prob(forms(mask, model, mask=present)[form]), expected, atol=1e-7)


# --------------------------------------------------------------------------------------------- shapes that do not fit


def weights(kind: str, *shape: int) -> Any:
    """A mask or a scale of a shape, as a function of a program."""
    if kind == "mask":
        return lambda program=None: mask(program, mask=torch.rand(shape) < 0.5)
    return lambda program=None: scale(program, scale=torch.ones(shape))


both = pytest.mark.parametrize("kind", ["mask", "scale"])


def scalar() -> None:
    sample("x", dist.Normal(0.0, 1.0))


@both
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (3,), (1, 3), (2, 1), (2, 3)])
def test_what_broadcasts_to_the_plates_fits_on_either_side_of_them(kind: str, shape: tuple[int, ...]) -> None:
    weighted = weights(kind, *shape)

    def inside() -> None:
        with plate("rows", 2, dim=-2), plate("columns", 3, dim=-1), weighted():
            scalar()

    def outside() -> None:
        with weighted(), plate("rows", 2, dim=-2), plate("columns", 3, dim=-1):
            scalar()

    def between() -> None:
        with plate("rows", 2, dim=-2), weighted(), plate("columns", 3, dim=-1):
            scalar()

    for program in (inside, outside, between):
        assert trace(program).get_trace().nodes["x"]["log_prob"].shape == (2, 3)


@both
@pytest.mark.parametrize("shape", [(4,), (2,), (3, 1), (2, 1, 1), (5, 2, 3)])
def test_what_does_not_is_told_on_either_side_of_them(kind: str, shape: tuple[int, ...]) -> None:
    weighted = weights(kind, *shape)
    wanted = (
        rf"A {kind} of shape {re.escape(str(shape))} does not fit site 'x' of batch shape \(2, 3\) in plates "
        r"'rows' \(dim -2, size 2\), 'columns' \(dim -1, size 3\)"
    )
    with pytest.raises(ModelError, match=wanted):
        with plate("rows", 2, dim=-2), plate("columns", 3, dim=-1), weighted():
            scalar()
    with pytest.raises(ModelError, match=wanted):
        with weighted(), plate("rows", 2, dim=-2), plate("columns", 3, dim=-1):
            scalar()
    assert state.stack == []


@both
def test_a_site_that_is_not_in_the_plate_is_told(kind: str) -> None:
    """Its log-probability would count three times."""

    def program() -> None:
        sample("z", dist.Normal(0.0, 1.0))
        with plate("data", 3):
            scalar()

    with pytest.raises(
        ModelError, match=r"site 'z' of batch shape \(\) in no plate: 3 along dim -1\. Declare dim -1"
    ):
        weights(kind, 3)(program)()


@both
def test_an_undeclared_batch_is_fitted_too(kind: str) -> None:
    def program() -> None:
        sample("x", dist.Normal(torch.zeros(2, 3), 1.0))

    weights(kind, 3)(program)()
    weights(kind, 2, 1)(program)()
    for shape in ((2,), (4, 2, 3), (3, 3)):
        with pytest.raises(ModelError, match=r"'x' of batch shape \(2, 3\) in no plate"):
            weights(kind, *shape)(program)()


@both
def test_events_are_no_batch(kind: str) -> None:
    def program() -> None:
        with plate("data", 2):
            sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    weights(kind, 2)(program)()
    with pytest.raises(ModelError, match=r"3 along dim -1\. Give it size 2 \(or 1\) along dim -1"):
        weights(kind, 3)(program)()


@both
def test_a_plate_that_does_not_broadcast(kind: str) -> None:
    def program() -> None:
        with IndepMessenger("data", 3, dim=-1):
            scalar()

    weights(kind, 3)(program)()
    with pytest.raises(ModelError, match="Give it size 3"):
        weights(kind, 4)(program)()


@both
def test_a_subsample_takes_its_part(kind: str) -> None:
    def program() -> None:
        with plate("data", 10, subsample_size=5):
            scalar()

    weights(kind, 5)(program)()
    with pytest.raises(ModelError, match=r"Give it size 5.*of a subsampled plate take its indices"):
        weights(kind, 10)(program)()


@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_may_depend_on_enumerated_values(inside: bool) -> None:
    """x counts where z is 1: log sum_z p(z) p(x)^z, by hand."""

    def program() -> None:
        z = sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        with mask(mask=z > 0):
            sample("x", dist.Normal(1.0, 1.0), obs=torch.tensor(0.0))
        with plate("data", 3), mask(mask=(z > 0) & torch.tensor([True, False, True])), scale(scale=1 + z):
            sample("y", dist.Normal(0.0, 1.0), obs=torch.zeros(3))

    if inside:
        recorded = trace(enum(program, first_available_dim=-2)).get_trace()
    else:
        with enum(first_available_dim=-2), trace() as run:
            program()
        recorded = run.trace
    x = dist.Normal(1.0, 1.0).log_prob(torch.tensor(0.0))
    assert torch.equal(recorded.nodes["x"]["log_prob"], torch.stack([torch.zeros(()), x]).reshape(2, 1))
    assert recorded.nodes["y"]["log_prob"].shape == (2, 3)


def test_a_value_of_more_dims_than_its_distribution() -> None:
    """Its log-probability has them too."""

    def program() -> None:
        sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(3))

    for kind in ("mask", "scale"):
        weights(kind, 3)(program)()
        with pytest.raises(ModelError, match="'x'"):
            weights(kind, 4)(program)()


def test_what_has_no_density_has_no_mask_to_fit() -> None:
    def program() -> None:
        deterministic("d", torch.zeros(()))
        with plate("data", 10, subsample_size=3):
            sample("x", dist.Normal(0.0, 1.0))

    weights("mask", 3)(program)()
    with mask(mask=torch.ones(3, dtype=torch.bool)):
        assert sample("f", lambda: 3) == 3


@both
def test_without_validation_nothing_is_looked_at(kind: str) -> None:
    with settings.override(validation=False):
        weights(kind, 4)(model)()


def test_a_mask_of_enumerated_values_that_the_site_is_not_told_of() -> None:
    """Of a replayed trace, and inside a block: nobody tells the site whose the dimension is."""

    def model() -> None:
        a = sample("a", dist.Categorical(torch.tensor([0.3, 0.7])), infer={"enumerate": "parallel"})
        with mask(mask=a == 1):
            sample("c", dist.Normal(0.0, 1.0), obs=torch.tensor(0.3))

    enumerated = trace(enum(model, first_available_dim=-1)).get_trace()
    replayed = trace(replay(model, trace=enumerated)).get_trace()
    score = dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.3))
    torch.testing.assert_close(replayed.nodes["c"]["log_prob"], torch.stack([torch.tensor(0.0), score]))
    with block(hide=["c"]), trace() as inside:
        enum(block(model, hide=["c"]), first_available_dim=-1)()
    assert "c" not in inside.trace
    with pytest.raises(ModelError, match="does not fit site 'c'"):
        mask(lambda: sample("c", dist.Normal(0.0, 1.0)), mask=torch.tensor([True, False]))()
