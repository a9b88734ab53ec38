"""Sites that are alike, whose factors are worked out together, beside the same sites one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.effects.delayed import Delayed
from sumout.lower.collapse import assembly, centering
from sumout.lower.collapse.gaussian import Parts, member

EXACT = {"rtol": 1e-9, "atol": 1e-9}
D = torch.float64


def chain(steps: int, slope: Tensor, noise: Tensor, data: Tensor) -> Callable[[], None]:
    def program() -> None:
        x: Any = torch.zeros(2, dtype=D)
        with plate("series", data.shape[1], dim=-1):
            for t in range(steps):
                x = sample(f"x_{t}", dist.MultivariateNormal(x @ slope.mT, scale_tril=noise))
                sample(f"y_{t}", dist.Normal(x[..., 0], 1.0), obs=data[t])

    return program


@pytest.mark.parametrize("steps", [3, 12, 24])
def test_a_loop_has_one_factor_for_all_steps_that_are_alike(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slope = (0.5 * torch.eye(2, dtype=D)).requires_grad_()
    found = []

    def counted(*args: Any) -> Any:
        found.append(args[0])
        made = factor_of(*args)
        if args[0].copies and len(args[0].uses) == 2:  # Steps have one slope and one noise.
            assert isinstance(made, Parts)
            assert made.precision.shape[0] == 1
        return made

    factor_of = assembly.factor_of
    monkeypatch.setattr(assembly, "factor_of", counted)
    infer.log_evidence(poutine.collapse(chain(steps, slope, torch.eye(2, dtype=D), torch.zeros(steps, 3))))()
    first, later, seen = found[-3:]
    assert (len(first.copies), len(later.copies), len(seen.copies)) in {
        (0, steps - 1, steps),
        (0, steps, steps - 1),
    }


@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from(["loc", "scale", "power", "mask", "none"]))
@settings(max_examples=40)
def test_together_and_one_by_one_are_equal(seed: int, count: int, varied: str) -> None:
    """Sites that differ in data, and in one more thing; with gradients of all parameters."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=D)

    data, slopes = normal(count, 3), normal(count, 2).requires_grad_()
    scales = normal(count).exp().requires_grad_()
    masks = torch.rand(count, 3, generator=generator) > 0.4

    def program() -> None:
        w = sample("w", dist.Normal(torch.zeros(2, dtype=D), 1.0).to_event(1))
        rows = plate("rows", 3, dim=-1)
        for t in range(count):
            own = t if varied != "none" else 0
            with rows, poutine.scale(scale=1.0 + own * (varied == "power")):
                u = sample(f"u_{t}", dist.Normal(w[0], scales[t if varied == "scale" else 0]))
                loc = u + w @ slopes[t if varied == "loc" else 0]
                with poutine.mask(mask=masks[t] if varied == "mask" else torch.tensor(True)):
                    sample(f"y_{t}", dist.Normal(loc, 0.5), obs=data[t])

    def found() -> list[Tensor]:
        value = infer.log_evidence(poutine.collapse(program))()
        return [value, *torch.autograd.grad(value, [slopes, scales])]

    together = found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            centering,
            "members_of",
            lambda sites, latents, dtype: [member(*each, latents, dtype) for each in sites],
        )
        alone = found()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_the_shape_of_a_delayed_value_is_told_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = Delayed.of_site("x", torch.zeros(3, 2))

    def refuse(*_: Any) -> None:
        raise AssertionError("torch was asked")

    monkeypatch.setattr(Delayed, "apply", staticmethod(refuse))
    assert (x.shape, x.ndim, x.dim(), x.dtype) == (torch.Size([3, 2]), 2, 2, torch.float32)
    assert x.is_floating_point()
    assert x.device == torch.device("cpu")


def test_differences_make_nothing_of_the_size_of_what_repeats_itself() -> None:
    x = Delayed.of_site("x", torch.ones(()).expand(1000, 2))
    data = torch.randn(1000, 2)
    for found in (x - data, data - x, x * 2.0 + data):
        assert found.links[0].coef.untyped_storage().nbytes() <= 8
        assert found.links[0].where.untyped_storage().nbytes() == 2000 * 8
    assert (data - x).shift.data_ptr() == data.data_ptr()
