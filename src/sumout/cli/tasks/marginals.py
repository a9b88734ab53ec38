"""``--task mar``: posterior marginals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from sumout.cli import show
from sumout.cli.network import Question
from sumout.cli.solving import solve
from sumout.cli.tasks.task import Found, Task, common, logarithms, refuse_impossible
from sumout.io.uai_answers import format_mar


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    hidden = tuple(name for name in question.asked if name not in evidence)
    result = solve(question, evidence, hidden)
    log_z = result.value.item()
    refuse_impossible(log_z)
    nodes: dict[str, dict[str, float]] = {}
    for name in question.asked:
        states = question.network.states[name]
        if name in evidence:
            probabilities = [float(place == evidence[name]) for place in range(len(states))]
        else:
            probabilities = result.marginal(name).probs.tolist()
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
    table=_table,
    totals=lambda _: (),
    records=_records,
    rows=_rows,
    uai=_uai,
    read_out=lambda question: tuple(name for name in question.asked if name not in question.evidence),
    query="possible",
)
