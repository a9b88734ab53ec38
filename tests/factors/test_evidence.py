"""Conditioning: every way to write an observed value, and that tables are sliced right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracles
from strategies import factor_graphs, to_problem
from sumout.errors import EvidenceError
from sumout.factors import Factor, FactorGraph, Plate, Variable, resolve_evidence


def network() -> FactorGraph:
    return FactorGraph.from_tables(
        {
            "asia": (["asia"], [0.01, 0.99]),
            "smoke": (["smoke"], [0.5, 0.5]),
            "either": (["asia", "smoke", "level"], torch.rand(2, 2, 3)),
        },
        states={"asia": ["yes", "no"], "smoke": ["True", "False"]},
    )


@given(st.data())
def test_conditioning_is_restricting_the_sum(data: st.DataObject) -> None:
    graph = data.draw(factor_graphs(max_variables=4, max_assignments=1000))
    problem = to_problem(graph)
    evidence = {}
    for name in data.draw(st.sets(st.sampled_from(sorted(graph.variables)))) if graph.variables else ():
        variable = graph.variables[name]
        shape = tuple(graph.plates[plate].size for plate in sorted(variable.plates))
        evidence[name] = torch.randint(variable.size, shape, generator=torch.Generator().manual_seed(0))
    kept = torch.ones(problem.assignments(), dtype=torch.bool)
    assignments = oracles.assignment_table(problem)
    for column, (name, element) in enumerate(problem.copies()):
        if name in evidence:
            kept &= assignments[:, column] == evidence[name][element]
    expected = torch.logsumexp(oracles.log_joint(problem, assignments[kept]), 0)

    conditioned = graph.condition(evidence)
    conditioned.check()
    assert set(conditioned.variables) == set(graph.variables) - set(evidence)
    torch.testing.assert_close(oracles.log_z(to_problem(conditioned)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "value", "index"),
    [
        ("asia", "no", 1),
        ("asia", 1, 1),
        ("asia", np.int32(1), 1),
        ("asia", np.array(1), 1),
        ("asia", np.str_("no"), 1),
        ("asia", torch.tensor(1), 1),
        ("asia", torch.tensor(1, dtype=torch.uint8), 1),
        ("asia", True, 1),  # no label reads like it: an index
        ("smoke", True, 0),  # labelled "True"
        ("smoke", np.bool_(False), 1),
        ("level", "2", 2),  # no labels: digits are an index
    ],
)
def test_ways_to_write_a_value(name: str, value: object, index: int) -> None:
    assert resolve_evidence(network(), {name: value}) == {name: index}


def test_values_in_plates() -> None:
    graph = FactorGraph(
        (Factor("f", ("z", "b"), torch.arange(8.0).reshape(2, 4), frozenset("ab")),),
        {"z": Variable(2, frozenset("ab"))},
        {"b": Plate(4), "a": Plate(3)},
        {"z": ("no", "yes")},
    )
    values = torch.randint(2, (3, 4))  # plates in sorted order: a, b
    conditioned = graph.condition({"z": values}).factors[0]
    assert conditioned.inputs == ("a", "b")
    assert conditioned.plates == {"a", "b"}
    expected = torch.tensor([[values[a, b] * 4 + b for b in range(4)] for a in range(3)]).float()
    torch.testing.assert_close(conditioned.data, expected)
    labels = [["yes" if value else "no" for value in row] for row in values.tolist()]
    for same in (values.numpy(), values.tolist(), labels, values.bool()):
        assert torch.equal(graph.condition({"z": same}).factors[0].data, expected)
    everywhere = graph.condition({"z": "yes"}).factors[0]
    assert everywhere.inputs == ("b",)
    assert everywhere.plates == {"a", "b"}
    assert everywhere.data.tolist() == [4.0, 5.0, 6.0, 7.0]


def test_two_observed_variables_of_one_table_and_gradients() -> None:
    data = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    plates = frozenset("p")
    variables = {"x": Variable(2, plates), "y": Variable(3, plates)}
    graph = FactorGraph((Factor("f", ("x", "y"), data, plates),), variables, {"p": Plate(4)})
    x, y = torch.tensor([0, 1, 1, 0]), torch.tensor([2, 0, 2, 2])
    conditioned = graph.condition({"x": x, "y": y}).factors[0]
    assert conditioned.inputs == ("p",)
    assert torch.equal(conditioned.data, data[x, y])
    conditioned.data.sum().backward()
    assert data.grad is not None
    assert data.grad.tolist() == [[0, 0, 2], [1, 0, 1]]


def test_the_graph_itself_is_left_alone() -> None:
    graph = network()
    conditioned = graph.condition({"asia": "yes"})
    assert set(graph.variables) == {"asia", "smoke", "level"}
    assert conditioned.factors[1] is graph.factors[1]
    assert set(conditioned.states) == {"smoke"}
    assert graph.condition({}).factors == graph.factors


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ({"smok": 1}, r"Evidence for 'smok', which is no variable of the graph\. Did you mean 'smoke'\?"),
        (
            {"asia": "yess"},
            r"Unknown state 'yess' of variable 'asia'; its states are yes, no\. Did you mean 'yes'\?",
        ),
        (
            {"level": "high"},
            "Unknown state 'high' of variable 'level'; it has no state labels: give an index",
        ),
        ({"asia": 2}, "'asia' is 2, but its 2 states count from 0"),
        ({"asia": -1}, "'asia' is -1"),
        ({"level": "3"}, "'level' is 3, but its 3 states"),
        ({"asia": 1.0}, "'asia' is 1.0: give a state label or an integer index"),
        ({"asia": None}, "'asia' is None"),
        ({"asia": torch.tensor(1.0)}, "'asia' is of torch.float32: indices are integers"),
        ({"asia": [0, 1]}, r"'asia' has shape \(2,\), but needs shape \(\), as it is in no plate"),
        ({"asia": torch.tensor([0, 7])}, "'asia' has the index 7"),
        ({"asia": [[0], [0, 1]]}, "ragged"),
        ({"asia": []}, "ragged or empty"),
    ],
)
def test_bad_evidence_is_explained(evidence: dict[str, object], message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        network().condition(evidence)


def test_bad_evidence_in_plates_is_explained() -> None:
    graph = FactorGraph((), {"z": Variable(2, frozenset("ba"))}, {"a": Plate(3), "b": Plate(4)})
    with pytest.raises(
        EvidenceError, match=r"shape \(4, 3\), but needs shape \(3, 4\), the sizes of its plates \(a, b\)"
    ):
        graph.condition({"z": torch.zeros(4, 3, dtype=torch.long)})
    with pytest.raises(EvidenceError, match="'a', which is a plate"):
        graph.condition({"a": 0})
