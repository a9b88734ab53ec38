"""``--task entropy``: how much is not known after the evidence, in nats."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

from sumout.cli.evidence import Observed
from sumout.cli.network import Question
from sumout.cli.plans import Query
from sumout.cli.tasks.task import Found, Task, common, logarithms, refuse_impossible
from sumout.infer import entropy, log_evidence


def _asks(question: Question, observed: Collection[str]) -> Query:
    """What is observed has no entropy; its probability is all that is left to ask."""
    hidden = question.hidden(observed)
    if not hidden:
        return log_evidence(question.graph)
    return entropy(question.graph, hidden if question.named else None)


def _answer(question: Question, evidence: Mapping[str, int]) -> Found:
    log_z = log_evidence(question.graph)(evidence=evidence).item()
    refuse_impossible(log_z)
    found = _asks(question, evidence)(evidence=evidence).item() if question.hidden(evidence) else 0.0
    return common("entropy", question, evidence, log_z) | {"entropy": found}


def _answers(question: Question, observed: Observed) -> Iterator[Found]:
    """Of the named nodes; a row in which they are observed has an entropy of zero."""
    values = log_evidence(question.graph)(evidence=observed.columns)
    possible = observed.part((values > -math.inf).nonzero().squeeze(1).cpu())
    hidden = question.hidden(possible.always)
    found = [0.0] * possible.count
    if hidden and possible.count:
        found = _asks(question, possible.always)(evidence=possible.columns).tolist()
    nats = iter(found)
    for evidence, value in zip(observed.rows(), values.tolist(), strict=True):
        answer = common("entropy", question, evidence, value)
        yield answer | {"entropy": next(nats)} if answer["possible"] else answer


ENTROPY = Task(
    answer=_answer,
    asks=_asks,
    table=lambda _, __: (),
    totals=lambda found: (("entropy", f"{found['entropy']:.6f} nats"),),
    records=lambda found: [logarithms(found) | {"entropy": found["entropy"]}],
    rows=lambda _, found: [logarithms(found) | {"entropy": found.get("entropy")}],
    answers=_answers,
    together=lambda question: question.named,
    passes=2,
    query="possible",
)
