"""Which elements a view of all positions has, told by its strides, beside the positions themselves."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from sumout.effects.delayed.links import by_strides, compact, whole


def indices(where: Tensor, sizes: list[int]) -> list[Tensor]:
    """Positions as indices, by division."""
    found = []
    for size in reversed(sizes):
        found.append(where % size)
        where = where // size
    return found[::-1]


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda x: x,
    "transposed": lambda x: x.transpose(0, -1),
    "shorter": lambda x: x[..., :1, 1:],
    "every second": lambda x: x[..., ::2],
    "expanded": lambda x: x.unsqueeze(1).expand(x.shape[0], 3, *x.shape[1:]),
    "selected": lambda x: x[1].unsqueeze(-1),
}


@given(
    st.lists(st.integers(2, 4), min_size=2, max_size=3), st.lists(st.sampled_from(sorted(VIEWS)), max_size=2)
)
def test_strides_tell_indices(sizes: list[int], views: list[str]) -> None:
    where = whole("x", torch.zeros(sizes)).where[0]
    for each in views:
        if where.ndim < 2 or where.shape[0] < 2 or where.shape[-1] < 2:
            break
        where = VIEWS[each](where)
    found = by_strides(where, sizes)
    assert found is not None
    for ours, theirs in zip(found, indices(where, sizes), strict=True):
        assert torch.equal(ours.expand(where.shape), theirs)


@pytest.mark.parametrize("moved", ["flattened", "copied", "of one dimension", "diagonal"])
def test_what_strides_do_not_tell(moved: str) -> None:
    where = whole("x", torch.zeros(3, 2)).where[0]
    other = {
        "flattened": lambda: where.reshape(-1),
        "copied": lambda: where[torch.tensor([2, 0])],
        "of one dimension": lambda: torch.arange(6),
        "diagonal": lambda: where[:2].diagonal(),
    }[moved]()
    assert by_strides(other, [3, 2]) is None


def test_compact_positions_are_views_still() -> None:
    where = whole("x", torch.zeros(3, 2)).where.expand(4, 3, 2)
    assert by_strides(compact(where), [3, 2]) is not None
