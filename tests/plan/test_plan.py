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
from sumout.plan import ORDERS, FactorShape, Structure, clear_plan_cache, make_plan, plan_cache_info


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


def test_plates_that_are_no_tree_are_refused_by_name() -> None:
    crossed = structure(
        [("aP", "P"), ("bQ", "Q"), ("abPQ", "PQ")], {"a": 2, "b": 2, "P": 3, "Q": 2}, {"a": "P", "b": "Q"}
    )
    with pytest.raises(PlanError, match=r"\['P', 'Q'\] are not tree-shaped.*'a'.*'b'"):
        make_plan(crossed)


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
    with pytest.raises(ValueError, match="path, min_fill"):
        make_plan(chain(3, 2), orders=())
