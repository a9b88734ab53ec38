"""``--task mmap``: the most probable assignment of some nodes, whatever the others are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sumout.cli.network import Question
from sumout.cli.plans import Query
from sumout.cli.tasks.assignment import rows, table, totals
from sumout.cli.tasks.task import Found, Task, common, refuse_impossible
from sumout.infer import log_evidence, marginal_map
from sumout.io.uai_answers import format_mmap


def _asks(question: Question, observed: Collection[str]) -> Query:
    hidden = question.hidden(observed)
    return marginal_map(question.graph, hidden) if hidden else log_evidence(question.graph)


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    chosen = {name: evidence[name] for name in question.asked if name in evidence}
    hidden = question.hidden(evidence)
    if hidden:
        best = _asks(question, evidence)(evidence=evidence)
        log_z, log_prob = best.log_evidence.item(), best.log_prob.item()
        chosen |= {name: int(best[name]) for name in hidden}
    else:
        log_z = log_prob = log_evidence(question.graph)(evidence=evidence).item()
        refuse_impossible(log_z)
    assignment = {name: question.network.states[name][chosen[name]] for name in question.asked}
    return common("mmap", question, evidence, log_z) | {"log_prob": log_prob, "assignment": assignment}


def _uai(question: Question, found: Sequence[Found]) -> str:
    states = question.network.states
    number = {name: place for place, name in enumerate(states)}
    return format_mmap(
        {number[name]: states[name].index(state) for name, state in each["assignment"].items()}
        for each in found
    )


MARGINAL_ASSIGNMENT = Task(
    answer=_answer,
    asks=_asks,
    table=table,
    totals=totals,
    records=lambda found: [{"node": name, "state": state} for name, state in found["assignment"].items()],
    rows=rows,
    uai=_uai,
    query="needed",
)
