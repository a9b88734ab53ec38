"""``sumout info``: how large a network is, and what a query would cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.text import Text

from sumout.cli import numbers, show
from sumout.cli.network import Question
from sumout.cli.solving import planned
from sumout.plan import EliminationPlan
from sumout.settings import settings
from sumout.text import memory


def run(question: Question, as_json: bool) -> None:
    """Plans a query of all marginals without running it, and prints the plan's cost."""
    hidden = tuple(name for name in question.network.states if name not in question.evidence)
    _, plan = planned(question, question.evidence, hidden)
    found = measured(question, plan)
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
        return
    show.display(Text(question.title, style="bold"), show.facts(_lines(found)))


def measured(question: Question, plan: EliminationPlan) -> dict[str, Any]:
    """The network's and the plan's numbers."""
    sizes = [len(states) for states in question.network.states.values()]
    entries = [table.size for _, table in question.network.tables.values()]
    return {
        "kind": "Bayesian network" if question.network.directed else "Markov network",
        "nodes": len(sizes),
        "observed": len(question.evidence),
        "states": {
            "fewest": min(sizes),
            "most": max(sizes),
            "mean": sum(sizes) / len(sizes),
            "log10_joint": sum(map(math.log10, sizes)),
        },
        "factors": {"count": len(entries), "entries": sum(entries), "largest": max(entries, default=0)},
        "treewidth_bound": plan.width,
        "plan": {
            "order": plan.order,
            "steps": len(plan.steps),
            "flops": plan.flops,
            "largest": plan.largest,
            "largest_variables": list(plan.largest_dims),
            "bytes": plan.bytes(),
            "bytes_marginals": plan.bytes(backward=True),
        },
        "memory_limit": settings.memory_limit,
    }


def _lines(found: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    states, factors, plan = found["states"], found["factors"], found["plan"]
    yield "kind", found["kind"]
    yield "nodes", f"{found['nodes']} ({found['observed']} observed)"
    yield (
        "states of a node",
        f"{states['fewest']} to {states['most']}, mean {states['mean']:.3g}; "
        f"{numbers.from_log10(states['log10_joint'])} joint states",
    )
    yield (
        "factors",
        f"{factors['count']}, {numbers.amount(factors['entries'])} entries, "
        f"the largest {numbers.amount(factors['largest'])}",
    )
    yield "treewidth bound", str(found["treewidth_bound"])
    yield "plan", f"{plan['order']} order, {plan['steps']} steps"
    yield "flops", numbers.amount(plan["flops"])
    named = plan["largest_variables"]
    shown = ", ".join(named[:12]) + (f", ... ({len(named)} in all)" if len(named) > 12 else "")
    yield "largest table", f"{numbers.amount(plan['largest'])} entries" + (f" over {shown}" if named else "")
    limit = found["memory_limit"]
    over = ", MORE THAN THE LIMIT of " if plan["bytes_marginals"] > limit else "; the limit is "
    yield (
        "memory",
        f"{memory(plan['bytes'])}, with marginals {memory(plan['bytes_marginals'])}{over}{memory(limit)}",
    )
