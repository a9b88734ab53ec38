"""Distributions that a program makes under handlers: what torch makes, with fewer looks at the arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import constraints
from torch.utils._python_dispatch import TorchDispatchMode

import sumout.distributions as dist
from sumout import infer, param, poutine, sample
from sumout.distributions.checks import holds, lie_between, unnormalized
from sumout.effects.primitives.validation import validation_enabled

NUMBERS = st.one_of(
    st.floats(-2, 2, width=32),
    st.sampled_from([0.0, -0.0, 1.0, 1e-30, 1e30, -1e-30, torch.inf, -torch.inf, torch.nan, 1 + 1e-6, 3]),
)
TENSORS = st.builds(
    lambda numbers, dtype, wide: torch.tensor(numbers, dtype=dtype).expand(wide, len(numbers)),
    st.lists(NUMBERS, min_size=1, max_size=4),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([1, 3]),
)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations on tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def under_a_handler(make: Callable[[], Any]) -> Any:
    with poutine.trace():
        return make()


def outcome(make: Callable[[], Any]) -> Any:
    """What is made, by its contents, or the error."""
    try:
        fn = make()
    except (ValueError, RuntimeError) as error:
        return type(error), str(error)
    return type(fn), fn.batch_shape, fn.event_shape, fn._validate_args, parameters(fn)


def parameters(fn: Any) -> list[tuple[Any, ...]]:
    return [
        (name, each.dtype, each.shape, each.tolist().__repr__())
        for name, each in vars(fn).items()
        if isinstance(each, Tensor)
    ]


@given(
    TENSORS,
    st.sampled_from(
        ["positive", "nonnegative", "unit_interval", "real", "simplex", "real_vector", "boolean"]
    ),
)
@example(torch.tensor([[0.5, 0.5], [0.0, 0.0]]), "simplex")
@example(torch.tensor([[1.5, -0.5]]), "simplex")
@example(torch.zeros(0), "positive")
def test_numbers_are_in_a_set_or_not_as_torch_has_it(value: Tensor, name: str) -> None:
    constraint = getattr(constraints, name)
    assert holds(constraint, value) == bool(constraint.check(value).all())


@given(TENSORS | NUMBERS, TENSORS | NUMBERS)
@example(0.0, 1e-60)  # which is no positive number in float32
@example(torch.zeros(2), torch.tensor(torch.nan))
@example(1, 2)
def test_families_of_two_parameters(one: Any, other: Any) -> None:
    for family in (dist.Normal, dist.Laplace, dist.Gamma):
        assert outcome(lambda: under_a_handler(lambda: family(one, other))) == outcome(  # noqa: B023
            lambda: family(one, other)  # noqa: B023
        )


@given(TENSORS | NUMBERS, st.sampled_from(["probs", "logits", "rate"]))
@example(torch.tensor([[0.0, 0.0]]), "probs")
@example(torch.tensor([[3e38, 3e38]]), "probs")  # Their sum is infinite.
@example(torch.tensor([[3e38, 3e38], [0.5, 0.5]]), "probs")
@example(torch.tensor([[1e-45, 1e-44], [1e-38, 1e-45]]), "probs")
@example(torch.rand(5000, 3), "probs")
@example(torch.cat([torch.rand(5000, 3), torch.full((1, 3), 3e38)]), "probs")
@example(torch.rand(3, 700), "probs")
@example(torch.tensor([[-1.0, -1.0]]), "probs")
@example(torch.tensor([[torch.inf, 0.0]]), "logits")
@example(torch.tensor(0.5), "probs")
def test_families_of_one_parameter(value: Any, name: str) -> None:
    families = (dist.Exponential, dist.Poisson) if name == "rate" else (dist.Bernoulli, dist.Categorical)
    for family in families:
        if family is dist.Categorical and not isinstance(value, Tensor):
            continue
        made = outcome(lambda: under_a_handler(lambda: family(**{name: value})))  # noqa: B023
        assert made == outcome(lambda: family(**{name: value}))  # noqa: B023


def test_what_is_said_of_checks_is_done() -> None:
    below = torch.tensor([-1.0])
    assert under_a_handler(lambda: dist.Normal(0.0, below, validate_args=False))._validate_args is False
    assert under_a_handler(lambda: dist.Normal(0.0, 1.0, validate_args=True))._validate_args is True
    with pytest.raises(ValueError, match="Expected parameter scale"):
        under_a_handler(lambda: dist.Normal(0.0, below, validate_args=True))
    with pytest.raises(ValueError, match="Expected parameter scale"):
        under_a_handler(lambda: dist.Normal(0.0, scale=below))
    with validation_enabled(False):
        assert under_a_handler(lambda: dist.Normal(0.0, below)).scale.item() == -1


def test_a_transform_that_hides_numbers_is_torchs_affair() -> None:
    def density(scale: Tensor) -> Tensor:
        found: Tensor = dist.Normal(0.0, scale).log_prob(torch.tensor(0.3))
        return found

    scales = torch.tensor([1.0, 2.0])
    found = under_a_handler(lambda: torch.vmap(density)(scales))
    torch.testing.assert_close(found, dist.Normal(0.0, scales).log_prob(torch.tensor(0.3)))
    with pytest.raises(RuntimeError, match="vmap"):
        under_a_handler(lambda: torch.vmap(density)(-scales))
    slope = under_a_handler(lambda: torch.func.grad(density)(torch.tensor(2.0)))
    assert slope.item() == pytest.approx(-0.5 + 0.09 / 8)


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda p: dist.Bernoulli(p), 4),  # detached, the ends, and the two numbers
        (lambda p: dist.Normal(p, 1.0), 6),
        (lambda p: dist.Categorical(p), 8),
    ],
)
def test_few_operations_look_at_arguments(make: Callable[[Tensor], Any], most: int) -> None:
    probs = torch.full((5, 4), 0.25, requires_grad=True)
    with Operations() as quick:
        under_a_handler(lambda: make(probs))
    with Operations() as slow:
        make(probs)
    assert len(quick.names) <= most < len(slow.names)


def test_few_operations_look_at_outputs_that_are_true_or_false() -> None:
    value = torch.bernoulli(torch.full((4, 5), 0.5))
    with Operations() as operations:
        assert holds(constraints.boolean, value)
    assert len(operations.names) <= 4, operations.names


def test_a_categorical_knows_what_it_was_given() -> None:
    """Before it was normalized, unless that is another tensor's by now, or nothing is to be derived."""
    probs = torch.tensor([1.0, 3.0], requires_grad=True) * 1.0
    fn = under_a_handler(lambda: dist.Categorical(probs))
    assert unnormalized(fn) is probs
    assert unnormalized(fn.expand([2])) is None
    assert unnormalized(under_a_handler(lambda: dist.Categorical(probs.detach()))) is None
    assert unnormalized(under_a_handler(lambda: dist.Categorical(logits=probs))) is None
    with torch.no_grad():
        assert unnormalized(under_a_handler(lambda: dist.Categorical(probs))) is None
        probs.mul_(torch.tensor([1.0, 2.0]))
    assert unnormalized(fn) is None
    fn = under_a_handler(lambda: dist.Categorical(probs * 1.0))
    assert unnormalized(fn) is not None
    fn.probs.detach_()
    assert unnormalized(fn) is None


