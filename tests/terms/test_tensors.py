"""Tensors by name and by position."""

from __future__ import annotations

import pytest
import torch
from funsor.tensor import Tensor
from funsor.terms import Number
from hypothesis import given
from hypothesis import strategies as st

from sumout.errors import GraphError
from sumout.terms import named_dims, named_tensor, to_data, to_funsor


def sizes(term: Tensor) -> dict[str, int]:
    return {name: domain.size for name, domain in term.inputs.items()}


@given(st.lists(st.integers(1, 3), max_size=4), st.lists(st.integers(1, 3), max_size=2))
def test_there_and_back(batch: list[int], event: list[int]) -> None:
    x = torch.randn((*batch, *event))
    names = {dim: f"n{-dim}" for dim in range(-len(batch), 0)}
    term = to_funsor(x, names, event_dim=len(event))
    assert sizes(term) == {names[i - len(batch)]: size for i, size in enumerate(batch) if size > 1}
    assert tuple(term.output.shape) == tuple(event)
    back = to_data(term, {name: dim for dim, name in names.items()})
    # Leading dims of size 1 are not known to the term.
    torch.testing.assert_close(back.expand(x.shape), x, rtol=0, atol=0)


def test_inputs_come_in_positional_or_asked_order() -> None:
    x = torch.randn(2, 1, 3, 4)
    names = {-3: "a", -2: "gone", -1: "b"}
    assert list(to_funsor(x, names, event_dim=1).inputs) == ["a", "b"]
    term = to_funsor(x, names, event_dim=1, order=("b", "gone", "never", "a"))
    assert list(term.inputs) == ["b", "a"]
    torch.testing.assert_close(term.data, x[:, 0].permute(1, 0, 2))
    torch.testing.assert_close(to_data(term, {"a": -3, "b": -1}), x)


def test_a_dim_can_move() -> None:
    x = torch.randn(2, 3)
    moved = to_data(to_funsor(x, {-2: "a", -1: "b"}), {"a": -1, "b": -4})
    torch.testing.assert_close(moved, x.T.reshape(3, 1, 1, 2))


def test_numbers_integers_and_sizes_of_one() -> None:
    assert to_funsor(0.5, {}).data == 0.5
    states = to_funsor(torch.tensor([2, 0]), {-1: "p"}, dtype=3)
    assert states.dtype == 3
    assert to_data(Number(2.5), {}) == 2.5
    assert to_data(Number(1, 3), {}).dtype == torch.long
    assert sizes(named_tensor(torch.zeros(1, 2, 5), ("a", "b"))) == {"a": 1, "b": 2}


def test_gradients_pass() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    to_data(to_funsor(x, {-2: "a", -1: "b"}), {"a": -1, "b": -2}).sum().backward()
    assert torch.equal(x.grad, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("shape", "names", "options", "message"),
    [
        (
            (2, 3),
            {-1: "b"},
            {},
            r"Batch dim -2 of batch shape \(2, 3\) has size 2 but no name \(named dims: -1: 'b'\)",
        ),
        ((2, 3), {-2: "a", -1: "a"}, {}, "both named 'a'"),
        ((2,), {0: "a"}, {}, "batch dims are negative integers"),
        ((2,), {-1: 3}, {}, "a name is a string"),
        ((2,), {-1: "a"}, {"event_dim": 2}, "event_dim=2 does not fit"),
        ((2, 3), {-2: "a", -1: "b"}, {"order": ("a",)}, r"leaves out \['b'\]"),
    ],
)
def test_bad_names_are_explained(shape: tuple[int, ...], names: dict, options: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(GraphError, match=message):
        to_funsor(torch.zeros(shape), names, **options)


def test_other_mistakes_are_explained() -> None:
    term = to_funsor(torch.zeros(2), {-1: "a"})
    for bad, message in [
        ({}, r"depends on \['a'\]"),
        ({"a": -1, "b": -1}, "both at dim -1"),
        ({"a": 0}, "negative"),
    ]:
        with pytest.raises(GraphError, match=message):
            to_data(term, bad)
    with pytest.raises(GraphError, match="not str"):
        to_funsor("a", {})
    with pytest.raises(GraphError, match="no name"):
        named_dims((2,), {})
