"""A graph written as a lazy funsor expression and read back: nothing that matters is lost."""

from __future__ import annotations

from collections import Counter, OrderedDict

import funsor
import pytest
import torch
from funsor import ops
from funsor.domains import Bint, Real
from funsor.interpretations import lazy, normalize, reflect
from funsor.tensor import Tensor
from funsor.terms import Binary, Number
from hypothesis import assume, given

import oracles
from strategies import factor_graphs, to_problem
from sumout.errors import GraphError
from sumout.factors import Factor, FactorGraph, Plate, Variable


def tensor(data: torch.Tensor, **inputs: int) -> Tensor:
    return Tensor(data, OrderedDict((name, Bint[size]) for name, size in inputs.items()))


def log_z(graph: FactorGraph) -> torch.Tensor:
    return oracles.log_z(to_problem(graph))


def content(graph: FactorGraph) -> Counter[object]:
    """The factors as hashable values; inputs of size 1 say nothing that the plates do not."""
    sized = {name for name in graph.variables if graph.size(name) > 1} | {
        name for name, plate in graph.plates.items() if plate.size > 1
    }
    return Counter(
        (
            tuple(name for name in factor.inputs if name in sized),
            tuple(factor.data.reshape(-1).tolist()),
            factor.plates,
            factor.scale,
        )
        for factor in graph.factors
    )


@given(factor_graphs(scales=True, max_variables=5, max_assignments=500))
def test_a_round_trip_keeps_log_z(graph: FactorGraph) -> None:
    again = FactorGraph.from_funsor(graph.to_funsor())
    torch.testing.assert_close(log_z(again), log_z(graph), rtol=1e-12, atol=1e-9, equal_nan=True)


@given(factor_graphs(scales=True))
def test_a_round_trip_keeps_factors_ordinals_and_variables(graph: FactorGraph) -> None:
    again = FactorGraph.from_funsor(graph.to_funsor())
    used = {name for factor in graph.factors for name in factor.inputs}
    unused = [name for name in graph.variables if name not in used]
    ones = Counter(
        (
            (name,) if graph.size(name) > 1 else (),
            (0.0,) * graph.size(name),
            graph.variables[name].plates,
            1.0,
        )
        for name in unused
    )
    assert content(again) == content(graph) + ones
    assert again.variables == graph.variables
    occupied = set().union(*(f.plates for f in graph.factors), *(v.plates for v in graph.variables.values()))
    assert again.plates == {name: plate for name, plate in graph.plates.items() if name in occupied}


