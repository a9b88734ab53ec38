"""Options that commands share, in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sumout.cli.parameters import Device, Order, Seconds, Size

FILE = click.Path(exists=True, dir_okay=False, readable=True)
EVIDENCE = ("--evidence", "-e")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def evidence_options(function: _Function) -> _Function:
    """What was observed."""
    from_file = click.option(
        "--evidence-file",
        type=FILE,
        help="Evidence in a file: UAI evidence, JSON, or a NAME=STATE line per node.",
    )
    given = click.option(
        *EVIDENCE,
        "evidence",
        multiple=True,
        metavar="NAME=STATE ...",
        help="An observed node with its state. Repeat it, or give several: A=x B=y, or A=x,B=y.",
    )
    return given(from_file(function))


def planning_options(function: _Function) -> _Function:
    """How the plan is found, and how large it may be."""
    memory_limit = click.option(
        "--memory-limit",
        type=Size(),
        help="How much a query may take, such as 4GiB; it runs in slices, or is refused, if it needs more. "
        "Default: most of the free memory.",
    )
    time_limit = click.option(
        "--time-limit",
        type=Seconds(),
        help="Search so long for a cheaper plan, such as 2s. Default: quick heuristics alone.",
    )
    optimizer = click.option(
        "--optimizer",
        "optimizers",
        type=Order(),
        multiple=True,
        help="A heuristic or search to plan with, such as min_fill, random or cotengra. Repeat it to try several. "
        "Default: the best of a few quick ones.",
    )
    return optimizer(time_limit(memory_limit(function)))


def number_options(function: _Function) -> _Function:
    """What the tables are made of, and where."""
    dtype = click.option(
        "--dtype",
        type=click.Choice(["float32", "float64"]),
        default="float64",
        show_default=True,
        help="The precision that is computed in.",
    )
    device = click.option(
        "--device",
        type=Device(),
        default="cpu",
        show_default=True,
        help="Where it is computed: cpu, cuda, or cuda:1.",
    )
    return device(dtype(function))


def format_options(function: _Function) -> _Function:
    """How the answer is printed."""
    chosen = click.option(
        "--format",
        "form",
        type=click.Choice(["table", "json", "csv", "uai"]),
        help="Default: a table, or CSV with --csv.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
    as_uai = click.option(
        "--uai", "as_uai", is_flag=True, help="The same as --format uai: that of the UAI competitions."
    )
    return chosen(as_json(as_uai(function)))


def one_format(form: str | None, as_json: bool, as_uai: bool) -> str | None:
    """The one format that was asked for, or None."""
    asked = {form, "json" if as_json else None, "uai" if as_uai else None} - {None}
    if len(asked) > 1:
        raise click.UsageError(f"Two formats were given, {' and '.join(sorted(map(str, asked)))}: give one.")
    return asked.pop() if asked else None
