"""``--task sample``: joint samples from the posterior."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from sumout.cli import show
from sumout.cli.network import Question
from sumout.cli.tasks.task import Found, Task, common, logarithms
from sumout.infer import PosteriorSamples, posterior_samples


def _asks(question: Question, _: Collection[str]) -> Callable[..., PosteriorSamples]:
    return posterior_samples(question.graph, question.drawing.samples, generator=question.generator)


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    count = question.drawing.samples
    drawn = _asks(question, evidence)(evidence=evidence)
    columns = []
    for name in question.asked:
        labels = question.network.states[name]
        states = [evidence[name]] * count if name in evidence else drawn[name].tolist()
        columns.append([labels[state] for state in states])
    samples = [dict(zip(question.asked, row, strict=True)) for row in zip(*columns, strict=True)]
    return common("sample", question, evidence, drawn.log_evidence.item()) | {"samples": samples}


def _table(question: Question, found: Found) -> Sequence[RenderableType]:
    return show.columns("sample", question.asked, [list(sample.values()) for sample in found["samples"]])


def _rows(question: Question, found: Found) -> Sequence[Mapping[str, Any]]:
    if not found["possible"]:
        return [logarithms(found) | {"sample": None} | dict.fromkeys(question.asked)]
    return [logarithms(found) | {"sample": number} | sample for number, sample in enumerate(found["samples"])]


SAMPLES = Task(
    answer=_answer,
    asks=_asks,
    table=_table,
    totals=lambda _: (),
    records=lambda found: found["samples"],
    rows=_rows,
    query="possible",
)