@given(factor_graphs(scales=True, max_variables=4, max_assignments=300, zeros=False))
def test_the_expression_evaluates_to_log_z(graph: FactorGraph) -> None:
    assume(graph.factors)  # they give the dtype
    # Leaves are expanded to their plates, so funsor's own evaluation counts each factor as often as we do.
    value = funsor.reinterpret(graph.to_funsor())
    assert not value.inputs
    torch.testing.assert_close(
        torch.as_tensor(value.data, dtype=torch.float64), log_z(graph), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("interpretation", [reflect, lazy, normalize])
def test_an_expression_written_by_hand_is_read(interpretation: object) -> None:
    a, b, c = torch.randn(2, 3).double(), torch.randn(3, 4).double(), torch.randn(4).double()
    with interpretation:  # type: ignore[attr-defined]
        inner = (tensor(b, y=3, p=4) + tensor(c, p=4)).reduce(ops.add, "p")
        expression = (tensor(a, x=2, y=3) + inner + Number(0.25)).reduce(ops.logaddexp, frozenset("xy"))
    graph = FactorGraph.from_funsor(expression)
    assert graph.variables == {"x": Variable(2), "y": Variable(3)}
    assert graph.plates == {"p": Plate(4)}
    expected = torch.logsumexp(a + b.sum(1) + c.sum() + 0.25, (0, 1))
    torch.testing.assert_close(log_z(graph), expected)


@pytest.mark.parametrize("interpretation", [reflect, normalize])
def test_powers_are_read_wherever_they_stand(interpretation: object) -> None:
    a, b, c = torch.randn(2).double(), torch.randn(2, 3).double(), torch.randn(3, 4).double()
    with interpretation:  # type: ignore[attr-defined]
        local = tensor(c, p=3, z=4).reduce(ops.logaddexp, "z") * Number(0.5)
        plate = ((tensor(b, x=2, p=3) * Number(2.0) + local) * Number(1.5)).reduce(ops.add, "p") * Number(
            10.0
        )
        expression = (tensor(a, x=2) + plate).reduce(ops.logaddexp, "x") * Number(3.0) + Number(0.5)
    graph = FactorGraph.from_funsor(expression)
    by_plate = 10 * (1.5 * (2 * b + 0.5 * c.logsumexp(1))).sum(1)
    expected = 3 * torch.logsumexp(a + by_plate, 0) + 0.5
    torch.testing.assert_close(log_z(graph), expected)
    assert graph.plates["p"] == Plate(3, 10.0)


def test_equal_names_of_different_variables_are_told_apart() -> None:
    a = torch.randn(3).double()
    with reflect:
        once = tensor(a, x=3).reduce(ops.logaddexp, "x")
        expression = once + once
    graph = FactorGraph.from_funsor(expression)
    assert set(graph.variables) == {"x", "x_2"}
    torch.testing.assert_close(log_z(graph), 2 * a.logsumexp(0))


def test_equal_plates_are_one_and_different_ones_two() -> None:
    with reflect:
        short, long = (tensor(torch.randn(n).double(), p=n).reduce(ops.add, "p") for n in (2, 3))
        graph = FactorGraph.from_funsor((short + long) + short)
    assert graph.plates == {"p": Plate(2), "p_2": Plate(3)}


def test_a_factor_constant_along_a_plate_keeps_its_inputs() -> None:
    factor = Factor("f", ("x",), torch.randn(2).double(), frozenset("p"))
    graph = FactorGraph((factor,), {"x": Variable(2)}, {"p": Plate(5)})
    again = FactorGraph.from_funsor(graph.to_funsor())
    assert again.factors[0].inputs == ("x",)
    assert again.factors[0].plates == {"p"}
    torch.testing.assert_close(log_z(again), torch.logsumexp(5 * factor.data, 0))


def test_gradients_pass_through_expression_and_back() -> None:
    data = torch.randn(3, dtype=torch.float64, requires_grad=True)
    graph = FactorGraph((Factor("f", ("x",), data),), {"x": Variable(3)})
    log_z(FactorGraph.from_funsor(graph.to_funsor())).backward()
    torch.testing.assert_close(data.grad, torch.softmax(data.detach(), 0))


def test_the_empty_graph() -> None:
    graph = FactorGraph((), {})
    assert FactorGraph.from_funsor(graph.to_funsor()).variables == {}
    assert log_z(graph) == 0


def test_thousands_of_factors_do_not_exhaust_the_stack() -> None:
    data = torch.zeros(2, 2).double()
    count = 1500
    factors = tuple(Factor(f"f{i}", (f"x{i}", f"x{i + 1}"), data) for i in range(count))
    graph = FactorGraph(factors, {f"x{i}": Variable(2) for i in range(count + 1)})
    assert len(FactorGraph.from_funsor(graph.to_funsor()).factors) == count


def test_plates_that_are_not_tree_shaped_have_no_expression() -> None:
    factor = Factor("f", ("x", "y"), torch.zeros(2, 2), frozenset("pq"))
    variables = {"x": Variable(2, frozenset("p")), "y": Variable(2, frozenset("q"))}
    graph = FactorGraph((factor,), variables, {"p": Plate(2), "q": Plate(2)})
    with pytest.raises(GraphError, match=r"\['p', 'q'\] are not tree-shaped: the variables \['x', 'y'\]"):
        graph.to_funsor()


def test_a_name_that_funsor_reserves_is_refused() -> None:
    graph = FactorGraph((), {"x__BOUND_1": Variable(2)})
    with pytest.raises(GraphError, match="cannot be written as a funsor"):
        graph.to_funsor()


def test_what_is_no_sum_product_is_refused() -> None:
    x = tensor(torch.zeros(2), x=2)
    with reflect:
        cases = {
            "not reduced": x,
            "only inputs with finitely many states": (x + funsor.Variable("v", Real)).reduce(ops.logaddexp),
            "no step of a log-space": x.reduce(ops.max, "x"),
            "'mul' of Tensor, Tensor": Binary(ops.mul, x, x).reduce(ops.logaddexp, "x"),
            "multiplied by -1": (x * Number(-1.0)).reduce(ops.logaddexp, "x"),
            "real scalars as entries": Tensor(torch.zeros(3)),
            "Unary cannot be read": funsor.terms.Unary(ops.exp, x).reduce(ops.logaddexp, "x"),
        }
    for message, expression in cases.items():
        with pytest.raises(GraphError, match=message):
            FactorGraph.from_funsor(expression)
    with pytest.raises(GraphError, match="Only a funsor"):
        FactorGraph.from_funsor(1.0)
