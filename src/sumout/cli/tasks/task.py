"""What a task is: how to answer it, and how its answers look in each format."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import RenderableType

from sumout.cli.network import Question
from sumout.errors import ImpossibleEvidenceError

Found = dict[str, Any]
"""One answer, as it is printed in JSON. Evidence of probability zero gives ``"possible": false``."""


@dataclass(frozen=True)
class Task:
    """A kind of question.

    Attributes:
        answer: the answer for one observation, node -> position of its state. It raises
            ``ImpossibleEvidenceError`` where it has none for an observation of probability zero.
        table: what stands below the totals on a terminal.
        totals: further lines of totals, name and value.
        records: the lines of CSV for one observation, each column -> value.
        rows: the same for a table of observations; also for an answer that is no more than ``common`` with
            probability zero, with nothing in the other columns.
        uai: the answers in the competition's format, or None where it has none.
        read_out: the nodes whose marginals the plan must provide.
        query: whether ``--query`` has a meaning, and whether there must be one. Where it is merely possible, an
            answer in UAI's format is about all nodes.
        takes_planning: whether ``--optimizer``, ``--time-limit`` and ``--plan`` do.
    """

    answer: Callable[[Question, Mapping[str, int]], Found]
    table: Callable[[Question, Found], Sequence[RenderableType]]
    totals: Callable[[Found], Sequence[tuple[str, str]]]
    records: Callable[[Found], Sequence[Mapping[str, Any]]]
    rows: Callable[[Question, Found], Sequence[Mapping[str, Any]]]
    uai: Callable[[Question, Sequence[Found]], str] | None = None
    read_out: Callable[[Question], tuple[str, ...]] = lambda _: ()
    query: Literal["none", "possible", "needed"] = "none"
    takes_planning: bool = True


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


def refuse_impossible(log_z: float) -> None:
    """Refuses an observation of probability zero."""
    if log_z == -math.inf:
        raise ImpossibleEvidenceError(
            "The evidence has probability zero, so there is no posterior: --task pr answers it."
        )
