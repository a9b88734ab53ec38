"""Rows of evidence in, and every format out, against the answer for each row alone."""

from __future__ import annotations

import csv
import json
import math
import random
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sumout.cli import main, query
from sumout.cli.tasks import TASKS

DATA = Path(__file__).parents[1] / "data"
ASIA = str(DATA / "networks" / "asia.bif")
UAI = DATA / "uai"
PAIR = "MARKOV 2 2 2  2 2 0 1 1 1  4 1 2 3 0  2 1 5"  # weights: 00 1, 01 10, 10 3, 11 0
ROWS = "smoke,dysp,either\nyes,yes,\n,,\nno,,no\n"


def sumout(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="sumout")


def output(*args: str) -> str:
    result = sumout("query", *args)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


@pytest.fixture
def pair(tmp_path: Path) -> str:
    (tmp_path / "pair.uai").write_text(PAIR)
    return str(tmp_path / "pair.uai")


@pytest.fixture
def rows(tmp_path: Path) -> str:
    (tmp_path / "rows.csv").write_text(ROWS)
    return str(tmp_path / "rows.csv")


def alone(*args: str) -> list[dict[str, Any]]:
    """The answers for the rows, each asked by itself."""
    given = [["-e", "smoke=yes", "dysp=yes"], [], ["-e", "smoke=no", "either=no"]]
    return [json.loads(output(ASIA, *each, *args, "--json")) for each in given]


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"sample"}))
def test_rows_as_json_are_the_answers_of_each_alone(task: str, rows: str) -> None:
    args = ["--task", task, *(["--query", "lung,smoke,dysp"] if task == "mmap" else [])]
    assert_close(json.loads(output(ASIA, "--csv", rows, *args, "--json")), alone(*args))