def test_normalizing_many_at_once_changes_no_number() -> None:
    """Against the densities and derivatives of the distributions themselves."""
    given = torch.rand(6, 3, dtype=torch.float64) + 0.1
    values = torch.tensor([0, 2, 1, 1, 0, 2])

    def model() -> None:
        for t, row in enumerate(param("table", given).unbind(0)):
            sample(f"x_{t}", dist.Categorical(row * 2), obs=values[t])

    infer.Trace_ELBO().loss_and_grads(model, lambda: None)
    found = param("table").unconstrained().grad  # type: ignore[attr-defined]
    leaf = given.clone().requires_grad_()
    fns = [dist.Categorical(row * 2) for row in leaf.unbind(0)]
    torch.stack([fn.log_prob(value) for fn, value in zip(fns, values, strict=True)]).sum().neg().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, leaf.grad, rtol=1e-12, atol=1e-12)


def test_numbers_between_two_others() -> None:
    assert lie_between(torch.tensor([0.25, 0.75]), 0.25, 0.75)
    assert not lie_between(torch.tensor([0.25, torch.nan]), 0.0, 1.0)
    assert not lie_between(torch.tensor([1, 2]), 0.0, 5.0)  # whole numbers are not looked at
    assert not lie_between(torch.zeros(0), 0.0, 1.0)
