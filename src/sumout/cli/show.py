"""Answers as tables on the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from sumout.cli import numbers
from sumout.cli.network import Question

_BAR = 24  # characters of a bar for probability one
_EIGHTHS = " ▏▎▍▌▋▊▉"


def display(*parts: RenderableType) -> None:
    """Prints to standard output; names are never markup.

    A terminal gets its colours and width. A file or a pipe gets plain lines, long enough for all.
    """
    out = Console(markup=False, emoji=False, highlight=False)
    if out.is_terminal:
        out.print(*parts, sep="\n")
        return
    text = StringIO()
    Console(file=text, markup=False, emoji=False, highlight=False, width=200).print(*parts, sep="\n")
    click.echo("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def facts(rows: Iterable[tuple[str, str]]) -> Text:
    """Names and values below one another."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    lines = [Text.assemble("  ", (f"{name:{width}}", "dim"), f"  {value}") for name, value in listed]
    return Text("\n").join(lines)


def answer(question: Question, found: Mapping[str, Any]) -> None:
    """Prints the answer of a query."""
    nodes, observed = len(question.network.states), len(question.evidence)
    parts: list[RenderableType] = [
        Text(f"{question.title}: {nodes} nodes, {observed} observed", style="bold")
    ]
    if found["task"] == "pr" and found["evidence"]:
        parts.append(facts(("observed", f"{name} = {state}") for name, state in found["evidence"].items()))
    parts.append(facts(_totals(question, found)))
    if found["task"] == "mar":
        parts.append(_marginals(found))
    elif found["task"] == "map":
        parts.append(_assignment(found))
    display(*parts)


def _totals(question: Question, found: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    natural = found["log_evidence"] if found["possible"] else -math.inf
    base10 = found["log10_evidence"] if found["possible"] else -math.inf
    # A Markov network's tables need not sum to anything: its evidence has no probability, only a weight.
    probability, weight = ("P(evidence)", "log evidence") if question.network.directed else ("Z", "log Z")
    yield weight, f"{numbers.logarithm(natural)} (natural), {numbers.logarithm(base10)} (log10)"
    yield probability, numbers.from_log10(base10)
    if found["task"] == "map":
        joint = found["log_prob"]
        yield (
            "log joint",
            f"{numbers.logarithm(joint)} (natural), {numbers.logarithm(joint / math.log(10))} (log10)",
        )
        yield "P(assignment | evidence)", numbers.from_log10((joint - natural) / math.log(10))


def _marginals(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("node", "state"):
        table.add_column(heading, overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name, states in found["marginals"].items():
        observed = found["evidence"].get(name)
        for place, (state, probability) in enumerate(states.items()):
            first = Text(name, style="bold" if observed is None else "bold cyan") if place == 0 else Text("")
            mark = (
                Text("observed" if state == observed else "", style="cyan") if observed else _bar(probability)
            )
            table.add_row(first, Text(state), numbers.probability(probability), mark)
    return table


def _bar(probability: float) -> Text:
    if not _encodable():
        return Text("#" * round(_BAR * min(probability, 1.0)))
    eighths = round(_BAR * 8 * min(probability, 1.0))
    return Text(("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip(), style="green")


def _encodable() -> bool:
    """Whether standard output has the letters of a bar."""
    try:
        _EIGHTHS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _assignment(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("node", "state", ""):
        table.add_column(heading, overflow="fold")
    for name, state in found["assignment"].items():
        mark = "observed" if name in found["evidence"] else ""
        table.add_row(Text(name, style="bold"), Text(state), Text(mark, style="cyan"))
    return table
