"""Answers as tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

import click
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from sumout.cli import numbers

_BAR = 24  # characters of a bar for probability one
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LINE = 200  # characters of a line in a file or a pipe


def display(*parts: RenderableType) -> None:
    """Prints to standard output; names are never markup.

    A terminal gets its colours and width. A file or a pipe gets plain lines, long enough for all.
    """
    out = Console(markup=False, emoji=False, highlight=False)
    if out.is_terminal:
        out.print(*parts, sep="\n")
        return
    text = StringIO()
    Console(file=text, markup=False, emoji=False, highlight=False, width=_LINE).print(*parts, sep="\n")
    click.echo("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def _width() -> int:
    """Characters of a line of what ``display`` prints."""
    out = Console()
    return out.width if out.is_terminal else _LINE


def facts(rows: Iterable[tuple[str, str]]) -> Text:
    """Names and values below one another."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    lines = [Text.assemble("  ", (f"{name:{width}}", "dim"), f"  {value}") for name, value in listed]
    return Text("\n").join(lines)


def marginals(nodes: Mapping[str, Mapping[str, float]], evidence: Mapping[str, str]) -> Table:
    """Probabilities of states, with bars."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("node", "state"):
        table.add_column(heading, overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name, states in nodes.items():
        observed = evidence.get(name)
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


def assignment(chosen: Mapping[str, str], evidence: Mapping[str, str]) -> Table:
    """A state for each node."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("node", "state", ""):
        table.add_column(heading, overflow="fold")
    for name, state in chosen.items():
        mark = "observed" if name in evidence else ""
        table.add_row(Text(name, style="bold"), Text(state), Text(mark, style="cyan"))
    return table


def columns(what: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[RenderableType]:
    """Numbered rows of states with a column for each node, below one another where they are too many for a line."""
    numbers = [what, *map(str, range(len(rows)))]
    blocks: list[list[list[str]]] = []
    room = -1
    for place, name in enumerate(names):
        column = [name, *[row[place] for row in rows]]
        wide = max(map(cell_len, column)) + 2
        if room < wide:
            blocks.append([numbers])
            room = _width() - max(map(len, numbers)) - 2
        blocks[-1].append(column)
        room -= wide
    parts: list[RenderableType] = []
    for block in blocks:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for heading, *_ in block:
            table.add_column(Text(heading), overflow="fold")
        for cells in list(zip(*block, strict=True))[1:]:
            table.add_row(*map(Text, cells))
        parts += [Text(""), table] if parts else [table]
    return parts