def assert_close(found: Any, expected: Any) -> None:
    """Equal but for the rounding of numbers: rows are answered together, and sums may be made in another order."""
    if isinstance(expected, float) and not isinstance(expected, bool):
        assert found == pytest.approx(expected, rel=1e-13, abs=1e-13)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_close(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    else:
        assert (type(found), found) == (type(expected), expected)


def test_rows_of_marginals_as_csv(rows: str) -> None:
    found = table(output(ASIA, "--csv", rows, "--query", "lung,smoke"))
    header = ["log_evidence", "log10_evidence", "lung=yes", "lung=no", "smoke=yes", "smoke=no"]
    assert list(found[0]) == header
    for row, expected in zip(found, alone(), strict=True):
        assert_close(float(row["log_evidence"]), expected["log_evidence"])
        for name in ("lung", "smoke"):
            for state in ("yes", "no"):
                probability = expected["marginals"][name][state]
                assert float(row[f"{name}={state}"]) == pytest.approx(probability, rel=0, abs=1e-15)


def test_rows_of_probabilities_and_assignments_as_csv(rows: str) -> None:
    for row, expected in zip(table(output(ASIA, "--csv", rows, "--task", "pr")), alone(), strict=True):
        assert_close(float(row["log10_evidence"]), expected["log10_evidence"])
    found = table(output(ASIA, "--csv", rows, "--task", "map"))
    for row, expected in zip(found, alone("--task", "map"), strict=True):
        for column in ("log_prob", "log_evidence", "log10_evidence"):
            assert_close(float(row.pop(column)), expected[column])
        assert row == expected["assignment"]


def test_the_best_assignment_of_some(tmp_path: Path) -> None:
    path = tmp_path / "pair.uai"
    path.write_text(
        "MARKOV 2 2 3  1 2 0 1  6 4 0 0 2 2 2"
    )  # 0 is best with 1 summed out in state 1, not in 0
    args = [str(path), "--task", "mmap", "--query", "0"]
    found = json.loads(output(*args, "--json"))
    assert found["assignment"] == {"0": "1"}
    assert found["log_prob"] == pytest.approx(math.log(6), rel=0, abs=1e-12)
    assert found["log_evidence"] == pytest.approx(math.log(10), rel=0, abs=1e-12)
    assert output(*args, "--uai") == "MMAP\n1 0 1\n"
    assert output(*args, "--uai", "-e", "1=0") == "MMAP\n1 0 0\n"
    assert output(*args, "--query", "1", "--uai", "-e", "1=2") == "MMAP\n2 0 1 1 2\n"
    seen = json.loads(output(*args, "-e", "0=0", "--json"))
    assert (seen["assignment"], seen["log_prob"]) == ({"0": "0"}, seen["log_evidence"])
    (tmp_path / "pair.query").write_text("1 0")
    assert output(str(path), "--task", "mmap", "--query-file", str(tmp_path / "pair.query"), "--uai") == (
        "MMAP\n1 0 1\n"
    )
    assert table(output(*args, "--format", "csv")) == [{"node": "0", "state": "1"}]
    assert ["P(assignment", "|", "evidence)", "0.6"] in [line.split() for line in output(*args).splitlines()]


def test_samples_are_of_the_posterior(pair: str) -> None:
    args = ["--task", "sample", "--samples", "2000", "--seed", "1"]
    found = json.loads(output(pair, *args, "--json"))["samples"]
    assert len(found) == 2000
    count = {(a, b): sum(each == {"0": a, "1": b} for each in found) for a in "01" for b in "01"}
    assert sum(count.values()) == 2000
    for state, weight in {("0", "0"): 1, ("0", "1"): 10, ("1", "0"): 3, ("1", "1"): 0}.items():
        expected, spread = 2000 * weight / 14, math.sqrt(2000 * weight / 14)
        assert abs(count[state] - expected) <= 5 * spread
    lines = table(output(pair, *args, "--format", "csv"))
    assert lines == found  # of one seed
    assert table(output(pair, *args, "--format", "csv", "--query", "1")) == [
        {"1": each["1"]} for each in found
    ]
    seen = json.loads(output(pair, *args, "--json", "-e", "1=0"))["samples"]
    assert {each["1"] for each in seen} == {"0"}
    assert {each["0"] for each in seen} == {"0", "1"}


def test_samples_of_rows(pair: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("0\n1\n0\n")
    lines = table(output(pair, "--csv", str(path), "--task", "sample", "--samples", "3"))
    assert [(line["0"], line["sample"]) for line in lines] == [
        (state, str(n)) for state in "10" for n in range(3)
    ]
    text = output(pair, "--task", "sample", "--samples", "3", "-e", "0=1")
    assert [line.split() for line in text.splitlines()[-4:]] == [
        ["sample", "0", "1"],
        *[[str(number), "1", "0"] for number in range(3)],
    ]


def test_samples_of_many_nodes_are_shown_in_blocks() -> None:
    args = [str(DATA / "networks" / "alarm.bif"), "--task", "sample", "--samples", "12", "--seed", "1"]
    lines = output(*args).splitlines()[3:]
    assert max(map(len, lines)) <= 200
    blocks = [block.splitlines() for block in "\n".join(lines).split("\n\n")]
    assert len(blocks) > 1
    shown: list[dict[str, str]] = [{} for _ in range(12)]
    for block in blocks:
        names = block[0].split()
        for number, line in enumerate(block[1:]):
            cells = line.split()
            assert (names[0], cells[0]) == ("sample", str(number))
            shown[number] |= dict(zip(names[1:], cells[1:], strict=True))
    assert shown == json.loads(output(*args, "--json"))["samples"]


def test_entropy(pair: str) -> None:
    def nats(*weights: float) -> float:
        return -sum(each / sum(weights) * math.log(each / sum(weights)) for each in weights)

    for args, expected in [
        ([], nats(1, 10, 3)),
        (["--query", "0"], nats(11, 3)),
        (["--query", "0", "-e", "1=0"], nats(1, 3)),
        (["--query", "1", "-e", "1=0"], 0),
        (["-e", "1=0", "0=0"], 0),
    ]:
        found = json.loads(output(pair, "--task", "entropy", *args, "--json"))
        assert found["entropy"] == pytest.approx(expected, rel=0, abs=1e-12)
    (line,) = table(output(pair, "--task", "entropy", "--format", "csv"))
    assert float(line["entropy"]) == pytest.approx(nats(1, 10, 3))
    assert f"entropy  {nats(1, 10, 3):.6f} nats" in output(pair, "--task", "entropy")


def test_one_answer_as_csv() -> None:
    found = json.loads(output(ASIA, "-e", "smoke=yes", "--json"))
    listed = [
        (name, state, probability)
        for name, states in found["marginals"].items()
        for state, probability in states.items()
    ]
    lines = table(output(ASIA, "-e", "smoke=yes", "--format", "csv"))
    assert [(line["node"], line["state"], float(line["probability"])) for line in lines] == listed
    best = json.loads(output(ASIA, "--task", "map", "--json"))["assignment"]
    lines = table(output(ASIA, "--task", "map", "--format", "csv"))
    assert {line["node"]: line["state"] for line in lines} == best
    (line,) = table(output(ASIA, "-e", "smoke=yes", "--task", "pr", "--format", "csv"))
    assert float(line["log_evidence"]) == pytest.approx(math.log(0.5), rel=0, abs=1e-12)


def test_a_row_of_probability_zero_is_one_of_the_answers(pair: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("0,1\n1,1\n1,\n")
    for task, missing in [
        ("pr", None), ("mar", "marginals"), ("map", "assignment"), ("sample", "samples"), ("entropy", "entropy"),
    ]:  # fmt: skip
        first, second = json.loads(output(pair, "--csv", str(path), "--task", task, "--json"))
        assert first == {
            "task": task,
            "possible": False,
            "log_evidence": None,
            "log10_evidence": None,
            "evidence": {"0": "1", "1": "1"},
        }
        assert second["possible"]
        assert missing is None or missing in second
    first, second = table(output(pair, "--csv", str(path)))
    assert first == {
        "log_evidence": "-inf", "log10_evidence": "-inf", "0=0": "", "0=1": "", "1=0": "", "1=1": "",
    }  # fmt: skip
    assert float(second["1=0"]) == 1
    first, _ = table(output(pair, "--csv", str(path), "--task", "map"))
    assert (first["log_prob"], first["0"]) == ("-inf", "")
    first, second = table(output(pair, "--csv", str(path), "--task", "sample"))
    assert (first["0"], first["sample"], second["0"]) == ("", "", "1")
    first, second = table(output(pair, "--csv", str(path), "--task", "entropy"))
    assert (first["entropy"], float(second["entropy"])) == ("", 0)
    assert output(pair, "--csv", str(path), "--task", "pr", "--uai").startswith("PR\n2\n-inf\n")
    result = sumout("query", pair, "--csv", str(path), "--uai")
    assert result.exit_code == 1
    assert "row 1 has probability zero" in result.stderr


def test_evidence_beside_rows_holds_in_each(tmp_path: Path, rows: str) -> None:
    found = json.loads(output(ASIA, "--csv", rows, "-e", "xray=yes", "--task", "pr", "--json"))
    assert [each["evidence"].get("xray") for each in found] == ["yes"] * 3
    result = sumout("query", ASIA, "--csv", rows, "-e", "smoke=yes")
    assert result.exit_code == 2
    assert f"{rows}:4: The evidence gives 'smoke' two states, 'yes' and 'no'" in result.stderr


@pytest.mark.parametrize("task", ["pr", "mar", "map", "mmap", "entropy", "entropy of some"])
def test_many_rows_a_few_at_a_time(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of which some are impossible, in parts of seven and all at once."""
    draw = random.Random(0)
    states = {"smoke": ["yes", "no", ""], "lung": ["yes", "no", ""], "either": ["yes", "no", "", ""]}
    lines = [",".join(draw.choice(each) for each in states.values()) for _ in range(60)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([",".join(states), *lines]) + "\n")
    some = task in ("mmap", "entropy of some")
    args = ["--task", task.split()[0], *(["--query", "tub,smoke"] if some else [])]
    whole = json.loads(output(ASIA, "--csv", str(path), *args, "--json"))
    monkeypatch.setattr(query, "_ROWS", 7)
    assert_close(json.loads(output(ASIA, "--csv", str(path), *args, "--json")), whole)
    possible = [each["possible"] for each in whole]
    assert possible == [
        not line.endswith(",yes,no") for line in lines
    ]  # a tumour, and not that or tuberculosis
    assert set(possible) == {True, False}
    number = possible.index(True, 10)
    given = [f"{name}={state}" for name, state in whole[number]["evidence"].items()]
    assert_close(whole[number], json.loads(output(ASIA, *(["-e", *given] if given else []), *args, "--json")))


def test_rows_that_say_nothing(pair: str, tmp_path: Path) -> None:
    samples = tmp_path / "pair.evid"
    samples.write_text("2\n0\n0\n")
    answers = json.loads(output(pair, "--evidence-file", str(samples), "--json"))
    assert_close(answers, [json.loads(output(pair, "--json"))] * 2)


def test_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("smoke,dysp\n")
    assert json.loads(output(ASIA, "--csv", str(path), "--json")) == []
    assert output(ASIA, "--csv", str(path), "--task", "pr") == "log_evidence,log10_evidence\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("smoke,dysp\nyes\n", "rows.csv:2: expected 2 cells, found 1"),
        ("smoke,dysp\nyes,no\nyes,maybe\n", "rows.csv:3: Unknown state 'maybe' of variable 'dysp'"),
        ("smoker\nyes\n", "rows.csv:2: Evidence for 'smoker'"),
        ("", "rows.csv:1: expected a line with the names"),
    ],
)
def test_a_bad_row_is_named_before_anything_is_answered(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    result = sumout("query", ASIA, "--csv", str(path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.parametrize("name", ["Promedus_24", "Pedigree_11", "Grids_12"])
def test_the_competitions_format(name: str) -> None:
    args = [str(UAI / f"{name}.uai"), "--evidence-file", str(UAI / f"{name}.uai.evid"), "--uai"]
    task, value = output(*args, "--task", "pr").split("\n", 1)
    assert task == "PR"
    assert float(value) == pytest.approx(float((UAI / f"{name}.uai.PR").read_text().split()[1]), rel=1e-5)
    found = output(*args, "--task", "mar").split()
    reference = (UAI / f"{name}.uai.MAR").read_text().split()
    assert found[:2] == reference[:2] == ["MAR", found[1]]
    assert len(found) == len(reference)
    assert list(map(float, found[2:])) == pytest.approx(list(map(float, reference[2:])), rel=0, abs=2e-6)


def test_the_competitions_format_of_an_assignment(pair: str, tmp_path: Path) -> None:
    assert output(pair, "--task", "map", "--uai") == "MAP\n2 0 1\n"
    samples = tmp_path / "pair.evid"
    samples.write_text("2\n1 1 0\n1 0 1\n")
    assert output(pair, "--task", "map", "--uai", "--evidence-file", str(samples)) == "MAP\n2\n2 1 0\n2 1 0\n"
    assert output(pair, "--task", "pr", "--evidence-file", str(samples)).count("\n") == 3
    answers = output(pair, "--task", "mar", "--uai", "--evidence-file", str(samples)).splitlines()
    assert answers[:2] == ["MAR", "2"]
    assert [float(each) for each in answers[2].split()] == pytest.approx([2, 2, 0.25, 0.75, 2, 1, 0])


def test_json_of_a_format_is_valid_in_a_process(rows: str) -> None:
    for args in (["--json"], ["--format", "json"]):
        assert len(json.loads(output(ASIA, "--csv", rows, *args))) == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--json", "--uai"], "Two formats were given, json and uai: give one."),
        (["--format", "csv", "--json"], "Two formats were given, csv and json"),
        (["--format", "xml"], "'xml' is not one of 'table', 'json', 'csv', 'uai'"),
        (["--query", "lung", "--uai"], "--query has no meaning here: an answer in UAI's format is about all"),
        (
            ["--query", "lung", "--task", "map"],
            "--query has no meaning here: the answer of --task map is about",
        ),
        (["--query", "lungs"], "The query names 'lungs', which is no node. Did you mean 'lung'?"),
        (["--query", "lung,,smoke"], "The query names ''"),
        (["--task", "mmap"], "--task mmap needs --query: the nodes to be assigned."),
        (["--task", "sample", "--uai"], "The competition's format has no answer of --task sample."),
        (["--task", "sample", "--samples", "0"], "0 is not in the range x>=1"),
        (["--task", "sample", "--seed", "-1"], "-1 is not in the range"),
        (["--plan", "--uai"], "A plan is printed as text or as JSON, not as uai."),
        (["--csv", "nothing.csv"], "'nothing.csv' does not exist"),
    ],
)
def test_what_does_not_go_together(args: list[str], words: str) -> None:
    result = sumout("query", ASIA, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_table_shows_one_answer(rows: str, pair: str, tmp_path: Path) -> None:
    result = sumout("query", ASIA, "--csv", rows, "--format", "table")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "give --format csv, json or uai" in result.stderr
    samples = tmp_path / "pair.evid"
    samples.write_text("2\n1 1 0\n1 0 1\n")
    pair_rows = tmp_path / "pair.csv"
    pair_rows.write_text("0\n1\n")
    result = sumout("query", pair, "--evidence-file", str(samples), "--csv", str(pair_rows))
    assert result.exit_code == 2
    assert "has 2 samples" in result.stderr
