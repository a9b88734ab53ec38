"""Batch dimensions of plates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumout.effects.dims import DimAllocator
from sumout.errors import PlateError


def test_the_rightmost_free_dimension_is_given() -> None:
    dims = DimAllocator()
    assert dims.allocate("b", -2) == -2
    assert [dims.allocate(name, None) for name in "acd"] == [-1, -3, -4]


def test_a_dimension_given_back_is_given_again() -> None:
    dims = DimAllocator()
    dims.allocate("a", None)
    dims.allocate("b", None)
    dims.free("a", -1)
    assert dims.allocate("c", None) == -1


def test_only_the_holder_gives_a_dimension_back() -> None:
    dims = DimAllocator()
    dims.allocate("a", -1)
    dims.free("b", -1)
    with pytest.raises(PlateError):
        dims.allocate("c", -1)


def test_a_collision_names_both_plates_and_a_free_dimension() -> None:
    dims = DimAllocator()
    dims.allocate("docs", -1)
    with pytest.raises(
        PlateError, match=r"'docs' and 'words' both use dim -1.*plate\('words', \.\.\., dim=-2\)"
    ):
        dims.allocate("words", -1)


def test_a_plate_is_not_nested_in_itself() -> None:
    dims = DimAllocator()
    dims.allocate("docs", -1)
    with pytest.raises(PlateError, match="'docs' is already active"):
        dims.allocate("docs", -2)


@pytest.mark.parametrize("dim", [0, 1])
def test_dimensions_are_negative(dim: int) -> None:
    with pytest.raises(PlateError, match="counted from the right"):
        DimAllocator().allocate("docs", dim)


@given(st.lists(st.none() | st.integers(-5, -1), max_size=8), st.data())
def test_no_two_plates_ever_share_a_dimension(wanted: list[int | None], data: st.DataObject) -> None:
    dims, held = DimAllocator(), dict[str, int]()
    for number, dim in enumerate(wanted):
        if dim in held.values():
            with pytest.raises(PlateError):
                dims.allocate(f"p{number}", dim)
        else:
            held[f"p{number}"] = dims.allocate(f"p{number}", dim)
        assert len(set(held.values())) == len(held)
        if held and data.draw(st.booleans()):
            name = data.draw(st.sampled_from(sorted(held)))
            dims.free(name, held.pop(name))
