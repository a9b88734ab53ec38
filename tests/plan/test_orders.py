"""The search for orders: the graphs and contractions that it works on, its bounds, and what it finds."""

from __future__ import annotations

import builtins
import importlib
import itertools
import math
import sys

import opt_einsum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sumout.errors import MissingExtraError
from sumout.plan import (
    FLOPS_ALONE,
    ORDERS,
    SEARCHES,
    FactorShape,
    Machine,
    Structure,
    clear_plan_cache,
    make_plan,
    planning,
)
from sumout.plan.contraction import along, follow
from sumout.plan.interaction import Interaction
from sumout.plan.opening import Opening
from sumout.plan.problem import Problem, bits
from sumout.plan.refine import refined


@st.composite
def problems(draw: st.DrawFn, operands: int = 7, variables: int = 6) -> Problem:
    """Random contractions that hang together in any way."""
    count = draw(st.integers(1, variables))
    sizes = tuple(draw(st.lists(st.integers(2, 5), min_size=count, max_size=count)))
    scopes = st.integers(1, 2**count - 1)
    masks = draw(st.lists(scopes, min_size=2, max_size=operands))
    keep = draw(st.sampled_from([0, draw(st.integers(0, 2**count - 1))]))
    # What one operand alone has was summed out before, if it is not kept; every variable has an operand.
    once = sum(1 << each for each in range(count) if sum(mask >> each & 1 for mask in masks) < 2) & ~keep
    masks = [mask & ~once for mask in masks]
    masks[0] |= keep | once
    masks[1] |= once
    return Problem(tuple(masks), keep, sizes)


def order_cost(graph: Interaction, order: tuple[int, ...]) -> float:
    graph = graph.copy()
    for each in order:
        graph.eliminate(each)
    return graph.total


@given(problems())
@settings(max_examples=200)
def test_an_interaction_graph_knows_its_weights_and_fills(problem: Problem) -> None:
    graph = Interaction(problem)
    while graph.left:
        for each in bits(graph.left):
            around = bits(graph.near[each])
            assert graph.weight[each] == problem.log_size(graph.near[each] | 1 << each)
            missing = sum(not graph.near[a] >> b & 1 for a, b in itertools.combinations(around, 2))
            assert graph.fill[each] == missing
        graph.eliminate(bits(graph.left)[-1])


def test_joining_many_at_once_is_joining_them_one_by_one() -> None:
    # A hub of 40 leaves that hang on 40 others: 780 new edges.
    leaves = range(1, 41)
    masks = tuple(1 | 1 << leaf for leaf in leaves) + tuple(1 << leaf | 1 << 40 + leaf for leaf in leaves)
    problem = Problem(masks, 0, (2, 3) * 40 + (2,))
    graph, twin = Interaction(problem), Interaction(problem)
    assert graph.fill[0] == 780
    changed = graph.eliminate(0)
    neighbours = bits(twin.near[0])
    for each in neighbours:
        twin.near[each] ^= 1
        twin.weight[each] -= twin.logs[0]
        twin.fill[each] = twin._missing(twin.near[each])
    twin._join(neighbours, twin.near[0])
    assert (graph.near[1:], graph.weight[1:], graph.fill[1:]) == (
        twin.near[1:],
        twin.weight[1:],
        twin.fill[1:],
    )
    assert changed.bit_count() == 80


@given(problems())
@settings(max_examples=100)
def test_safe_eliminations_do_not_make_the_largest_clique_larger(problem: Problem) -> None:
    opening = Opening(problem, FLOPS_ALONE)
    local = bits(opening.graph.left)

    def largest(graph: Interaction, order: tuple[int, ...]) -> int:
        graph = graph.copy()
        for each in order:
            graph.eliminate(each)
        return graph.largest

    free = min(largest(opening.graph, order) for order in itertools.permutations(local))
    rest = bits(opening.reduced.graph.left)
    safe = min(largest(opening.reduced.graph, order) for order in itertools.permutations(rest))
    assert safe == free


@given(problems(), st.data())
@settings(max_examples=200)
def test_a_contraction_counts_what_it_costs(problem: Problem, data: st.DataObject) -> None:
    local = [each for each in range(len(problem.sizes)) if not problem.keep >> each & 1]
    contraction = follow(problem, data.draw(st.permutations(local)))
    scopes, live = list(problem.operands), set(range(len(problem.operands)))
    flops = entries = 0
    rounds = [0] * len(scopes)
    launches = set()

    def size(mask: int) -> int:
        return math.prod(problem.sizes[each] for each in bits(mask))

    for lhs, rhs in contraction.pairs:
        live -= {lhs, rhs}
        left, right = scopes[lhs], scopes[rhs]
        others = 0
        for each in live:
            others |= scopes[each]
        result = (left | right) & (others | problem.keep)
        flops += size(left | right)
        entries += size(left) + size(right) + size(result)
        rounds.append(1 + max(rounds[lhs], rounds[rhs]))
        parts = sorted([size(left & ~right), size(right & ~left)], reverse=True)
        launches.add((rounds[-1], size(left & right & result), *parts, size(left & right & ~result)))
        live.add(len(scopes))
        scopes.append(result)
    assert live == {len(scopes) - 1}
    assert scopes[-1] == problem.keep & _union(problem.operands)
    assert (contraction.flops, contraction.entries, contraction.launches) == (flops, entries, launches)
    assert contraction.made == scopes[len(problem.operands) :]
    assert along(problem, contraction.pairs).pairs == contraction.pairs


