"""``--task entropy``: how much is not known after the evidence, in nats."""

from __future__ import annotations

from collections.abc import Mapping

from sumout.cli.network import Question
from sumout.cli.solving import solve
from sumout.cli.tasks.task import Found, Task, common, logarithms, refuse_impossible
from sumout.infer import entropy


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    log_z = solve(question, evidence).value.item()
    refuse_impossible(log_z)
    hidden = [name for name in question.asked if name not in evidence]
    everything = len(question.asked) == len(question.network.states)
    found = 0.0  # of what was observed
    if hidden:
        found = entropy(question.graph, None if everything else hidden)(evidence=evidence).item()
    return common("entropy", question, evidence, log_z) | {"entropy": found}


ENTROPY = Task(
    answer=_answer,
    table=lambda _, __: (),
    totals=lambda found: (("entropy", f"{found['entropy']:.6f} nats"),),
    records=lambda found: [logarithms(found) | {"entropy": found["entropy"]}],
    rows=lambda _, found: [logarithms(found) | {"entropy": found.get("entropy")}],
    query="possible",
    takes_planning=False,
)
