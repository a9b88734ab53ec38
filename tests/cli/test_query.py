"""`sumout query` from the outside: arguments, output and exit codes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sumout.cli import main, query
from sumout.settings import settings

DATA = Path(__file__).parents[1] / "data"
ASIA = str(DATA / "networks" / "asia.bif")
WATER = str(DATA / "networks" / "water.bif")
PAIR = "MARKOV 2 2 2  2 2 0 1 1 1  4 1 2 3 0  2 1 5"  # weights: 00 1, 01 10, 10 3, 11 0


def sumout(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="sumout")


def asked(*args: str) -> dict[str, object]:
    result = sumout("query", *args, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.fixture
def pair(tmp_path: Path) -> str:
    path = tmp_path / "pair.uai"
    path.write_text(PAIR)
    return str(path)


def test_marginals_as_json() -> None:
    found = asked(ASIA, "--evidence", "bronc=yes", "either=no")
    answers = json.loads((DATA / "networks" / "answers.json").read_text())["asia"]
    (case,) = [case for case in answers if case["evidence"] == {"bronc": "yes", "either": "no"}]
    assert found["task"] == "mar"
    assert found["possible"] is True
    assert found["evidence"] == case["evidence"]
    assert found["log_evidence"] == pytest.approx(case["log_evidence"], rel=0, abs=1e-8)
    assert found["log10_evidence"] == pytest.approx(case["log_evidence"] / math.log(10), rel=0, abs=1e-8)
    marginals = found["marginals"]
    assert isinstance(marginals, dict)
    assert list(marginals) == ["asia", "tub", "smoke", "lung", "bronc", "either", "xray", "dysp"]
    for node, states in case["marginals"].items():
        assert marginals[node] == pytest.approx(states, rel=0, abs=1e-8)
    assert marginals["bronc"] == {"yes": 1.0, "no": 0.0}


def test_marginals_of_a_markov_network(pair: str) -> None:
    found = asked(pair)
    assert found["log_evidence"] == pytest.approx(math.log(14), rel=0, abs=1e-12)
    assert found["marginals"] == {
        "0": {"0": pytest.approx(11 / 14), "1": pytest.approx(3 / 14)},
        "1": {"0": pytest.approx(4 / 14), "1": pytest.approx(10 / 14)},
    }


def test_evidence_probability(pair: str) -> None:
    assert asked(pair, "--task", "pr", "-e", "1=0") == {
        "task": "pr",
        "possible": True,
        "log_evidence": pytest.approx(math.log(4), rel=0, abs=1e-12),
        "log10_evidence": pytest.approx(math.log10(4), rel=0, abs=1e-12),
        "evidence": {"1": "0"},
    }


def test_the_most_probable_assignment(pair: str) -> None:
    found = asked(pair, "--task", "map", "-e", "1=0")
    assert found["assignment"] == {"0": "1", "1": "0"}
    assert found["log_prob"] == pytest.approx(math.log(3), rel=0, abs=1e-12)
    assert found["log_evidence"] == pytest.approx(math.log(4), rel=0, abs=1e-12)
    assert asked(pair, "--task", "map")["assignment"] == {"0": "0", "1": "1"}


def test_everything_observed(pair: str) -> None:
    found = asked(pair, "-e", "0=1", "1=0")
    assert found["log_evidence"] == pytest.approx(math.log(3), rel=0, abs=1e-12)
    assert found["marginals"] == {"0": {"0": 0.0, "1": 1.0}, "1": {"0": 1.0, "1": 0.0}}
    assert asked(pair, "-e", "0=1", "1=0", "--task", "map")["assignment"] == {"0": "1", "1": "0"}


@pytest.mark.parametrize(
    "evidence",
    [
        ["--evidence", "bronc=yes", "--evidence", "either=no"],
        ["--evidence", "bronc=yes", "either=no"],
        ["-e", "bronc=yes", "either=no"],
        ["--evidence=bronc=yes", "either=no"],
        ["--evidence", "bronc=yes,either=no"],
        ["--evidence", "bronc = yes, either = no"],
        ["--evidence", "bronc=yes", "bronc=yes", "either=no"],
    ],
)
def test_ways_to_give_evidence(evidence: list[str]) -> None:
    for args in ([ASIA, *evidence], [*evidence, ASIA]):
        assert asked(*args, "--task", "pr")["evidence"] == {"bronc": "yes", "either": "no"}


def test_evidence_from_a_file_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    path.write_text("bronc=yes\n")
    found = asked(ASIA, "--evidence-file", str(path), "--evidence", "either=no", "--task", "pr")
    assert found["evidence"] == {"bronc": "yes", "either": "no"}
    path.write_text('{"either": 1, "bronc": "yes"}')
    assert asked(ASIA, "--evidence-file", str(path), "--task", "pr")["evidence"] == found["evidence"]


def test_digits_are_a_label_or_nothing() -> None:
    # The states of this node are called 3, 4, 5 and 6: a 0 is none of them, whatever stands first.
    assert asked(WATER, "-e", "C_NI_12_00=3", "--task", "pr")["evidence"] == {"C_NI_12_00": "3"}
    assert_one_line(sumout("query", WATER, "-e", "C_NI_12_00=0"), "'0'", "its states are 3, 4, 5, 6")
    assert_one_line(sumout("query", ASIA, "-e", "smoke=0"), "'0'", "its states are yes, no")


def test_names_that_look_like_punctuation(tmp_path: Path) -> None:
    path = tmp_path / "odd.bif"
    path.write_text(
        'network { } variable "a=b" { type discrete [ 2 ] { ">=5" "[x,y]=z" }; } '
        'probability ( "a=b" ) { table 0.25 0.75; }'
    )
    assert asked(str(path), "-e", "a=b=[x,y]=z")["evidence"] == {"a=b": "[x,y]=z"}
    result = sumout("query", str(path), "-e", "a=b=>=5")
    assert result.exit_code == 0
    assert "[x,y]=z" in result.stdout


def test_the_table_of_marginals() -> None:
    result = sumout("query", ASIA, "--evidence", "smoke=yes")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["log", "evidence", "-0.693147", "(natural),", "-0.301030", "(log10)"] in lines
    assert ["P(evidence)", "0.5"] in lines
    assert ["smoke", "yes", "1.000000", "observed"] in lines
    assert ["lung", "yes", "0.100000", "██▍"] in lines
    assert ["asia", "yes", "0.010000", "▎"] in lines


def test_the_table_of_an_assignment() -> None:
    result = sumout("query", ASIA, "--evidence", "xray=yes", "--task", "map")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["xray", "yes", "observed"] in lines
    assert ["asia", "no"] in lines
    assert any(line[:2] == ["log", "joint"] for line in lines)


def test_impossible_evidence_is_a_result_for_its_probability(pair: str) -> None:
    args = [pair, "-e", "0=1", "1=1", "--task", "pr"]
    assert asked(*args) == {
        "task": "pr",
        "possible": False,
        "log_evidence": None,
        "log10_evidence": None,
        "evidence": {"0": "1", "1": "1"},
    }
    result = sumout("query", *args)
    assert result.exit_code == 0
    assert "-inf" in result.stdout


@pytest.mark.parametrize("task", ["mar", "map"])
def test_impossible_evidence_is_an_error_for_posteriors(pair: str, task: str) -> None:
    result = sumout("query", pair, "-e", "0=1", "1=1", "--task", task)
    assert result.exit_code == 1
    assert_one_line(result, "probability zero")


def assert_one_line(result: Result, *words: str) -> None:
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("sumout: error: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["query"], ["Missing argument 'NETWORK'"]),
        (["query", "nothing.bif"], ["'nothing.bif' does not exist"]),
        (["query", str(DATA)], ["is a directory"]),
        (["query", ASIA, "--task", "mpe"], ["'mpe' is not one of 'pr', 'mar', 'map'"]),
        (["query", ASIA, "--jason"], ["No such option", "--jason"]),
        (["query", ASIA, "--evidence"], ["--evidence", "requires an argument"]),
        (["query", ASIA, "-e", "smoke"], ["'smoke' is malformed: write NAME=STATE"]),
        (["query", ASIA, "-e", "smoke="], ["'smoke=' is malformed"]),
        (["query", ASIA, "-e", "smoke=yes,"], ["'' is malformed"]),
        (["query", ASIA, "-e", "=yes"], ["'=yes' is malformed"]),
        (["query", ASIA, "-e", "smoker=yes"], ["'smoker'", "Did you mean 'smoke'?"]),
        (
            ["query", ASIA, "-e", "smoke=ye"],
            ["Unknown state 'ye' of variable 'smoke'; its states are yes, no.", "Did you mean 'yes'?"],
        ),
        (["query", ASIA, "-e", "smoke=2"], ["Unknown state '2'"]),
        (["query", ASIA, "-e", "smoke=-1"], ["Unknown state '-1'"]),
        (["query", ASIA, "-e", "smoke=yes", "smoke=no"], ["'smoke' two states, 'yes' and 'no'"]),
        (["query", ASIA, "extra"], ["unexpected extra argument"]),
        (["query", ASIA, "--evidence-file", "nothing"], ["'nothing' does not exist"]),
        (["query", __file__], [f"{__file__}:1: expected a file in BIF"]),
        (["quary"], ["No such command 'quary'"]),
        (["info", ASIA, "-e", "smoker=yes"], ["Did you mean 'smoke'?"]),
    ],
)
def test_bad_input_is_one_line(args: list[str], words: list[str]) -> None:
    result = sumout(*args)
    assert result.exit_code == 2
    assert_one_line(result, *words)


def test_a_malformed_file_is_one_line_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "cut.bif"
    path.write_text(Path(ASIA).read_text()[:500])
    result = sumout("query", str(path))
    assert result.exit_code == 2
    assert_one_line(result, f"{path}:", "expected")
    path.write_text("2 0 1")
    result = sumout("query", ASIA, "--evidence-file", str(path))
    assert result.exit_code == 2
    assert_one_line(result, f"{path}:1: expected 2 pairs")
    path.write_text("1 77 1")
    result = sumout("query", ASIA, "--evidence-file", str(path))
    assert result.exit_code == 2
    assert_one_line(result, "Evidence for '77'")


def test_too_little_memory_is_no_answer() -> None:
    with settings.override(memory_limit=100):
        result = sumout("query", ASIA)
    assert result.exit_code == 1
    assert_one_line(result, "limit")


def test_help() -> None:
    for args in ([], ["--help"], ["-h"]):
        result = sumout(*args)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "query" in result.stdout
    assert "--evidence-file" in sumout("query", "--help").stdout


def test_version() -> None:
    result = sumout("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("sumout")


def test_an_output_without_the_letters(tmp_path: Path) -> None:
    path = tmp_path / "net.bif"
    text = "network { } variable ő { type discrete [ 2 ] { a b }; } probability ( ő ) { table 0.25 0.75; }"
    path.write_text(text, encoding="utf-8")
    result = CliRunner(charset="latin-1").invoke(main, ["query", str(path)])
    assert result.exit_code == 0
    assert ["\\u0151", "a", "0.250000", "######"] in [line.split() for line in result.stdout.splitlines()]


def test_a_real_process() -> None:
    command = [sys.executable, "-m", "sumout.cli"]
    run = subprocess.run(
        [*command, "query", ASIA, "--task", "pr", "-e", "smoke=yes", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["log_evidence"] == pytest.approx(math.log(0.5), rel=0, abs=1e-12)
    run = subprocess.run([*command, "query", "nothing.bif"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1


def test_whoever_reads_may_stop(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("smoke\n" + "yes\n" * 20_000)
    command = f"{sys.executable} -m sumout.cli query {ASIA} --csv {path} | head -n 1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert run.stdout.startswith("log_evidence,")
    assert run.stderr == ""


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")]
)
def test_less_memory_than_was_thought(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(query, "run", fail)
    result = sumout("query", ASIA)
    assert result.exit_code == 1
    assert_one_line(result, "out of memory", "--memory-limit")
