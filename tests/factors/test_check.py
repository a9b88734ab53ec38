"""Each invariant of the specification, broken once."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given

from strategies import factor_graphs
from sumout.errors import GraphError
from sumout.factors import Factor, FactorGraph, Plate, Variable


def valid() -> FactorGraph:
    """rain -> wet in 3 gardens."""
    return FactorGraph(
        (
            Factor("rain", ("rain",), torch.zeros(2)),
            Factor("wet|rain", ("gardens", "rain", "wet"), torch.zeros(3, 2, 2), frozenset({"gardens"})),
        ),
        {"rain": Variable(2), "wet": Variable(2, frozenset({"gardens"}))},
        {"gardens": Plate(3)},
        {"rain": ("no", "yes")},
    )


def with_factor(**changes: Any) -> FactorGraph:
    graph = valid()
    return replace(graph, factors=(graph.factors[0], replace(graph.factors[1], **changes)))


@given(factor_graphs(scales=True))
def test_what_the_strategies_draw_is_valid(graph: FactorGraph) -> None:
    graph.check()


def test_a_valid_graph_passes() -> None:
    valid().check()


BROKEN: dict[str, tuple[FactorGraph, str]] = {
    "name": (
        replace(valid(), variables={"": Variable(2)}),
        "name of a variable is a non-empty string, not ''",
    ),
    "both": (
        replace(valid(), plates={"gardens": Plate(3), "rain": Plate(2)}),
        "'rain' is both a variable and a plate",
    ),
    "size": (replace(valid(), plates={"gardens": Plate(0)}), "plate 'gardens' has size 0"),
    "size type": (replace(valid(), variables={"x": Variable(2.0)}), "variable 'x' has size 2.0"),  # type: ignore[arg-type]
    "plate scale": (replace(valid(), plates={"gardens": Plate(3, 0.0)}), "plate 'gardens' has scale 0.0"),
    "factor scale": (with_factor(scale=math.inf), r"factor 'wet\|rain' has scale inf"),
    "variable's plate": (
        replace(valid(), variables={"rain": Variable(2, frozenset({"garden"}))}),
        "variable 'rain' lives in 'garden', which is no plate of the graph. Did you mean 'gardens'",
    ),
    "states of nobody": (
        replace(valid(), states={"rian": ("a", "b")}),
        "state labels for 'rian', which is no variable of the graph. Did you mean 'rain'",
    ),
    "too many states": (replace(valid(), states={"rain": ("a", "b", "c")}), "2 states but 3 labels"),
    "equal states": (replace(valid(), states={"rain": ("a", "a")}), "both labelled 'a'"),
    "unknown input": (
        with_factor(inputs=("gardens", "rian", "wet")),
        r"'wet\|rain' has the input 'rian', no variable or plate of the graph. Did you mean 'rain'",
    ),
    "repeated input": (with_factor(inputs=("gardens", "rain", "rain")), "input 'rain' twice"),
    "unknown plate": (
        with_factor(plates=frozenset({"gardens", "days"})),
        "lives in 'days', which is no plate",
    ),
    "input plate not in the ordinal": (
        replace(valid(), factors=(Factor("f", ("gardens",), torch.zeros(3)),)),
        "'f' lives in the plates .*, but it has as an input 'gardens'",
    ),
    "variable's plate not in the ordinal": (
        replace(valid(), factors=(Factor("f", ("wet",), torch.zeros(2)),)),
        "'f' lives in the plates .*, but its variable 'wet' lives in 'gardens'",
    ),
    "shape": (
        with_factor(data=torch.zeros(2, 3, 2)),
        r"shape \(2, 3, 2\), but its inputs have the sizes \(gardens: 3, rain: 2, wet: 2\)",
    ),
    "no tensor": (with_factor(data=[1.0]), "of list: it must be a real floating tensor"),
    "integers": (with_factor(data=torch.zeros(3, 2, 2, dtype=torch.long)), "of torch.int64"),
    "complex": (with_factor(data=torch.zeros(3, 2, 2, dtype=torch.cfloat)), "of torch.complex64"),
    "nan": (with_factor(data=torch.full((3, 2, 2), math.nan)), r"'wet\|rain' contains NaN or \+inf"),
    "inf": (with_factor(data=torch.full((3, 2, 2), math.inf)), r"'wet\|rain' contains NaN or \+inf"),
    "dtypes": (
        with_factor(data=torch.zeros(3, 2, 2).double()),
        "dtype torch.float64, but 'rain' has torch.float32",
    ),
    "devices": (with_factor(data=torch.zeros(3, 2, 2, device="meta")), "has device meta, but 'rain' has cpu"),
    "scales": (with_factor(scale=2.0), r"'rain' and 'wet\|rain' are connected .* the scales 1.0 and 2.0"),
}


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_each_broken_rule_is_named(case: str) -> None:
    graph, message = BROKEN[case]
    with pytest.raises(GraphError, match=message):
        graph.check()


def test_zero_probabilities_and_one_nan_among_them() -> None:
    impossible = torch.full((2,), -math.inf)
    graph = replace(valid(), factors=(Factor("f", ("rain",), impossible),))
    graph.check()
    with pytest.raises(GraphError, match="NaN"):
        replace(graph, factors=(Factor("f", ("rain",), torch.tensor([-math.inf, math.nan])),)).check()


def test_separate_components_may_have_different_scales() -> None:
    variables = {"x": Variable(2), "y": Variable(2)}
    factors = (Factor("f", ("x",), torch.zeros(2), scale=3.0), Factor("g", ("y",), torch.zeros(2)))
    FactorGraph(factors, variables).check()


def test_labels_of_many_states_are_looked_at_once() -> None:
    """Each label is hashed a few times, however many there are: not compared with all others."""
    hashed = 0

    class Label(str):
        def __hash__(self) -> int:
            nonlocal hashed
            hashed += 1
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            nonlocal hashed
            hashed += 1
            return super().__eq__(other)

    size = 500
    graph = FactorGraph(
        (Factor("f", ("x",), torch.zeros(size)),),
        {"x": Variable(size)},
        {},
        {"x": tuple(map(Label, map(str, range(size))))},
    )
    graph.check()
    assert hashed < 10 * size
    twice = replace(graph, states={"x": (*graph.states["x"][:-1], Label("7"))})
    with pytest.raises(GraphError, match="both labelled '7'"):
        twice.check()
    assert hashed < 40 * size