def _union(masks: tuple[int, ...]) -> int:
    union = 0
    for each in masks:
        union |= each
    return union


@given(problems(operands=6))
@settings(max_examples=150)
def test_a_refined_path_is_the_best_of_all_where_it_is_looked_at_whole(problem: Problem) -> None:
    contraction = follow(problem, bits(((1 << len(problem.sizes)) - 1) & ~problem.keep))
    better = refined(contraction, leaves=6)
    assert better.flops <= contraction.flops
    symbols = [frozenset(map(opt_einsum.get_symbol, bits(mask))) for mask in problem.operands]
    output = frozenset(map(opt_einsum.get_symbol, bits(problem.keep & _union(problem.operands))))
    sizes = {opt_einsum.get_symbol(each): size for each, size in enumerate(problem.sizes)}
    path = opt_einsum.paths.optimal(symbols, output, sizes)
    pairs = opt_einsum.paths.linear_to_ssa(path)
    assert better.flops <= along(problem, [tuple(pair) for pair in pairs]).flops * (1 + 1e-9)


def grid(side: int, states: int = 2) -> Structure:
    names = {(row, column): f"x{row}_{column}" for row in range(side) for column in range(side)}
    pairs = [
        FactorShape((name, names[other]))
        for (row, column), name in names.items()
        for other in ((row + 1, column), (row, column + 1))
        if other in names
    ]
    return Structure(
        tuple(pairs),
        tuple((name, states) for name in names.values()),
        tuple((n, frozenset()) for n in names.values()),
    )


def many_chains(chains: int, steps: int, states: int) -> Structure:
    """A factorial chain: every step joins the chains' variables at one time."""
    names = [[f"x{chain}_{t}" for t in range(steps)] for chain in range(chains)]
    factors = [FactorShape(pair) for chain in names for pair in itertools.pairwise(chain)]
    factors += [FactorShape(tuple(chain[t] for chain in names)) for t in range(steps)]
    flat = list(itertools.chain(*names))
    return Structure(tuple(factors), tuple((n, states) for n in flat), tuple((n, frozenset()) for n in flat))


def test_a_factorial_chain_is_scanned_in_logarithmically_many_groups() -> None:
    for steps in (64, 256):
        plan = make_plan(many_chains(3, steps, 2))
        assert plan.cost.launches <= 6 * math.log2(steps)
    assert make_plan(many_chains(3, 256, 2), orders=("min_fill",)).cost.launches >= 256


def test_where_launches_cost_nothing_no_flops_are_spent_on_them() -> None:
    chain = many_chains(1, 200, 10)
    assert make_plan(chain, machine=FLOPS_ALONE).flops < make_plan(chain, orders=("balanced",)).flops / 4


def test_width_of_a_grid() -> None:
    for side in (4, 6, 8):
        assert make_plan(grid(side), machine=FLOPS_ALONE).width <= side + 1


def test_the_plan_chosen_is_the_cheapest_considered() -> None:
    plan = make_plan(grid(7))
    cheapest = min(plan.considered, key=lambda each: each.seconds)
    assert plan.order == cheapest.order
    assert len({each.order for each in plan.considered}) == len(plan.considered) >= 2


def test_a_time_limited_search_finds_something_better() -> None:
    structure = grid(10, 3)
    quick = make_plan(structure, machine=FLOPS_ALONE)
    thorough = make_plan(structure, machine=FLOPS_ALONE, time_limit=0.5)
    assert thorough.flops < quick.flops
    assert "random" in [each.order for each in thorough.considered]


def test_plans_that_run_for_long_are_worth_more_tries_always_the_same() -> None:
    slow = Machine(1e6, 1e6, 1e-6)
    found = []
    for _ in range(2):
        clear_plan_cache()
        found.append(make_plan(grid(9, 3), machine=slow))
    assert found[0] == found[1]
    assert "random" in [each.order for each in found[0].considered]
    # Neither what is quick to run, nor who asks for one heuristic, is searched for.
    assert "random" not in [each.order for each in make_plan(grid(4), machine=Machine()).considered]
    one = make_plan(grid(9, 3), orders=("min_fill",), machine=slow)
    assert {each.order.split(",")[0] for each in one.considered} == {"min_fill"}


def test_searches_by_name() -> None:
    structure = grid(3)
    for name in SEARCHES:
        if name != "cotengra":
            plan = make_plan(structure, orders=(name,), time_limit=0.05)
            assert plan.considered[0].order == name
    best = make_plan(structure, orders=("dp",), machine=FLOPS_ALONE)
    assert best.flops <= make_plan(structure, machine=FLOPS_ALONE).flops


def test_exhaustive_searches_leave_large_problems_to_greedy_ones() -> None:
    plan = make_plan(grid(6), orders=("dp", "branch"))
    assert plan.flops == make_plan(grid(6), orders=("greedy",)).flops


