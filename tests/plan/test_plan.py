"""Plans: made without tensors, cached by structure, refused before they cost anything."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sumout.errors import MemoryLimitError, PlanError
from sumout.plan import (
    ORDERS,
    FactorShape,
    Structure,
    clear_plan_cache,
    keep_plan,
    make_plan,
    plan_cache_info,
)
from sumout.plan.outline import StuckError, outline


def structure(
    factors: list[tuple[str, str]],
    sizes: dict[str, int],
    ordinals: dict[str, str] | None = None,
    scales: dict[int, float] | None = None,
) -> Structure:
    """Factors are pairs (inputs, plates) of one-letter names; capital letters are plates."""
    ordinals = ordinals or {}
    return Structure(
        tuple(
            FactorShape(tuple(inputs), frozenset(plates), (scales or {}).get(number, 1.0))
            for number, (inputs, plates) in enumerate(factors)
        ),
        tuple(sizes.items()),
        tuple((name, frozenset(ordinals.get(name, ""))) for name in sizes if name.islower()),
        tuple((name, 1.0) for name in sizes if name.isupper()),
    )


def chain(length: int, states: int) -> Structure:
    names = [f"x{t}" for t in range(length)]
    return Structure(
        tuple(FactorShape(pair) for pair in itertools.pairwise(names)),
        tuple((name, states) for name in names),
        tuple((name, frozenset()) for name in names),
    )


def test_plan_imports_no_tensor_library() -> None:
    # The package's __init__ re-exports everything, so a bare namespace stands in for it.
    code = (
        "import sys, types, importlib.util, pathlib;"
        "package = types.ModuleType('sumout');"
        "package.__path__ = [str(pathlib.Path(sys.argv[1]))];"
        "sys.modules['sumout'] = package;"
        "import sumout.plan;"
        "print(sorted({'torch', 'funsor', 'pyro'} & set(sys.modules)))"
    )
    import sumout

    run = subprocess.run(
        [sys.executable, "-c", code, sumout.__path__[0]], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_the_same_structure_is_planned_once() -> None:
    clear_plan_cache()
    first = make_plan(chain(6, 3))
    assert (plan_cache_info().hits, plan_cache_info().misses) == (0, 1)
    assert make_plan(chain(6, 3)) is first
    assert (plan_cache_info().hits, plan_cache_info().misses) == (1, 1)
    make_plan(chain(7, 3))
    make_plan(chain(6, 3), ("x0",))
    assert plan_cache_info().misses == 3


def test_a_plan_is_a_value() -> None:
    plan = make_plan(chain(5, 2))
    assert hash(plan) == hash(make_plan(chain(5, 2)))
    with pytest.raises(AttributeError):
        plan.order = "other"  # type: ignore[misc]
    text = str(plan)
    assert "width" in text
    assert "flops" in text
    assert "largest table" in text
    assert len(text.splitlines()) == 2 + plan.cost.launches


def test_a_chain_has_width_one_and_a_cycle_two() -> None:
    assert make_plan(chain(9, 4), orders=("min_fill",)).width == 1
    cycle = structure([("ab", ""), ("bc", ""), ("cd", ""), ("da", "")], dict.fromkeys("abcd", 2))
    for order in ORDERS:
        assert make_plan(cycle, orders=(order,)).width == 2


def test_a_balanced_chain_runs_in_logarithmically_many_groups() -> None:
    for length in (17, 65, 257):
        plan = make_plan(chain(length, 2), orders=("balanced",))
        assert plan.cost.launches <= 4 * math.log2(length)
        sequential = make_plan(chain(length, 2), orders=("min_fill",))
        assert sequential.cost.launches >= length / 2 - 2


@given(st.integers(2, 40), st.integers(2, 5), st.sampled_from(list(ORDERS)))
@settings(max_examples=60)
def test_every_row_is_read_once_and_every_variable_goes_once(length: int, states: int, order: str) -> None:
    plan = make_plan(chain(length, states), orders=(order,))
    gone = [name for step in plan.steps for name in step.over]
    assert sorted(gone) == sorted(f"x{t}" for t in range(length))
    reads = [
        (rows.group, number)
        for group in plan.schedule.groups
        for side in group.operands
        for rows in side
        for number in rows.numbers
    ]
    reads += [(rows.group, number) for rows in plan.schedule.totals for number in rows.numbers]
    expected = [(None, number) for number in range(length - 1)]
    expected += [
        (place, row) for place, group in enumerate(plan.schedule.groups) for row in range(group.rows)
    ]
    assert sorted(reads, key=str) == sorted(expected, key=str)


def test_local_variables_are_summed_inside_their_plate() -> None:
    mixture = structure([("z", "P"), ("zP", "P")], {"z": 3, "P": 1000}, {"z": "P"})
    plan = make_plan(mixture)
    assert plan.largest == 3000
    assert plan.flops < 10_000


def test_plates_that_are_no_tree_are_told_by_name() -> None:
    crossed = structure(
        [("aP", "P"), ("bQ", "Q"), ("abPQ", "PQ")], {"a": 2, "b": 2, "P": 3, "Q": 2}, {"a": "P", "b": "Q"}
    )
    for refuse in (outline, make_plan):
        with pytest.raises(StuckError, match=r"\['P', 'Q'\] are not tree-shaped.*'a'.*'b'.*for i in plate"):
            refuse(crossed)
    plan = make_plan(crossed, unroll=True)
    assert plan.unrolled == ("Q",)
    assert plan.asked == crossed
    assert dict(plan.structure.variables) == {
        "a": frozenset("P"),
        "b[Q=0]": frozenset(),
        "b[Q=1]": frozenset(),
    }


def test_three_crossed_plates_need_two_to_be_written_out() -> None:
    around = structure(
        [("abPQ", "PQ"), ("bcQR", "QR"), ("acPR", "PR")],
        {"a": 2, "b": 2, "c": 2, "P": 9, "Q": 2, "R": 3},
        {"a": "P", "b": "Q", "c": "R"},
    )
    assert make_plan(around, unroll=True).unrolled == ("Q", "R")


def test_nested_plates_stay_inside_what_is_written_out() -> None:
    nested = structure(
        [("abPQ", "PQ"), ("bzQN", "QN")],
        {"a": 2, "b": 2, "z": 3, "P": 9, "Q": 2, "N": 50},
        {"a": "P", "b": "Q", "z": "QN"},
    )
    plan = make_plan(nested, ("z", "b"), unroll=True)
    assert plan.unrolled == ("Q",)
    assert dict(plan.structure.variables)["z[Q=1]"] == frozenset("N")
    assert [name for name, _ in plan.readouts] == ["z[Q=0]", "z[Q=1]", "b[Q=0]", "b[Q=1]"]


def test_names_of_copies_do_not_collide() -> None:
    taken = structure([("abPQ", "PQ")], {"a": 2, "b": 2, "P": 9, "Q": 2}, {"a": "P", "b": "Q"})
    taken = taken._replace(
        sizes=(*taken.sizes, ("b[Q=0]", 2)), variables=(*taken.variables, ("b[Q=0]", frozenset()))
    )
    assert [name for name, _ in make_plan(taken, unroll=True).structure.variables if name[0] == "b"] == [
        "b[Q=0]'",
        "b[Q=1]",
        "b[Q=0]",
    ]


def test_too_many_copies_are_refused_with_their_number() -> None:
    vast = structure([("abPQ", "PQ")], {"a": 2, "b": 2, "P": 10**6, "Q": 10**6}, {"a": "P", "b": "Q"})
    with pytest.raises(
        MemoryLimitError, match=r"\['P', 'Q'\] are not tree-shaped.*'P', makes 2,000,001 copies"
    ):
        make_plan(vast, unroll=True)


def test_slices_are_those_that_make_the_least_work() -> None:
    # Of a clique with one small and four large variables, the small one does not help enough.
    sizes = {"a": 2, **dict.fromkeys("bcde", 30)}
    clique = structure([(a + b, "") for a, b in itertools.combinations(sizes, 2)], sizes)
    whole = make_plan(clique)
    assert whole.sliced == ()
    plan = make_plan(clique, memory_limit=whole.bytes() * 2 // 5)
    assert plan.bytes() <= whole.bytes() * 2 // 5
    assert plan.slices == math.prod(size for _, size in plan.sliced) == 30
    assert plan.flops <= 2 * whole.flops
    assert plan.structure == clique.without([name for name, _ in plan.sliced])
    assert make_plan(clique, memory_limit=whole.bytes() * 2 // 5) is plan


def test_only_maximised_variables_are_fixed_where_a_sum_comes_first() -> None:
    clique = structure([(a + b, "") for a, b in itertools.combinations("abcd", 2)], dict.fromkeys("abcd", 20))
    limit = make_plan(clique, maximised=("c", "d")).bytes() // 10
    plan = make_plan(clique, maximised=("c", "d"), memory_limit=limit)
    assert plan.sliced
    assert {name for name, _ in plan.sliced} <= {"c", "d"}


def test_a_plan_is_kept_for_all_who_ask() -> None:
    clear_plan_cache()
    mine = make_plan(chain(12, 3), orders=("min_degree",))
    assert make_plan(chain(12, 3)) is not mine
    keep_plan(mine)
    assert make_plan(chain(12, 3)) is mine
    assert make_plan(chain(12, 3), ("x0",)) is not mine
    assert make_plan(chain(12, 3), orders=("min_fill",)) is not mine
    clear_plan_cache()
    assert make_plan(chain(12, 3)) is not mine


def test_different_scales_around_one_variable_are_refused_by_name() -> None:
    with pytest.raises(PlanError, match=r"'z' have different scales \[0.5, 2.0\]"):
        make_plan(structure([("z", ""), ("z", "")], {"z": 2}, scales={0: 2.0, 1: 0.5}))


def test_a_plan_over_the_memory_limit_names_its_variables() -> None:
    clique = structure(
        [(a + b, "") for a in "abcdefgh" for b in "abcdefgh" if a < b], dict.fromkeys("abcdefgh", 40)
    )
    plan = make_plan(clique)
    with pytest.raises(MemoryLimitError, match=r"GiB and the limit is 1 GiB.*memory_limit") as refused:
        plan.check_memory(2**30)
    assert sum(f"'{name}'" in str(refused.value) for name in "abcdefgh") == len(plan.largest_dims)
    plan.check_memory(2**80)


def test_backward_needs_more_memory_than_forward() -> None:
    plan = make_plan(chain(20, 8))
    assert plan.bytes(8, backward=True) > plan.bytes(8) == 2 * plan.bytes(4)


def test_no_heuristic_is_an_error() -> None:
    with pytest.raises(ValueError, match="there are greedy, .*min_fill"):
        make_plan(chain(3, 2), orders=())
