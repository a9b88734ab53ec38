"""What the steps of plans say, run plainly: against brute force, with every order, batches and constraints."""

from __future__ import annotations

import contextlib
import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import oracles
from plan.interpret import aligned, interpret
from strategies import factor_graphs, to_problem
from sumout.errors import MemoryLimitError, PlanError
from sumout.factors import FactorGraph
from sumout.plan import FLOPS_ALONE, ORDERS, SEARCHES, FactorShape, Machine, Structure, make_plan

EXACT = {"rtol": 1e-9, "atol": 1e-9}
SLOW = ("random_greedy", "cotengra")
NAMES = [*ORDERS, *(each for each in SEARCHES if each not in SLOW)]
MACHINES = st.sampled_from([Machine(), FLOPS_ALONE, Machine(seconds_per_launch=1.0)])


@given(factor_graphs(scales=True), st.sampled_from(NAMES), MACHINES)
@settings(max_examples=300)
def test_every_order_gives_the_sum(graph: FactorGraph, order: str, machine: Machine) -> None:
    plan = make_plan(graph.structure, orders=(order,), machine=machine, time_limit=0.01)
    answer = interpret(plan, [factor.data for factor in graph.factors])
    torch.testing.assert_close(answer, oracles.log_z(to_problem(graph)), **EXACT)


@given(factor_graphs(), st.sampled_from(NAMES))
@settings(max_examples=100)
def test_every_order_gives_the_maximum(graph: FactorGraph, order: str) -> None:
    plan = make_plan(graph.structure, orders=(order,), time_limit=0.01)
    answer = interpret(plan, [factor.data for factor in graph.factors], maximum=True)
    torch.testing.assert_close(answer, oracles.max_assignment(to_problem(graph))[1], **EXACT)


@given(factor_graphs(zeros=False), st.data())
@settings(max_examples=150)
def test_a_batch_is_kept_throughout(graph: FactorGraph, data: st.DataObject) -> None:
    """Some factors get two further dimensions; the answer is that of each of their elements."""
    rows, columns = 3, 2
    tables, factors = [], []
    for factor in graph.factors:
        along = data.draw(st.sampled_from([(), ("row",), ("row", "column")]))
        extent = [{"row": rows, "column": columns}[each] for each in along]
        tables.append(factor.data + torch.randn([*extent, *[1] * factor.data.ndim], dtype=torch.float64))
        factors.append(FactorShape((*along, *factor.inputs), factor.plates, factor.scale))
    structure = graph.structure._replace(
        factors=tuple(factors),
        sizes=(*graph.structure.sizes, ("row", rows), ("column", columns)),
        batch=("row", "column"),
    )
    plan = make_plan(structure)
    answer = interpret(plan, tables)
    assert answer.shape == (rows, columns)
    for row, column in itertools.product(range(rows), range(columns)):
        at = {"row": row, "column": column}
        sliced = [
            table[tuple(at[each] for each in shape.inputs if each in at)]
            for table, shape in zip(tables, factors, strict=True)
        ]
        expected = interpret(make_plan(graph.structure), sliced)
        torch.testing.assert_close(answer[row, column], expected, **EXACT)
    # The schedule names the dimensions of its results as the steps do.
    dims = [plan.elimination.dims[node] for node, _ in plan.elimination.totals]
    assert [sorted(each) for each in plan.schedule.total_dims] == [sorted(each) for each in dims]


def marginal_map(graph: FactorGraph, last: list[str]) -> torch.Tensor:
    """The largest sum over the other variables, of all states of ``last``; no plates."""
    names = list(graph.variables)
    joint = torch.zeros([graph.variables[name].size for name in names], dtype=torch.float64)
    for factor in graph.factors:
        joint = joint + aligned(factor.data, factor.inputs, names)
    summed = [place for place, name in enumerate(names) if name not in last]
    return (joint.logsumexp(summed) if summed else joint).amax()


@given(factor_graphs(plates=False), st.data())
@settings(max_examples=200)
def test_some_variables_are_maximised_after_the_others_are_summed(
    graph: FactorGraph, data: st.DataObject
) -> None:
    assume(graph.variables)
    last = data.draw(st.lists(st.sampled_from(sorted(graph.variables)), unique=True))
    plan = make_plan(graph.structure, maximised=last, orders=(data.draw(st.sampled_from(list(ORDERS))),))
    answer = interpret(plan, [factor.data for factor in graph.factors])
    torch.testing.assert_close(answer, marginal_map(graph, last), **EXACT)
    gone = {step.maximum for step in plan.steps for name in step.over if name in last}
    assert gone <= {True}
    assert not any(step.maximum for step in plan.steps if set(step.over) - set(last))


def test_sums_outside_of_a_maximum_are_refused_or_written_out() -> None:
    # A maximum over each element's z, and outside of it a sum over x: that is not the maximum of the sums.
    structure = Structure(
        (FactorShape(("x",)), FactorShape(("x", "z", "i"), frozenset("i"))),
        (("x", 2), ("z", 3), ("i", 2)),
        (("x", frozenset()), ("z", frozenset("i"))),
        (("i", 1.0),),
    )
    plan = make_plan(structure, maximised=("z",), unroll=True)
    assert plan.unrolled == ("i",)
    one, many = torch.randn(2).double(), torch.randn(2, 3, 2).double()
    tables = [one, many[..., 0], many[..., 1]]
    sums = (one[:, None, None] + many[:, :, None, 0] + many[:, None, :, 1]).logsumexp(0)
    torch.testing.assert_close(interpret(plan, tables), sums.amax(), **EXACT)
    # The other way round is what elimination does.
    assert make_plan(structure, maximised=("x",)).unrolled == ()
    nested = Structure(
        (FactorShape(("x", "z"), frozenset("ij")),),
        (("x", 2), ("z", 3), ("i", 2), ("j", 2)),
        (("x", frozenset()), ("z", frozenset("ij"))),
        (("i", 1.0), ("j", 1.0)),
    )
    plan = make_plan(nested, maximised=("z",), unroll=True)
    assert plan.unrolled == ("i", "j")
    table = torch.randn(2, 3).double()
    sums = [sum(table[:, z] for z in zs).logsumexp(0) for zs in itertools.product(range(3), repeat=4)]
    torch.testing.assert_close(interpret(plan, [table] * 4), torch.stack(sums).max(), **EXACT)
    with pytest.raises(PlanError, match=r"'i' is subsampled"):
        make_plan(structure._replace(plates=(("i", 2.0),)), maximised=("z",), unroll=True)


@given(factor_graphs(), st.booleans())
@settings(max_examples=100)
def test_a_schedule_runs_every_step_after_what_it_needs(graph: FactorGraph, frugal: bool) -> None:
    plan = make_plan(graph.structure)
    if frugal:
        with contextlib.suppress(MemoryLimitError):
            plan = make_plan(graph.structure, memory_limit=plan.bytes() - 1)
    rows_of: dict[int, int] = {}
    for number, group in enumerate(plan.schedule.groups):
        for side in group.operands:
            for rows in side:
                if rows.group is not None:
                    assert rows.group < number
                    assert max(rows.numbers) < rows_of[rows.group]
        rows_of[number] = group.rows
        assert not plan.frugal or group.rows == 1
        for step in group.steps:
            assert (
                math.prod(dict(plan.structure.sizes)[each] for each in step.out)
                == group.written // group.rows
            )
    assert sum(rows_of.values()) == len(plan.steps)
