"""``sumout query``: asks the library, and prints the answer in one of four formats."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from sumout.cli import info, numbers, show
from sumout.cli.arguments import as_typed
from sumout.cli.network import Question
from sumout.cli.plans import planned
from sumout.cli.tasks import TASKS
from sumout.cli.tasks.task import Found, Task, common, refuse_impossible
from sumout.errors import ImpossibleEvidenceError
from sumout.infer.rows.progress import Progress
from sumout.settings import settings

_ROWS = 2**14
"""Rows that are answered and printed at once, at most: as many as the library's batches gain by, and more ..."""

_SHARE = 16
"""... but not so many that their answers take more than one part in this of the memory limit."""


def run(question: Question, name: str, form: str | None, plan_only: bool) -> None:
    """Answers a question and prints the answer.

    Args:
        question: the network, the evidence and what is asked.
        name: the task, a key of ``TASKS``.
        form: ``table``, ``json``, ``csv`` or ``uai``; by default a table, or CSV for rows of evidence.
        plan_only: print the plan instead.
    """
    task = TASKS[name].load()
    _check(question, name, task, form, plan_only)
    if plan_only:
        _print_plan(question, task, form)
    elif question.observed.many:
        _print_rows(question, task, form or "csv", _answers(question, name, task))
    else:
        _print_one(question, task, form or "table", _answer(question, task))


def _check(question: Question, name: str, task: Task, form: str | None, plan_only: bool) -> None:
    """Refuses options that do not go together, before anything is computed."""
    if question.named and task.query == "none":
        problem = f"--query has no meaning here: the answer of --task {name} is about all nodes."
    elif not question.named and task.query == "needed":
        problem = f"--task {name} needs --query: the nodes to be assigned."
    elif question.named and form == "uai" and task.query == "possible":
        problem = "--query has no meaning here: an answer in UAI's format is about all nodes."
    elif form == "uai" and task.uai is None:
        problem = f"The competition's format has no answer of --task {name}."
    elif plan_only and form not in (None, "table", "json"):
        problem = f"A plan is printed as text or as JSON, not as {form}."
    elif question.observed.many and not plan_only and form == "table":
        problem = "A table shows one answer: give --format csv, json or uai for rows of evidence."
    else:
        return
    raise click.UsageError(problem)


def _answer(question: Question, task: Task) -> Found:
    try:
        return task.answer(question, question.evidence)
    except ImpossibleEvidenceError:
        refuse_impossible()  # in the command's words
        raise


def _answers(question: Question, name: str, task: Task) -> Iterator[Found]:
    """The answer for each row of evidence; one of probability zero has nothing but that."""
    observed = question.observed
    entries = 1 + sum(map(len, question.network.states.values()))
    size = max(1, min(_ROWS, settings.memory_limit // _SHARE // (64 * entries)))
    shown = not sys.stdout.isatty()  # where rows come to the terminal, they show themselves how far it is
    with Progress("rows", observed.count, passes=task.passes, shown=shown) as progress:
        for start in range(0, observed.count, size):
            part = observed.part(slice(start, start + size))
            if task.answers is not None and task.together(question):
                yield from task.answers(question, part)
                continue
            for evidence in part.rows():
                try:
                    found = task.answer(question, evidence)
                except ImpossibleEvidenceError:
                    found = common(name, question, evidence, -math.inf)
                progress.advance(1)
                yield found


def _print_plan(question: Question, task: Task, form: str | None) -> None:
    found = planned(question, task.asks, task.backward, task.answers is not None and task.together(question))
    if form == "json":
        click.echo(json.dumps(info.measured(question, found), allow_nan=False))
        return
    click.echo(found.plan.explain())
    if found.refusal is not None:
        click.echo(f"\nThe query would be refused: {as_typed(found.refusal)}")


def _print_one(question: Question, task: Task, form: str, found: Found) -> None:
    if form == "json":
        click.echo(json.dumps(found, allow_nan=False))
    elif form == "csv":
        _print_csv(task.records(found))
    elif form == "uai":
        _print_uai(question, task, [found])
    else:
        nodes, observed = len(question.network.states), len(question.evidence)
        parts: list[RenderableType] = [
            Text(f"{question.title}: {nodes} nodes, {observed} observed", style="bold"),
            show.facts([*_totals(question, found), *task.totals(found)]),
            *task.table(question, found),
        ]
        show.display(*parts)


def _print_rows(question: Question, task: Task, form: str, answers: Iterable[Found]) -> None:
    if form == "json":  # one array, an answer a line, each printed as soon as it is there
        click.echo("[", nl=False)
        for number, found in enumerate(answers):
            click.echo(("," if number else "") + "\n" + json.dumps(found, allow_nan=False), nl=False)
        click.echo("\n]")
    elif form == "csv":
        lines = (line for found in answers for line in task.rows(question, found))
        _print_csv(lines, task.rows(question, _NOTHING)[0])
    elif form == "uai":
        _print_uai(question, task, list(answers))
    else:
        raise click.UsageError(
            "A table shows one answer: give --format csv, json or uai for rows of evidence."
        )


_NOTHING: Found = {"possible": False}


def _print_csv(rows: Iterable[Mapping[str, Any]], header: Iterable[str] = ()) -> None:
    """Lines of CSV; the header is that of the first row, or is given where there may be none."""
    names = list(header)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if names:
        writer.writerow(names)
    for row in rows:
        if not names:
            names = list(row)
            writer.writerow(names)
        writer.writerow(["" if value is None else value for value in row.values()])
        click.echo(text.getvalue(), nl=False)
        text.seek(0)
        text.truncate()
    click.echo(text.getvalue(), nl=False)


def _print_uai(question: Question, task: Task, found: Sequence[Found]) -> None:
    assert task.uai is not None  # it was checked
    impossible = [number for number, each in enumerate(found, 1) if not each["possible"]]
    if impossible and found[0]["task"] != "pr":
        raise ImpossibleEvidenceError(
            f"The evidence of row {impossible[0]} has probability zero, for which UAI's format has no answer."
        )
    click.echo(task.uai(question, found), nl=False)


def _totals(question: Question, found: Found) -> Iterable[tuple[str, str]]:
    natural = found["log_evidence"] if found["possible"] else -math.inf
    base10 = found["log10_evidence"] if found["possible"] else -math.inf
    # A Markov network's tables need not sum to anything: its evidence has no probability, only a weight.
    probability, weight = ("P(evidence)", "log evidence") if question.network.directed else ("Z", "log Z")
    yield weight, numbers.both_logarithms(natural)
    yield probability, numbers.from_log10(base10)
