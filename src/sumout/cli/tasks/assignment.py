"""``--task map``: the most probable assignment of all nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from sumout.cli import numbers, show
from sumout.cli.evidence import Observed
from sumout.cli.network import Question
from sumout.cli.tasks.task import Found, Task, common, for_possible, logarithms
from sumout.infer import map_assignment
from sumout.io.uai_answers import format_map


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    best = map_assignment(question.graph)(evidence=evidence)
    chosen = {name: int(state) for name, state in best.items()}
    return _found(question, evidence, best.log_evidence.item(), best.log_prob.item(), chosen)


def _answers(question: Question, observed: Observed) -> Iterator[Found]:
    query = map_assignment(question.graph)
    listed: dict[str, list[int]] = {}
    log_prob: list[float] = []
    asked = for_possible(question, observed, lambda columns: query(evidence=columns))
    for evidence, (best, number, value) in zip(observed.rows(), asked, strict=True):
        if best is None:
            yield common("map", question, evidence, value)
            continue
        log_prob = log_prob or best.log_prob.tolist()
        listed = listed or {name: states.tolist() for name, states in best.items()}
        chosen = {name: states[number] for name, states in listed.items()}
        yield _found(question, evidence, value, log_prob[number], chosen)


def _found(
    question: Question, evidence: Mapping[str, int], log_z: float, log_prob: float, chosen: Mapping[str, int]
) -> Found:
    assignment = {
        name: states[evidence[name] if name in evidence else chosen[name]]
        for name, states in question.network.states.items()
    }
    return common("map", question, evidence, log_z) | {"log_prob": log_prob, "assignment": assignment}


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
    asks=lambda question, _: map_assignment(question.graph),
    backward=False,
    table=table,
    totals=totals,
    records=lambda found: [{"node": name, "state": state} for name, state in found["assignment"].items()],
    rows=rows,
    answers=_answers,
    passes=2,  # the evidence's probability is another question
    uai=_uai,
)
