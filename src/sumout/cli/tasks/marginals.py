"""``--task mar``: posterior marginals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from rich.console import RenderableType

from sumout.cli import show
from sumout.cli.evidence import Observed
from sumout.cli.network import Question
from sumout.cli.tasks.task import Found, Task, common, for_possible, logarithms
from sumout.infer import Marginals, marginals
from sumout.io.uai_answers import format_mar


def asks(question: Question, observed: Collection[str]) -> Callable[..., Marginals]:
    """The marginals of what is asked for and not observed."""
    return marginals(question.graph, question.hidden(observed))


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    answer = asks(question, evidence)(evidence=evidence)
    probabilities = {name: answer.tables[name].tolist() for name in question.hidden(evidence)}
    return _found(question, evidence, answer.log_evidence.item(), probabilities)


def _answers(question: Question, observed: Observed) -> Iterator[Found]:
    query, hidden = asks(question, observed.always), question.hidden(observed.always)
    sizes = [len(question.network.states[name]) for name in hidden]
    stops = list(accumulate(sizes))
    listed: list[
        list[float]
    ] = []  # the probabilities of all nodes one after another: few lists are quick to make
    asked = for_possible(question, observed, lambda columns: query(evidence=columns))
    for evidence, (answer, number, value) in zip(observed.rows(), asked, strict=True):
        if answer is None:
            yield common("mar", question, evidence, value)
            continue
        if hidden and not listed:
            listed = torch.cat([answer.tables[name] for name in hidden], 1).tolist()
        found = {
            name: listed[number][stop - size : stop]
            for name, size, stop in zip(hidden, sizes, stops, strict=True)
        }
        yield _found(question, evidence, value, found)


def _found(
    question: Question, evidence: Mapping[str, int], log_z: float, hidden: Mapping[str, list[float]]
) -> Found:
    nodes: dict[str, dict[str, float]] = {}
    for name in question.asked:
        states = question.network.states[name]
        if name in evidence:
            probabilities = [float(place == evidence[name]) for place in range(len(states))]
        else:
            probabilities = hidden[name]
        nodes[name] = dict(zip(states, probabilities, strict=True))
    return common("mar", question, evidence, log_z) | {"marginals": nodes}


def _table(_: Question, found: Found) -> Sequence[RenderableType]:
    return [show.marginals(found["marginals"], found["evidence"])]


def _records(found: Found) -> Sequence[Mapping[str, Any]]:
    return [
        {"node": name, "state": state, "probability": probability}
        for name, states in found["marginals"].items()
        for state, probability in states.items()
    ]


def _rows(question: Question, found: Found) -> Sequence[Mapping[str, Any]]:
    marginals = found.get("marginals", {})
    columns = {
        f"{name}={state}": marginals.get(name, {}).get(state)
        for name in question.asked
        for state in question.network.states[name]
    }
    return [logarithms(found) | columns]


def _uai(_: Question, found: Sequence[Found]) -> str:
    return format_mar([list(states.values()) for states in each["marginals"].values()] for each in found)


MARGINALS = Task(
    answer=_answer,
    asks=asks,
    table=_table,
    totals=lambda _: (),
    records=_records,
    rows=_rows,
    answers=_answers,
    uai=_uai,
    query="possible",
)