@pytest.mark.skipif(not importlib.util.find_spec("cotengra"), reason="the extra 'search' is not installed")
def test_cotengra() -> None:
    structure = many_chains(2, 6, 3)
    structure = structure._replace(
        factors=(*structure.factors, FactorShape(("x0_0",))), sizes=(*structure.sizes[:-1], ("x1_5", 1))
    )
    plan = make_plan(structure, orders=("cotengra",), time_limit=0.2, machine=FLOPS_ALONE)
    assert plan.considered[0].order == "cotengra"
    assert plan.flops <= 2 * make_plan(structure, machine=FLOPS_ALONE).flops


@pytest.mark.skipif(not importlib.util.find_spec("cotengra"), reason="the extra 'search' is not installed")
def test_cotengra_that_has_no_time_for_a_trial_leaves_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoTrial:
        def __init__(self, **_: object) -> None:
            self.best: dict[str, object] = {}

        def search(self, *_: object) -> object:
            return self.best["tree"]

    monkeypatch.setattr(importlib.import_module("cotengra"), "HyperOptimizer", NoTrial)
    assert make_plan(grid(3), orders=("cotengra",), time_limit=0.01).order == "greedy"


def test_without_cotengra_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cotengra", None)
    with pytest.raises(MissingExtraError, match=r"'cotengra'.*sumout\[search\]"):
        make_plan(grid(3), orders=("cotengra",))


def test_a_problem_is_searched_once_for_all_that_differ_by_names_alone() -> None:
    copies = [grid(4)] * 5
    structure = Structure(
        tuple(
            FactorShape(tuple(f"{name}/{copy}" for name in factor.inputs))
            for copy, each in enumerate(copies)
            for factor in each.factors
        ),
        tuple((f"{name}/{copy}", size) for copy, each in enumerate(copies) for name, size in each.sizes),
        tuple((f"{name}/{copy}", home) for copy, each in enumerate(copies) for name, home in each.variables),
    )
    plan = make_plan(structure)
    assert (plan.simplified.contractions, plan.simplified.distinct, len(plan.paths)) == (5, 1, 1)
    one = make_plan(grid(4), orders=("greedy",))
    assert make_plan(structure, orders=("greedy",)).cost.launches == one.cost.launches


def test_components_that_differ_may_have_different_orders() -> None:
    chain, square = many_chains(1, 400, 2), grid(6, 8)
    both = Structure(
        chain.factors + tuple(FactorShape(tuple(f"g{n}" for n in f.inputs)) for f in square.factors),
        chain.sizes + tuple((f"g{name}", size) for name, size in square.sizes),
        chain.variables + tuple((f"g{name}", home) for name, home in square.variables),
    )
    # The chain in batches and the grid one by one: either alone is many launches, or many flops.
    plan = make_plan(both)
    assert plan.cost.launches < 60
    assert plan.flops < 1.2 * make_plan(square, orders=("greedy",)).flops


def test_sizes_that_no_float_holds_are_planned_and_refused() -> None:
    # Every two of 40 variables of a million states meet: 1e240 entries, whose square is no float.
    names = [f"x{number}" for number in range(60)]
    structure = Structure(
        tuple(FactorShape(pair) for pair in itertools.combinations(names, 2)),
        tuple((name, 10**6) for name in names),
        tuple((name, frozenset()) for name in names),
    )
    plan = make_plan(structure)
    assert plan.largest >= 10 ** (6 * 50)
    with pytest.raises(MemoryError, match="induced width"):
        plan.check_memory(2**40)


def test_planning_changes_how_plans_are_made_and_puts_it_back() -> None:
    default = make_plan(grid(5))
    with planning(orders=("min_degree",), machine=FLOPS_ALONE):
        assert make_plan(grid(5)).considered[0].order == "min_degree"
        with planning(time_limit=0.02):
            assert make_plan(grid(5)).considered[-1].order == "random"
        assert make_plan(grid(5), orders=("min_fill",)).considered[0].order == "min_fill"
    assert make_plan(grid(5)) is default
    with pytest.raises(builtins.ZeroDivisionError), planning(orders=("min_fill",)):
        _ = 1 / 0
    assert make_plan(grid(5)) is default


def test_bad_ways_of_planning_are_refused() -> None:
    for bad in ({"orders": ()}, {"orders": ("nosuch",)}, {"time_limit": -1.0}, {"time_limit": math.nan}):
        with pytest.raises(ValueError, match="heuristic|time_limit"):
            make_plan(grid(3), **bad)  # type: ignore[arg-type]


def test_machines_weigh_costs() -> None:
    slow_launches = make_plan(many_chains(1, 100, 12), machine=Machine(seconds_per_launch=1.0))
    slow_flops = make_plan(many_chains(1, 100, 12), machine=Machine(flops_per_second=1e3))
    assert slow_launches.cost.launches < slow_flops.cost.launches / 2
    assert slow_flops.flops < slow_launches.flops / 2


def test_every_heuristic_is_listed_in_one_table() -> None:
    assert not set(ORDERS) & set(SEARCHES)
