"""``sumout query``: asks the library, and prints the answer as a table or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import click

from sumout.cli import show
from sumout.cli.network import Question, ask
from sumout.errors import ImpossibleEvidenceError
from sumout.infer import log_evidence, map_assignment, marginals


def run(path: str, evidence: Sequence[str], evidence_file: str | None, task: str, as_json: bool) -> None:
    """Answers one query and prints the answer."""
    question = ask(path, evidence, evidence_file)
    answer = {"pr": _pr, "mar": _mar, "map": _map}[task](question)
    if as_json:
        click.echo(json.dumps(answer, allow_nan=False))
    else:
        show.answer(question, answer)


def _common(task: str, question: Question, log_z: float) -> dict[str, Any]:
    possible = log_z > -math.inf
    return {
        "task": task,
        "possible": possible,
        "log_evidence": log_z if possible else None,
        "log10_evidence": log_z / math.log(10) if possible else None,
        "evidence": question.observed,
    }


def _pr(question: Question) -> dict[str, Any]:
    log_z = log_evidence(question.graph)(evidence=question.evidence)
    return _common("pr", question, log_z.item())


def _mar(question: Question) -> dict[str, Any]:
    posterior = marginals(question.graph)(evidence=question.evidence)
    nodes: dict[str, dict[str, float]] = {}
    for name, states in question.network.states.items():
        if name in question.evidence:
            probabilities = [float(place == question.evidence[name]) for place in range(len(states))]
        else:
            probabilities = posterior[name].probs.tolist()
        nodes[name] = dict(zip(states, probabilities, strict=True))
    return _common("mar", question, posterior.log_evidence.item()) | {"marginals": nodes}


def _map(question: Question) -> dict[str, Any]:
    best = map_assignment(question.graph)(evidence=question.evidence)
    log_prob = best.log_prob.item()
    if log_prob == -math.inf:
        raise ImpossibleEvidenceError(
            "The evidence has probability zero: no assignment is the most probable."
        )
    chosen = {
        name: states[question.evidence[name] if name in question.evidence else int(best[name])]
        for name, states in question.network.states.items()
    }
    log_z = best.log_evidence.item()
    return _common("map", question, log_z) | {"log_prob": log_prob, "assignment": chosen}
