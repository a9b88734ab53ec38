"""The records themselves: factors, their funsor view, the structure that plans are made from."""

from __future__ import annotations

import pickle
import time
from dataclasses import FrozenInstanceError

import pytest
import torch
from funsor.tensor import Tensor
from hypothesis import given

from strategies import factor_graphs
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.plan.structure import FactorShape, Structure


def test_the_term_is_the_table_by_name() -> None:
    factor = Factor("f", ("x", "p"), torch.randn(2, 1), frozenset("p"))
    assert isinstance(factor.term, Tensor)
    assert {name: domain.size for name, domain in factor.term.inputs.items()} == {"x": 2, "p": 1}
    assert factor.term.data is factor.data
    assert factor.term is factor.term


def test_parts_are_frozen_small_and_survive_pickling() -> None:
    factor = Factor("f", ("x",), torch.zeros(2))
    with pytest.raises(FrozenInstanceError):
        factor.name = "g"  # type: ignore[misc]
    assert not hasattr(factor, "__dict__")
    factor.term  # noqa: B018  (filled, as it may be when a graph is sent to a worker)
    assert pickle.loads(pickle.dumps(factor)).inputs == ("x",)
    assert Variable(2) == Variable(2, frozenset())
    assert Plate(3) != Plate(3, 2.0)


def test_structure_has_names_sizes_and_ordinals() -> None:
    graph = FactorGraph(
        (Factor("f", ("x", "p"), torch.zeros(2, 3), frozenset("p"), 0.5),),
        {"x": Variable(2)},
        {"p": Plate(3, 10.0)},
    )
    assert graph.structure == Structure(
        (FactorShape(("x", "p"), frozenset("p"), 0.5),),
        (("x", 2), ("p", 3)),
        (("x", frozenset()),),
        (("p", 10.0),),
    )
    assert graph.structure is graph.structure


@given(factor_graphs())
def test_equal_graphs_have_equal_structures_whatever_their_numbers(graph: FactorGraph) -> None:
    factors = tuple(Factor("other", f.inputs, f.data + 1, f.plates, f.scale) for f in graph.factors)
    other = FactorGraph(factors, dict(graph.variables), dict(graph.plates))
    assert other.structure is graph.structure  # so that what is kept by it is found without comparing names


def test_the_structure_of_a_large_graph_is_cheap() -> None:
    count, data = 5000, torch.zeros(2, 2)
    factors = tuple(Factor(f"f{i}", (f"x{i}", f"x{i + 1}"), data) for i in range(count))
    variables = {f"x{i}": Variable(2) for i in range(count + 1)}
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        FactorGraph(factors, variables).structure  # noqa: B018
        best = min(best, time.perf_counter() - start)
    assert best / count < 20e-6  # about 1 microsecond when nothing else runs


def test_repr_is_one_line_without_numbers() -> None:
    graph = FactorGraph((Factor("f", ("x",), torch.zeros(2)),), {"x": Variable(2)})
    assert repr(graph) == "FactorGraph(1 factors, 1 variables, 0 plates)"
