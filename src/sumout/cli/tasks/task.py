"""What a task is: how to answer it, and how its answers look in each format."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from rich.console import RenderableType
from torch import Tensor

from sumout.cli.evidence import Observed
from sumout.cli.network import Question
from sumout.cli.plans import Asks
from sumout.errors import ImpossibleEvidenceError
from sumout.infer import Assignment, Marginals, log_evidence

Found = dict[str, Any]
"""One answer, as it is printed in JSON. Evidence of probability zero gives ``"possible": false``."""

Answer = TypeVar("Answer", Assignment, Marginals)


@dataclass(frozen=True)
class Task:
    """A kind of question.

    Attributes:
        answer: the answer for one observation, node -> position of its state. It raises
            ``ImpossibleEvidenceError`` where it has none for an observation of probability zero.
        asks: the query of ``sumout.infer`` that answers it.
        backward: whether that keeps its forward sweep.
        table: what stands below the totals on a terminal.
        totals: further lines of totals, name and value.
        records: the lines of CSV for one observation, each column -> value.
        rows: the same for a table of observations; also for an answer that is no more than ``common`` with
            probability zero, with nothing in the other columns.
        answers: the answers for many observations at once, in their order; those of probability zero have no more
            than ``common``.
        together: whether ``answers`` has them to this question; each is asked by itself otherwise.
        passes: how often ``answers`` goes through the rows.
        uai: the answers in the competition's format, or None where it has none.
        query: whether ``--query`` has a meaning, and whether there must be one. Where it is merely possible, an
            answer in UAI's format is about all nodes.
    """

    answer: Callable[[Question, Mapping[str, int]], Found]
    asks: Asks
    table: Callable[[Question, Found], Sequence[RenderableType]]
    totals: Callable[[Found], Sequence[tuple[str, str]]]
    records: Callable[[Found], Sequence[Mapping[str, Any]]]
    rows: Callable[[Question, Found], Sequence[Mapping[str, Any]]]
    backward: bool = True
    answers: Callable[[Question, Observed], Iterable[Found]] | None = None
    together: Callable[[Question], bool] = lambda _: True
    passes: int = 1
    uai: Callable[[Question, Sequence[Found]], str] | None = None
    query: Literal["none", "possible", "needed"] = "none"


def common(task: str, question: Question, evidence: Mapping[str, int], log_z: float) -> Found:
    """What every answer has."""
    possible = log_z > -math.inf
    states = question.network.states
    return {
        "task": task,
        "possible": possible,
        "log_evidence": log_z if possible else None,
        "log10_evidence": log_z / math.log(10) if possible else None,
        "evidence": {name: labels[evidence[name]] for name, labels in states.items() if name in evidence},
    }


def logarithms(found: Found) -> dict[str, float]:
    """The two columns of CSV for the evidence."""
    if not found["possible"]:
        return {"log_evidence": -math.inf, "log10_evidence": -math.inf}
    return {name: found[name] for name in ("log_evidence", "log10_evidence")}


def refuse_impossible(log_z: float = -math.inf) -> None:
    """Refuses an observation of probability zero."""
    if log_z == -math.inf:
        raise ImpossibleEvidenceError(
            "The evidence has probability zero, so there is no posterior: --task pr answers it."
        )


def for_possible(
    question: Question, observed: Observed, ask: Callable[[Mapping[str, Tensor]], Answer]
) -> Iterator[tuple[Answer | None, int, float]]:
    """Asks a query that has no answer for rows of probability zero; only if there are some, they are looked for.

    Args:
        question: of which network.
        observed: the rows.
        ask: the query, of columns of evidence.

    Yields:
        For each row, the answer to all rows that are possible with the row's number in it, and its log-evidence; no
        answer for an impossible one.
    """
    answer: Answer | None = None
    try:
        answer = ask(observed.columns)
        values = answer.log_evidence
    except ImpossibleEvidenceError:
        values = log_evidence(question.graph)(evidence=observed.columns)
        possible = (values > -math.inf).nonzero().squeeze(1).cpu()
        if len(possible):
            answer = ask(observed.part(possible).columns)
    number = 0
    for value in values.tolist():
        if value == -math.inf:
            yield None, 0, value
        else:
            yield answer, number, value
            number += 1
