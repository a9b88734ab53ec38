"""Memory limits: a plan fits or is refused before anything is allocated, whatever is asked; its slices add up."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from hypothesis import assume, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

import oracles
from plan.interpret import interpret
from strategies import factor_graphs, to_problem
from sumout.errors import MemoryLimitError
from sumout.factors import FactorGraph, Plate
from sumout.factors.unroll import unroll
from sumout.plan import EliminationPlan, FactorShape, Structure, keep_plan, load_plan, make_plan, planning

EXACT = {"rtol": 1e-9, "atol": 1e-9}
SHARES = st.sampled_from([0.8, 0.5, 0.3, 0.2, 0.1])


def answer(plan: EliminationPlan, graph: FactorGraph, maximum: bool = False) -> torch.Tensor:
    """What the plan says of a graph: plates written out, one slice after the other, without the executor."""
    run_on = unroll(graph, plan.unrolled)[0] if plan.unrolled else graph
    names = [name for name, _ in plan.sliced]
    parts = []
    for state in itertools.product(*[range(size) for _, size in plan.sliced]):
        slice_ = run_on.condition(dict(zip(names, state, strict=True))) if names else run_on
        parts.append(interpret(plan, [factor.data for factor in slice_.factors], maximum))
    return torch.stack(parts).amax() if maximum or plan.maximised else torch.stack(parts).logsumexp(0)


@given(factor_graphs(scales=True, max_assignments=1000), SHARES, st.booleans())
@hypothesis(max_examples=200)
def test_a_plan_fits_and_is_right_or_is_refused(graph: FactorGraph, share: float, backward: bool) -> None:
    whole = make_plan(graph.structure, unroll=True)
    limit = int(share * whole.bytes(8, backward))
    try:
        plan = make_plan(graph.structure, memory_limit=limit, backward=backward, unroll=True)
    except MemoryLimitError as refused:
        assert "Observe one of these variables" in str(refused)  # noqa: PT017
        return
    assert plan.bytes(8, backward) <= limit
    torch.testing.assert_close(answer(plan, graph), oracles.log_z(to_problem(graph)), **EXACT)


@given(factor_graphs(max_assignments=500), SHARES)
@hypothesis(max_examples=100)
def test_maxima_and_readouts_fit_too(graph: FactorGraph, share: float) -> None:
    assume(graph.variables)
    names = tuple(graph.variables)
    limit = int(share * make_plan(graph.structure, names, unroll=True).bytes(8, True))
    try:
        plan = make_plan(graph.structure, names, memory_limit=limit, backward=True, unroll=True)
    except MemoryLimitError:
        return
    assert plan.bytes(8, True) <= limit
    expected = oracles.max_assignment(to_problem(graph))[1]
    torch.testing.assert_close(answer(plan, graph, maximum=True), expected, **EXACT)


@given(factor_graphs(max_assignments=300), SHARES, st.data())
@hypothesis(max_examples=100)
def test_a_maximum_after_sums_fits_too(graph: FactorGraph, share: float, data: st.DataObject) -> None:
    assume(graph.variables)
    last = tuple(data.draw(st.lists(st.sampled_from(sorted(graph.variables)), unique=True, min_size=1)))
    whole = make_plan(graph.structure, maximised=last, unroll=True)
    limit = int(share * whole.bytes(8, True))
    try:
        plan = make_plan(graph.structure, maximised=last, memory_limit=limit, backward=True, unroll=True)
    except MemoryLimitError:
        return
    assert plan.bytes(8, True) <= limit
    of_last = {name for name, _ in plan.sliced}
    assert all(name.split("[")[0] in last for name in of_last)
    torch.testing.assert_close(answer(plan, graph), answer(whole, graph), **EXACT)


def clique(plates: dict[str, Plate], states: int = 6) -> FactorGraph:
    """Five variables in all of the plates, each pair with a table of its own."""
    size = [plate.size for plate in plates.values()]
    torch.manual_seed(0)
    tables = {
        f"{a}-{b}": ([*plates, a, b], torch.rand(*size, states, states, dtype=torch.float64))
        for a, b in itertools.combinations("abcde", 2)
    }
    return FactorGraph.from_tables(tables, plates=plates, ordinals={name: list(plates) for name in "abcde"})


def test_elements_of_a_plate_run_one_after_the_other_and_then_in_slices() -> None:
    graph = clique({"p": Plate(3)})
    whole = make_plan(graph.structure)
    expected = interpret(whole, [factor.data for factor in graph.factors])
    found = []
    for share in (0.6, 0.15, 0.02):
        limit = int(share * whole.bytes())
        plan = make_plan(graph.structure, memory_limit=limit, unroll=True)
        assert plan.unrolled == ("p",)
        assert plan.bytes() <= limit
        found.append(plan.slices)
        if plan.slices < 300:
            torch.testing.assert_close(answer(plan, graph), expected, **EXACT)
        text = plan.explain()
        assert "Unrolled: the plate p is too large for memory as a whole. Written out, it makes" in text
    assert found[0] == 1 < found[1] < found[2]
    # Who does not write plates out is refused instead, and told why.
    with pytest.raises(
        MemoryLimitError, match=r"live in the plates \['p'\], and fixing all copies to one state"
    ):
        make_plan(graph.structure, memory_limit=whole.bytes() // 3)


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (clique({"p": Plate(3, 2.0)}), "subsampled and cannot be written out"),
        (clique({"p": Plate(2000)}, 2), "'p' would make 30,000 copies; 8,192 are made to save memory"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(graph: FactorGraph, why: str) -> None:
    whole = make_plan(graph.structure)
    with pytest.raises(MemoryLimitError, match=why) as refused:
        make_plan(graph.structure, memory_limit=whole.bytes() // 3, unroll=True)
    text = str(refused.value)
    assert text.startswith("The plan needs ")
    assert all(f"{name!r}" in text for name in whole.largest_dims)
    assert f"{whole.largest:,} entries" in text


def pairs(names: str, size: int) -> Structure:
    return Structure(
        tuple([FactorShape(pair) for pair in itertools.combinations(names, 2)]),
        tuple([(name, size) for name in names]),
        tuple([(name, frozenset()) for name in names]),
    )


def test_a_sum_before_a_maximum_is_not_cut() -> None:
    structure = pairs("abcd", 20)
    needed = make_plan(structure, maximised=("a",)).bytes()
    with pytest.raises(
        MemoryLimitError, match="are summed out before the maximum, and a sum may not come after it"
    ):
        make_plan(structure, maximised=("a",), memory_limit=needed // 100)


def test_slices_that_would_take_too_long_are_refused_with_the_time() -> None:
    structure = pairs("abcdefg", 100)
    with pytest.raises(
        MemoryLimitError, match=r"In [\d,]+ slices over .* it would take about [\d.]+ (h|days), and"
    ):
        make_plan(structure, memory_limit=2**32)
    with planning(patience=1e9):
        assert make_plan(structure, memory_limit=2**32).sliced


def test_a_plan_that_is_kept_is_not_taken_where_it_does_not_fit(tmp_path: pytest.TempPathFactory) -> None:
    structure = pairs("abcd", 12)
    mine = make_plan(structure, orders=("min_fill",))
    keep_plan(mine)
    limit = mine.bytes() // 4
    sliced = make_plan(structure, memory_limit=limit)
    assert sliced.sliced
    assert sliced.bytes() <= limit
    keep_plan(sliced)
    assert make_plan(structure, memory_limit=limit) is sliced
    smaller = make_plan(structure, memory_limit=limit // 4)
    assert smaller.bytes() <= limit // 4
    path = f"{tmp_path}/plan.json"
    smaller.save(path)
    assert load_plan(path, structure) == smaller


def test_a_refusal_tells_what_there_is_and_what_is_needed() -> None:
    structure = pairs("abcdefgh", 40)
    plan = make_plan(structure)
    with pytest.raises(MemoryLimitError) as refused:
        make_plan(structure, memory_limit=2**20)
    assert re.match(r"The plan needs [\d.]+ \w+ and the limit is 1 MiB\.", str(refused.value))
    assert sum(f"'{name}'" in str(refused.value) for name in "abcdefgh") >= len(plan.largest_dims)
