"""``--task map``: the most probable assignment of all nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from sumout.cli import numbers, show
from sumout.cli.network import Question
from sumout.cli.solving import solve
from sumout.cli.tasks.task import Found, Task, common, logarithms, refuse_impossible
from sumout.execute import MAX_SUM
from sumout.io.uai_answers import format_map


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    best = solve(question, evidence, semiring=MAX_SUM)
    log_prob = best.value.item()
    refuse_impossible(log_prob)
    chosen = {
        name: states[evidence[name] if name in evidence else int(best.assignment[name].states)]
        for name, states in question.network.states.items()
    }
    log_z = solve(question, evidence).value.item()
    return common("map", question, evidence, log_z) | {"log_prob": log_prob, "assignment": chosen}


def totals(found: Found) -> Sequence[tuple[str, str]]:
    """How probable the assignment is, alone and given the evidence."""
    joint, evidence = found["log_prob"], found["log_evidence"]
    return (
        ("log joint", numbers.both_logarithms(joint)),
        ("P(assignment | evidence)", numbers.from_log10((joint - evidence) / math.log(10))),
    )


def table(_: Question, found: Found) -> Sequence[RenderableType]:
    """A state for each node."""
    return [show.assignment(found["assignment"], found["evidence"])]


def rows(question: Question, found: Found) -> Sequence[Mapping[str, Any]]:
    """One line with a column for each node that is asked for."""
    assignment = found.get("assignment", {})
    chosen = {name: assignment.get(name) for name in question.asked}
    return [logarithms(found) | {"log_prob": found.get("log_prob", -math.inf)} | chosen]


def _uai(question: Question, found: Sequence[Found]) -> str:
    states = question.network.states
    return format_map(
        [states[name].index(state) for name, state in each["assignment"].items()] for each in found
    )


ASSIGNMENT = Task(
    answer=_answer,
    table=table,
    totals=totals,
    records=lambda found: [{"node": name, "state": state} for name, state in found["assignment"].items()],
    rows=rows,
    uai=_uai,
)
