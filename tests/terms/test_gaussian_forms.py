"""The two forms of a Gaussian factor against each other, and small residuals beside large ones."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from sumout.terms.gaussian import Gaussian, Quadratic, Root

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def both(rows: Tensor, rest: Tensor) -> tuple[Quadratic, Root]:
    return Quadratic(rows.mT @ rows, rest), Root(rows, rest)


def close(parameter: Tensor, *pairs: tuple[Tensor, Tensor]) -> None:
    """Values, and derivatives in one direction."""
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, **EXACT)
        weight = torch.linspace(-1.0, 2.0, found.numel(), dtype=D).sin().reshape(found.shape)
        if not found.numel():
            continue
        grads = [
            torch.autograd.grad((each * weight).sum(), parameter, retain_graph=True)[0]
            for each in (found, wanted)
        ]
        torch.testing.assert_close(*grads, **EXACT)


@given(gone=st.integers(1, 3), kept=st.integers(0, 3), more=st.integers(0, 8), seed=st.integers(0, 99))
def test_integrals_and_conditionals(gone: int, kept: int, more: int, seed: int) -> None:
    """Also with too few rows to tell what is left."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, gone + more, 1 + kept + gone, generator=generator, dtype=D)
    # Well away from columns that depend on each other.
    rows[..., :gone, 1 + kept :] += 3 * torch.eye(gone, dtype=D)
    rows.requires_grad_()
    point = torch.randn(2, 1 + kept, generator=generator, dtype=D)
    point[:, 0] = 1.0
    (square, told), (root, seen) = [each.integrated(gone) for each in both(rows, rows.new_zeros(2))]
    close(rows, (root.log_value(point), square.log_value(point)), (root.square(), square.square()))
    (inverse, affine), (other, same) = seen.solved(), told.solved()
    close(rows, (inverse @ inverse.mT, other @ other.mT), (affine, same))


@given(seed=st.integers(0, 99))
def test_products_and_plates(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(3, 40, 2, 3, generator=generator, dtype=D, requires_grad=True)
    rest = torch.randn(3, 40, generator=generator, dtype=D)
    point = torch.tensor([1.0, 0.3, -0.7], dtype=D)
    index = torch.tensor([0, 2, 1])

    def used(factor: Quadratic | Root) -> Tensor:
        whole = factor.multiplied([1], 2.5)
        assert whole.table.shape[-2] <= 6
        found = whole.picked(index).padded(1).times(whole.padded(1).picked(torch.tensor([0, 3, 1, 2])))  # type: ignore[arg-type]
        return found.log_value(torch.cat([point, point[:1]]).expand(3, 4))

    square, root = both(rows, rest)
    close(rows, (used(root), used(square)))


def test_rows_of_different_number_side_by_side() -> None:
    few, many = (
        Root(torch.ones(1, 1, 2, dtype=D), torch.zeros(1, dtype=D)),
        Root(torch.ones(1, 3, 2, dtype=D), torch.ones(1, dtype=D)),
    )
    pieces: list[Gaussian] = [few, many]
    point = torch.tensor([1.0, 2.0], dtype=D)
    for found in (Root.joined(pieces), Root.stacked(pieces).chosen((slice(None), 0))):
        wanted = torch.tensor([-4.5, 1 - 13.5], dtype=D)
        torch.testing.assert_close(found.log_value(point.expand(2, 2)), wanted, **EXACT)


@pytest.mark.parametrize("ratio", [1e6, 1e9, 1e18])
def test_small_residuals_beside_large_ones(ratio: float) -> None:
    """Of two numbers that are nearly the same, with a prior each: the prior of both is what is left."""
    rows = torch.tensor([[0.0, ratio, -ratio], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0]], dtype=D)
    left, _ = Root(rows, rows.new_zeros(())).integrated(1)
    torch.testing.assert_close(
        left.table.mT @ left.table, torch.tensor([[1.0, 1.0], [1.0, 3.0]], dtype=D), **EXACT
    )
    assert math.isclose(float(left.rest), 0.5 * math.log(2 * math.pi) - math.log(ratio), rel_tol=1e-9)


@pytest.mark.parametrize(
    "rows", [torch.zeros(2, 2), torch.ones(1, 3), torch.tensor([[1.0, 1 / 3, 1 / 7]] * 5)]
)
def test_what_does_not_converge_is_an_error(rows: Tensor) -> None:
    rows = rows.to(D)
    with pytest.raises(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
        Root(rows, rows.new_zeros(())).integrated(rows.shape[-1] - 1)
