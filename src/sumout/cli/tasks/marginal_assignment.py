"""``--task mmap``: the most probable assignment of some nodes, whatever the others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sumout.cli.network import Question
from sumout.cli.solving import solve
from sumout.cli.tasks.assignment import rows, table, totals
from sumout.cli.tasks.task import Found, Task, common, refuse_impossible
from sumout.infer import marginal_map
from sumout.io.uai_answers import format_mmap


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    log_z = log_prob = solve(question, evidence).value.item()
    refuse_impossible(log_z)
    chosen = {name: evidence[name] for name in question.asked if name in evidence}
    hidden = [name for name in question.asked if name not in evidence]
    if hidden:
        best = marginal_map(question.graph, hidden)(evidence=evidence)
        log_prob = best.log_prob.item()
        chosen |= {name: int(best[name]) for name in hidden}
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
    table=table,
    totals=totals,
    records=lambda found: [{"node": name, "state": state} for name, state in found["assignment"].items()],
    rows=rows,
    uai=_uai,
    query="needed",
    takes_planning=False,
)
