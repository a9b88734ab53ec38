"""Plans in files: read back as they were, checked against what they are for, and refused where damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import factor_graphs
from sumout.errors import PlanError
from sumout.factors import FactorGraph
from sumout.plan import ORDERS, FactorShape, Structure, load_plan, make_plan
from sumout.plan.saved import from_json, to_json

CROSSED = Structure(
    (FactorShape(("a", "b", "P", "Q"), frozenset("PQ")),),
    (("a", 2), ("b", 2), ("P", 3), ("Q", 2)),
    (("a", frozenset("P")), ("b", frozenset("Q"))),
    (("P", 1.0), ("Q", 1.0)),
)
SQUARE = Structure(
    tuple(FactorShape(tuple(pair)) for pair in ("ab", "bc", "cd", "da", "ac")),
    tuple((name, 20) for name in "abcd"),
    tuple((name, frozenset()) for name in "abcd"),
)


@given(factor_graphs(scales=True), st.sampled_from(list(ORDERS)), st.data())
@settings(max_examples=100)
def test_a_plan_comes_back_as_it_was(graph: FactorGraph, order: str, data: st.DataObject) -> None:
    names = sorted(graph.variables)
    wanted = tuple(data.draw(st.lists(st.sampled_from(names), unique=True))) if names else ()
    plan = make_plan(graph.structure, wanted, (order,))
    saved = from_json(to_json(plan), "here")
    assert saved.asked == graph.structure
    assert saved.paths == plan.paths


def round_trip(plan: Any, folder: Path, structure: Structure | None = None) -> Any:
    plan.save(folder / "plan.json")
    return load_plan(folder / "plan.json", structure)


def test_a_loaded_plan_is_the_plan(tmp_path: Path) -> None:
    limit = make_plan(SQUARE).bytes() // 6
    plans = [
        make_plan(SQUARE, ("a", ("b", "c"))),
        make_plan(SQUARE, maximised=("c",)),
        make_plan(SQUARE, memory_limit=limit),
        make_plan(SQUARE, time_limit=0.05),
        make_plan(CROSSED, ("a", "b"), unroll=True),
    ]
    assert plans[2].sliced
    assert plans[4].unrolled
    for plan in plans:
        again = round_trip(plan, tmp_path, plan.asked)
        assert again == plan
        assert hash(again) == hash(plan)
        assert again.schedule == plan.schedule
        assert again.elimination == plan.elimination
        assert str(again) == str(plan)
        assert again.explain() == plan.explain()


def test_plans_of_other_paths_are_not_equal() -> None:
    one = make_plan(SQUARE, orders=("min_fill",))
    assert one != make_plan(SQUARE, orders=("balanced",))
    assert one == make_plan(SQUARE, orders=("min_fill",))


def test_a_plan_for_another_structure_is_refused_with_the_difference(tmp_path: Path) -> None:
    other = SQUARE._replace(sizes=(*SQUARE.sizes[:-1], ("d", 3)))
    with pytest.raises(PlanError, match=r"made for another structure: its sizes differ.*make_plan"):
        round_trip(make_plan(SQUARE), tmp_path, other)


def test_what_is_no_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    for text in ("", "[]", "{}", '{"format": "other"}', "not json"):
        path.write_text(text)
        with pytest.raises(PlanError, match=r"plan.json is no plan"):
            load_plan(path)


def test_a_file_that_is_not_even_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match=r"plan.json"):
        load_plan(path)
    path.write_text("[" * 100_000)
    with pytest.raises(PlanError, match=r"plan.json"):
        load_plan(path)
    content = json.loads(to_json(make_plan(SQUARE)))
    content["considered"] = [["greedy"]]
    path.write_text(json.dumps(content))
    with pytest.raises(PlanError, match=r"damaged plan"):
        load_plan(path)


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(to_json(make_plan(SQUARE)).replace('"version":1', '"version":99'))
    with pytest.raises(PlanError, match=r"version 99, and this library reads version 1"):
        load_plan(path)


@pytest.mark.parametrize("pair", [[0, 0], [0, 1], [0, 99], [-1, 0], [0], [0, 1, 2], "ab", [0.5, 1]])
def test_a_path_that_is_none_is_refused(tmp_path: Path, pair: Any) -> None:
    content = json.loads(to_json(make_plan(SQUARE)))
    content["paths"][0][1] = content["paths"][0][0] if pair == [0, 1] else pair
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(content))
    with pytest.raises(PlanError, match=r"damaged plan"):
        load_plan(path)


@given(st.data())
@settings(max_examples=150)
def test_a_damaged_file_is_an_error_or_the_same_plan(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    plan = make_plan(CROSSED, ("a",), unroll=True)
    content = json.loads(to_json(plan))
    key = data.draw(st.sampled_from(sorted(set(content) - {"considered", "machine", "order", "safe"})))
    content[key] = data.draw(
        st.none()
        | st.integers()
        | st.text(max_size=3)
        | st.lists(st.integers(0, 3) | st.text(max_size=2), max_size=3)
    )
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    path.write_text(json.dumps(content))
    try:
        found = load_plan(path, CROSSED)
    except PlanError:
        return
    # What is left in order is a plan of the same graph: other readouts, or steps one by one.
    assert found.asked == plan.asked
    assert found.paths == plan.paths
