"""How a query is planned, limited and asked, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import sumout.cli
from sumout.cli import main
from sumout.cli.parameters import Seconds, Size
from sumout.plan import ORDERS

DATA = Path(__file__).parents[1] / "data"
ALARM = str(DATA / "networks" / "alarm.bif")
ASIA = str(DATA / "networks" / "asia.bif")


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="sumout")


def output(*args: str) -> str:
    result = run(*args)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def answer(*args: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(output("query", ALARM, "-e", "HRBP=HIGH", *args, "--json"))
    return found


@pytest.mark.parametrize("order", ORDERS)
def test_every_heuristic_gives_the_same_answer(order: str) -> None:
    assert answer("--optimizer", order)["marginals"] == {
        name: pytest.approx(states, rel=0, abs=1e-12)
        for name, states in answer()["marginals"].items()  # type: ignore[attr-defined]
    }
    assert json.loads(output("info", ALARM, "--optimizer", order, "--json"))["plan"]["order"] == order


@pytest.mark.parametrize("limit", ["0", "1ms", "2s", "1min"])
def test_a_time_limit_leaves_a_plan(limit: str) -> None:
    found = answer("--time-limit", limit, "--task", "pr")
    assert found["log_evidence"] == pytest.approx(answer("--task", "pr")["log_evidence"], rel=0, abs=1e-12)
    found = json.loads(output("info", ALARM, "--time-limit", limit, "--json"))
    assert found["plan"]["order"] in ORDERS
    if limit == "0":
        assert found["plan"]["order"] == next(iter(ORDERS))


def test_the_plan_is_printed_and_nothing_run() -> None:
    text = output("query", ALARM, "--plan", "--optimizer", "min_fill", "--memory-limit", "9KiB")
    assert text.startswith("plan by min_fill: ")
    assert len(text.splitlines()) > 10
    assert run("query", ALARM, "--memory-limit", "9KiB").exit_code == 1  # as it would need more


def test_the_plan_as_json_is_that_of_the_question() -> None:
    wide = json.loads(output("query", ALARM, "--plan", "--json"))
    narrow = json.loads(output("query", ALARM, "--plan", "--json", "--task", "pr"))
    assert wide["nodes"] == narrow["nodes"] == 37
    assert narrow["plan"]["flops"] <= wide["plan"]["flops"]
    assert wide["plan"] == json.loads(output("info", ALARM, "--json"))["plan"]


def test_the_limit_is_the_one_that_was_given() -> None:
    result = run("query", ALARM, "--memory-limit", "9KiB")
    assert result.exit_code == 1
    assert "the limit is 9 KiB" in result.stderr
    result = run("query", ALARM, "--memory-limit", "1KiB")  # the network's own tables are more
    assert result.exit_code == 1
    assert "more than the memory limit allows" in result.stderr
    assert json.loads(output("info", ALARM, "--memory-limit", "2GiB", "--json"))["memory_limit"] == 2**31


def test_single_precision() -> None:
    double, single = answer("--query", "CVP"), answer("--query", "CVP", "--dtype", "float32")
    assert single != double
    assert single["marginals"] == {
        "CVP": pytest.approx(double["marginals"]["CVP"], rel=0, abs=1e-5)  # type: ignore[index]
    }


def test_the_nodes_that_are_asked_for(tmp_path: Path) -> None:
    everything = answer()["marginals"]
    path = tmp_path / "asked"
    path.write_text("CVP\nHRBP\n")
    for args in (
        ["--query", "CVP", "--query", "HRBP"],
        ["--query", "CVP,HRBP"],
        ["--query", "CVP, HRBP", "--query", "CVP"],
        ["--query-file", str(path)],
        ["--query", "CVP", "--query-file", str(path)],
    ):
        found = answer(*args)["marginals"]
        assert list(found) == ["CVP", "HRBP"]  # type: ignore[call-overload]
        for name in ("CVP", "HRBP"):
            assert found[name] == pytest.approx(everything[name], rel=0, abs=1e-14)  # type: ignore[index]


def test_a_query_file_of_the_competition(tmp_path: Path) -> None:
    path = tmp_path / "pair.uai"
    path.write_text("MARKOV 2 2 2  2 2 0 1 1 1  4 1 2 3 0  2 1 5")
    (tmp_path / "pair.query").write_text("1 1\n")
    found = json.loads(output("query", str(path), "--query-file", str(tmp_path / "pair.query"), "--json"))
    assert list(found["marginals"]) == ["1"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1b", 1), ("500MB", 500 * 10**6), ("4GiB", 2**32), ("4 gib", 2**32), ("1.5g", 1_500_000_000)],
)
def test_sizes(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "x", "1x", "1e9", "1 2", "inf", "nan", "1GiBB", "i", "9" * 30, "٣"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size of memory"):
        Size().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("10", 10), ("0.5s", 0.5), ("200ms", 0.2), ("2min", 120), ("1 h", 3600)]
)
def test_times(text: str, seconds: float) -> None:
    assert Seconds().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1", "x", "1x", "1e9", "1 2", "inf", "nan", "9" * 30, "٣"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time"):
        Seconds().convert(text, None, None)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--optimizer", "min_file"], "'min_file' is not one of "),
        (["--memory-limit", "lots"], "'lots' is no size of memory: write for example 500MB"),
        (["--time-limit", "soon"], "'soon' is no time: write for example 10"),
        (["--dtype", "float16"], "'float16' is not one of 'float32', 'float64'"),
        (["--device", "meta"], "'meta' is no device: write cpu, cuda, or cuda:1."),
        (["--device", "cuda:99"], "The device 'cuda:99' cannot be used here"),
    ],
)
def test_options_that_are_wrong(args: list[str], words: str) -> None:
    result = run("query", ASIA, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("suffix", "start"), [(".xml", "<?xml"), (".uai", "BAYES"), (".bif", "network"), (".txt", "BAYES")]
)
def test_the_command_reads_what_the_library_reads(suffix: str, start: str, tmp_path: Path) -> None:
    from sumout import io
    from sumout.io.write import WRITERS

    graph = io.read_bif(ASIA)
    text = WRITERS[".uai" if suffix == ".txt" else suffix](io.network_of(graph))
    assert text.startswith(start)
    path = tmp_path / f"asia{suffix}"
    path.write_text(text)
    assert json.loads(output("query", str(path), "--task", "pr", "--json"))["possible"]


def test_help_and_mistakes_need_no_torch() -> None:
    """None of the command's own modules imports it; the package's `__init__` is stood in for by an empty one."""
    package = Path(sumout.cli.__file__).parents[1]
    script = f"""
import sys, types
package = types.ModuleType("sumout")
package.__path__ = [{str(package)!r}]
sys.modules["sumout"] = package
from sumout.cli.app import main
for args in (["--help"], ["query", "--help"], ["query", "nothing.bif"], ["query", {ASIA!r}, "--memory-limit", "x"]):
    try:
        main(args, prog_name="sumout")
    except SystemExit:
        pass
print(sorted({{"torch", "numpy", "funsor", "pyro", "rich"}} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert found.stderr.count("sumout: error: ") == 2
