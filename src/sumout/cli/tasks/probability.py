"""``--task pr``: the probability of the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import RenderableType

from sumout.cli import show
from sumout.cli.network import Question
from sumout.cli.solving import solve
from sumout.cli.tasks.task import Found, Task, common, logarithms
from sumout.io.uai_answers import format_pr


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    return common("pr", question, evidence, solve(question, evidence).value.item())


def _table(_: Question, found: Found) -> Sequence[RenderableType]:
    return [show.facts(("observed", f"{name} = {state}") for name, state in found["evidence"].items())]


def _uai(_: Question, found: Sequence[Found]) -> str:
    return format_pr(logarithms(each)["log_evidence"] for each in found)


PROBABILITY = Task(
    answer=_answer,
    table=_table,
    totals=lambda _: (),
    records=lambda found: [logarithms(found)],
    rows=lambda _, found: [logarithms(found)],
    uai=_uai,
)
