"""``--task pr``: the probability of the evidence."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from rich.console import RenderableType

from sumout.cli import show
from sumout.cli.evidence import Observed
from sumout.cli.network import Question
from sumout.cli.plans import Query
from sumout.cli.tasks.task import Found, Task, common, logarithms
from sumout.infer import log_evidence
from sumout.io.uai_answers import format_pr


def asks(question: Question, _: Collection[str]) -> Query:
    """The log-evidence."""
    return log_evidence(question.graph)


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    return common("pr", question, evidence, log_evidence(question.graph)(evidence=evidence).item())


def _answers(question: Question, observed: Observed) -> Iterator[Found]:
    values = log_evidence(question.graph)(evidence=observed.columns).tolist()
    for evidence, value in zip(observed.rows(), values, strict=True):
        yield common("pr", question, evidence, value)


def _table(_: Question, found: Found) -> Sequence[RenderableType]:
    return [show.facts(("observed", f"{name} = {state}") for name, state in found["evidence"].items())]


def _uai(_: Question, found: Sequence[Found]) -> str:
    return format_pr(logarithms(each)["log_evidence"] for each in found)


PROBABILITY = Task(
    answer=_answer,
    asks=asks,
    backward=False,
    table=_table,
    totals=lambda _: (),
    records=lambda found: [logarithms(found)],
    rows=lambda _, found: [logarithms(found)],
    answers=_answers,
    uai=_uai,
)
