"""Factor graphs from plain tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import oracles
from strategies import to_problem
from sumout.errors import GraphError
from sumout.factors import FactorGraph, Plate, Variable


def test_a_network_of_two_nodes() -> None:
    graph = FactorGraph.from_tables(
        {
            "rain": (["rain"], torch.tensor([0.8, 0.2], dtype=torch.float64)),
            "wet|rain": (["rain", "wet"], np.array([[0.9, 0.1], [0.2, 0.8]])),
        },
        states={"rain": ["no", "yes"], "wet": ("dry", "wet")},
    )
    assert graph.variables == {"rain": Variable(2), "wet": Variable(2)}
    assert graph.states["wet"] == ("dry", "wet")
    found = oracles.marginals(to_problem(graph))
    torch.testing.assert_close(found["wet"], torch.tensor([0.76, 0.24], dtype=torch.float64))
    assert oracles.log_z(to_problem(graph)).item() == pytest.approx(0, abs=1e-12)


def test_plates_and_ordinals() -> None:
    graph = FactorGraph.from_tables(
        {
            "theta": (["theta"], [0.5, 0.5]),
            "z|theta": (["theta", "z"], [[0.9, 0.1], [0.3, 0.7]]),
            "x|z": (["z", "docs"], torch.rand(2, 4)),
            "prior": ([], 0.5),
        },
        plates={"docs": 4, "days": Plate(2, 3.0)},
        ordinals={"z": ["docs"], "prior": ["days"]},
    )
    assert graph.plates == {"docs": Plate(4), "days": Plate(2, 3.0)}
    assert graph.variables == {"theta": Variable(2), "z": Variable(2, frozenset({"docs"}))}
    assert [sorted(factor.plates) for factor in graph.factors] == [[], ["docs"], ["docs"], ["days"]]


def test_zero_probability_is_minus_infinity_and_logs_are_kept() -> None:
    graph = FactorGraph.from_tables({"f": (["x"], [0, 1])})
    assert graph.factors[0].data.tolist() == [-math.inf, 0.0]
    assert graph.factors[0].data.dtype == torch.get_default_dtype()
    logs = torch.tensor([-1.0, 2.0])
    assert FactorGraph.from_tables({"f": (["x"], logs)}, log=True).factors[0].data is logs


def test_gradients_reach_the_tables() -> None:
    probs = torch.tensor([0.25, 0.75], requires_grad=True, dtype=torch.float64)
    graph = FactorGraph.from_tables({"f": (["x"], probs)})
    oracles.log_z(to_problem(graph)).exp().backward()
    torch.testing.assert_close(probs.grad, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        ({"f": (["x"], [0.5, -0.5])}, {}, "table 'f' has a negative entry, -0.5"),
        ({"f": (["x", "y"], [0.5, 0.5])}, {}, r"table 'f' has shape \(2,\) but 2 inputs"),
        ({"f": ("xy", [[0.5, 0.5]])}, {}, "inputs of table 'f' are the string 'xy'"),
        ({"f": (["x"], [0.5, 0.5]), "g": (["x"], [1, 1, 1])}, {}, "'x' has size 2 in table 'f' but 3 in 'g'"),
        ({"f": (["x"], [[0.5], [0.5, 1.0]])}, {}, "table 'f' is not an array of numbers"),
        ({"f": (["x"], [0.5, math.nan])}, {}, "'f' contains NaN"),
        ({"f": (["x", "p"], [[0.5, 0.5]])}, {"plates": {"p": 3}}, r"sizes \(x: 1, p: 3\)"),
        ({"f": (["xs"], [1.0])}, {"ordinals": {"x": ["p"]}}, "ordinals has 'x', .* Did you mean 'xs'"),
        ({"f": (["x"], [1.0])}, {"ordinals": {"x": ["p"]}}, "lives in 'p', which is no plate"),
        ({"f": (["x"], [1.0, 2.0])}, {"states": {"x": ["a"]}}, "2 states but 1 labels"),
        (
            {"f": (["x"], torch.ones(2)), "g": (["x"], torch.ones(2).double())},
            {},
            "'g' has dtype torch.float64, but 'f' has torch.float32",
        ),
    ],
)
def test_bad_tables_are_explained(tables: dict, options: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(GraphError, match=message):
        FactorGraph.from_tables(tables, **options)
