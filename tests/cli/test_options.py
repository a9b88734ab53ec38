"""How a query is planned, limited and asked, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import sumout.cli
from sumout.cli import main
from sumout.cli.parameters import Seconds, Size
from sumout.cli.tasks import TASKS
from sumout.plan import ORDERS, SEARCHES, EliminationPlan, make

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


def assert_close(found: Any, expected: Any) -> None:
    """Equal but for the rounding of numbers."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
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


@pytest.mark.parametrize("order", [*ORDERS, *sorted(set(SEARCHES) - {"cotengra"})])
def test_every_heuristic_and_search_gives_the_same_answer(order: str) -> None:
    how = ["--optimizer", order, "--time-limit", "100ms"] if order in SEARCHES else ["--optimizer", order]
    assert_close(answer(*how), answer())
    found = json.loads(output("info", ALARM, *how, "--json"))["plan"]["order"]
    assert found in (order, "greedy", "mixed") if order in SEARCHES else found == order


def test_a_search_of_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cotengra", None)
    result = run("query", ALARM, "--optimizer", "cotengra")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "sumout[search]" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("limit", ["0", "1ms", "1s"])
def test_a_time_limit_leaves_a_plan(limit: str) -> None:
    assert_close(answer("--time-limit", limit), answer())
    assert json.loads(output("info", ALARM, "--time-limit", limit, "--json"))["plan"]["steps"] > 10


TASK_ARGS = {
    task: ["--task", task, *(["--query", "PRESS,EXPCO2,CVP,HRBP"] if task == "mmap" else [])]
    for task in TASKS
}
TASK_ARGS["sample"] += ["--seed", "3", "--samples", "5"]
TASK_ARGS["entropy of some"] = ["--task", "entropy", "--query", "PRESS,EXPCO2"]
TASK_ARGS["marginals of some"] = ["--query", "PRESS,HRBP"]


@pytest.mark.parametrize("task", TASK_ARGS)
@pytest.mark.parametrize(
    "how",
    [
        ["--optimizer", "min_fill"],
        ["--optimizer", "random", "--time-limit", "50ms"],
        ["--memory-limit", "1GiB"],
    ],
)
def test_every_task_takes_every_option_of_planning(task: str, how: list[str]) -> None:
    found, expected = answer(*TASK_ARGS[task], *how), answer(*TASK_ARGS[task])
    if task == "sample":  # another order draws others
        assert len(found.pop("samples")) == len(expected.pop("samples")) == 5  # type: ignore[arg-type]
    assert_close(found, expected)
    assert output("query", ALARM, *TASK_ARGS[task], *how, "--plan").startswith("A plan for ")


@pytest.mark.parametrize("task", TASK_ARGS)
def test_what_does_not_fit_runs_in_slices(task: str) -> None:
    # A sum before a maximum may not be cut up; samples take room, and so do the tables that slices are added up into.
    limit = {"mmap": 24, "sample": 28, "mar": 16, "entropy": 16}.get(task, 9)
    how = [*TASK_ARGS[task], "--memory-limit", f"{limit}KiB"]
    whole = json.loads(output("query", ALARM, *TASK_ARGS[task], "--plan", "--json"))["plan"]
    plan = json.loads(output("query", ALARM, *how, "--plan", "--json"))["plan"]
    assert plan["fits"]
    assert plan["bytes"] <= limit * 1024
    assert plan["slices"] > 1 or plan["bytes"] == whole["bytes"]
    found, expected = answer(*how), answer(*TASK_ARGS[task])
    if task == "sample":
        assert len(found.pop("samples")) == len(expected.pop("samples")) == 5  # type: ignore[arg-type]
    assert_close(found, expected)


def test_slices_are_told() -> None:
    text = output("query", ALARM, "--plan", "--memory-limit", "16KiB")
    assert "\nSliced: " in text
    assert " slices over " in output("info", ALARM, "--memory-limit", "16KiB")
    found = json.loads(output("info", ALARM, "--memory-limit", "16KiB", "--json"))
    assert found["treewidth_bound"] == 4  # of the network, not of a slice


@pytest.mark.parametrize("task", TASK_ARGS)
def test_the_plan_that_is_printed_is_the_one_that_is_run(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["-e", "HRBP=HIGH", "CO=LOW", *TASK_ARGS[task]]
    printed = json.loads(output("query", ALARM, *args, "--plan", "--json"))["plan"]
    made = []
    inside = make._make_plan

    def spy(*args: Any) -> EliminationPlan:
        made.append(inside(*args))
        return made[-1]

    monkeypatch.setattr(make, "_make_plan", spy)
    output("query", ALARM, *args)
    facts = [
        (plan.order, len(plan.steps), plan.flops, plan.largest, list(plan.largest_dims)) for plan in made
    ]
    assert (
        tuple(printed[each] for each in ("order", "steps", "flops", "largest", "largest_variables")) in facts
    )


def test_the_plan_is_printed_and_nothing_run() -> None:
    text = output("query", ALARM, "--plan", "--optimizer", "min_fill")
    assert text.startswith("A plan for 37 factors and 37 variables")
    assert "found by min_fill" in text.splitlines()[0]
    assert len(text.splitlines()) > 20
    # What cannot be made to fit is printed, too, and refused when it is to be run.
    args = ["query", ALARM, *TASK_ARGS["mmap"], "--memory-limit", "10KiB"]
    text = output(*args, "--plan")
    assert "\nThe query would be refused: The plan needs " in text
    assert "raise the limit: --memory-limit." in text
    assert not json.loads(output(*args, "--plan", "--json"))["plan"]["fits"]
    result = run(*args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "raise the limit: --memory-limit." in result.stderr


def test_the_plan_as_json_is_that_of_the_question() -> None:
    wide = json.loads(output("query", ALARM, "--plan", "--json"))
    narrow = json.loads(output("query", ALARM, "--plan", "--json", "--task", "pr"))
    assert wide["nodes"] == narrow["nodes"] == 37
    assert narrow["plan"]["flops"] <= wide["plan"]["flops"]
    assert wide["plan"] == json.loads(output("info", ALARM, "--json"))["plan"]


def test_the_limit_is_the_one_that_was_given() -> None:
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
