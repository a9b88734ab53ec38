"""``sumout info``: how large a network is, and what a query would cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.text import Text

from sumout.cli import numbers, show
from sumout.cli.network import Question
from sumout.cli.plans import Planned, planned
from sumout.cli.tasks import marginals
from sumout.text import memory


def run(question: Question, as_json: bool) -> None:
    """Plans a query of all marginals without running it, and prints the plan's cost."""
    found = measured(question, planned(question, marginals.asks, backward=True, rows=False))
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
        return
    show.display(Text(question.title, style="bold"), show.facts(_lines(found)))


def measured(question: Question, planned: Planned) -> dict[str, Any]:
    """The network's and the plan's numbers."""
    plan = planned.plan
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
        "treewidth_bound": planned.width,
        "plan": {
            "order": plan.order,
            "steps": len(plan.steps),
            "flops": plan.flops,
            "largest": plan.largest,
            "largest_variables": list(plan.largest_dims),
            "slices": plan.slices,
            "sliced_variables": [name for name, _ in plan.sliced],
            "seconds": plan.seconds(),
            "bytes": planned.bytes,
            "fits": planned.refusal is None,
        },
        "memory_limit": planned.limit,
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
    sliced = (
        f", {plan['slices']:,} slices over {_some(plan['sliced_variables'])}" if plan["slices"] > 1 else ""
    )
    yield "plan", f"{plan['order']} order, {plan['steps']} steps{sliced}"
    yield "flops", f"{numbers.amount(plan['flops'])}, about {numbers.duration(plan['seconds'])}"
    named = plan["largest_variables"]
    over = f" over {_some(named)}" if named else ""
    yield "largest table", f"{numbers.amount(plan['largest'])} entries{over}"
    rule = "; the limit is " if plan["fits"] else ", MORE THAN THE LIMIT of "
    yield "memory", f"{memory(plan['bytes'])}{rule}{memory(found['memory_limit'])}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
