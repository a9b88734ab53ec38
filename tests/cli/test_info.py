"""`sumout info`: sizes and costs, without running anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sumout.cli import main

DATA = Path(__file__).parents[1] / "data"


def info(*args: str) -> str:
    result = CliRunner().invoke(main, ["info", *args])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_a_bayesian_network() -> None:
    found = json.loads(info(str(DATA / "networks" / "alarm.bif"), "--json"))
    assert found["kind"] == "Bayesian network"
    assert found["nodes"] == found["factors"]["count"] == 37
    assert found["observed"] == 0
    assert (found["states"]["fewest"], found["states"]["most"]) == (2, 4)
    assert (found["factors"]["entries"], found["factors"]["largest"]) == (752, 108)
    assert found["treewidth_bound"] == 4  # known to be the treewidth of ALARM's moral graph
    assert found["plan"]["largest"] >= 108
    assert found["plan"]["flops"] > 0
    assert found["plan"]["bytes"] > 0
    assert (found["plan"]["slices"], found["plan"]["sliced_variables"], found["plan"]["fits"]) == (
        1,
        [],
        True,
    )


@pytest.mark.parametrize(("name", "treewidth"), [("DBN_11", 20), ("relational_3", 7)])
def test_the_treewidth_bound_is_a_bound(name: str, treewidth: int) -> None:
    # A lower bound of the treewidth, by contracting vertices of least degree.
    assert json.loads(info(str(DATA / "uai" / f"{name}.uai"), "--json"))["treewidth_bound"] >= treewidth


def test_evidence_makes_it_smaller() -> None:
    path = str(DATA / "networks" / "alarm.bif")
    found = json.loads(info(path, "--json", "--evidence", "CATECHOL=HIGH", "LVEDVOLUME=LOW"))
    assert found["observed"] == 2
    assert found["treewidth_bound"] < 4


def test_the_text() -> None:
    text = info(str(DATA / "networks" / "alarm.bif"))
    lines = {line[:20].strip(): line[20:].strip() for line in text.splitlines()[1:]}
    assert text.splitlines()[0] == "alarm.bif"
    assert lines["nodes"] == "37 (0 observed)"
    assert lines["treewidth bound"] == "4"
    for name in ("kind", "factors", "plan", "flops", "largest table", "memory"):
        assert lines[name]


def test_nothing_is_run_for_a_plan_that_is_too_large(tmp_path: Path) -> None:
    # A complete graph over 60 binary variables: its only plan has a table of 2^60 entries.
    pairs = [(a, b) for a in range(60) for b in range(a)]
    path = tmp_path / "complete.uai"
    scopes = "".join(f"2 {a} {b} " for a, b in pairs)
    path.write_text(f"MARKOV 60 {'2 ' * 60} {len(pairs)} {scopes} {'4 1 2 3 4 ' * len(pairs)}")
    assert "MORE THAN THE LIMIT" in info(str(path))
    result = CliRunner().invoke(main, ["query", str(path)])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "limit" in line
