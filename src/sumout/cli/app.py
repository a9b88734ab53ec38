"""The commands and their options; what they do is imported when one of them runs."""

from __future__ import annotations

import click

from sumout.cli.arguments import OneLineErrors, SpreadEvidence, print_version
from sumout.cli.options import (
    FILE,
    evidence_options,
    format_options,
    number_options,
    one_format,
    planning_options,
)
from sumout.cli.tasks import TASKS


@click.group(
    cls=OneLineErrors, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--version", is_flag=True, is_eager=True, callback=print_version, help="Show the version and exit."
)
@click.pass_context
def main(context: click.Context, version: bool) -> None:
    """Exact inference in discrete networks, from BIF, XMLBIF, UAI, Hugin and GeNIe files.

    Exit codes: 0 done; 1 the evidence is impossible, or the memory limit is too small; 2 bad input.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@main.command(cls=SpreadEvidence, short_help="Answer a query about a network.")
@click.argument("network", type=FILE)
@evidence_options
@click.option(
    "--csv",
    "csv_file",
    type=FILE,
    help="Rows of evidence: a column per node, a state or nothing in each cell. Each row is answered.",
)
@click.option(
    "--task",
    type=click.Choice(list(TASKS)),
    default="mar",
    show_default=True,
    help=" ".join(f"{name}: {entry.summary}." for name, entry in TASKS.items()),
)
@click.option(
    "--query",
    multiple=True,
    metavar="NAME",
    help="A node that is asked for. Repeat it, or give several: A,B. Default: all.",
)
@click.option("--query-file", type=FILE, help="The same from a file: UAI query, or a name per line.")
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many samples --task sample draws.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The seed of --task sample. Default: random.")
@click.option("--plan", "plan_only", is_flag=True, help="Print the plan, and run nothing.")
@format_options
@planning_options
@number_options
def query(
    network: str,
    evidence: tuple[str, ...],
    evidence_file: str | None,
    csv_file: str | None,
    task: str,
    query: tuple[str, ...],
    query_file: str | None,
    samples: int,
    seed: int | None,
    plan_only: bool,
    form: str | None,
    as_json: bool,
    as_uai: bool,
    optimizers: tuple[str, ...],
    time_limit: float | None,
    memory_limit: int | None,
    dtype: str,
    device: str,
) -> None:
    """Answer a query about NETWORK, a file in BIF, XMLBIF, UAI, Hugin's or GeNIe's format.

    \b
    sumout query alarm.bif --evidence CVP=LOW HRBP=HIGH
    sumout query alarm.bif --evidence CVP=LOW,HRBP=HIGH --task map
    sumout query alarm.bif --csv patients.csv --query LVFAILURE > answers.csv
    sumout query grid.uai --evidence-file grid.uai.evid --task pr --uai

    JSON goes to standard output as one object, or as an array of them for rows. Its "evidence" holds the
    observed states; logarithms are natural unless they are named log10. A probability of zero is
    "possible": false, its logarithms null.
    """
    form = one_format(form, as_json, as_uai)
    from sumout.cli.network import Drawing, Numbers, ask
    from sumout.cli.query import run
    from sumout.plan import planning
    from sumout.settings import settings

    how = planning(orders=optimizers or None, time_limit=time_limit)
    with settings.override(memory_limit=memory_limit), how:
        question = ask(
            network,
            evidence,
            evidence_file,
            csv_file,
            query,
            query_file,
            Numbers(dtype, device),
            Drawing(samples, seed),
        )
        run(question, task, form, plan_only)


@main.command(cls=SpreadEvidence, short_help="Show a network's size, and what a query would cost.")
@click.argument("network", type=FILE)
@evidence_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@planning_options
def info(
    network: str,
    evidence: tuple[str, ...],
    evidence_file: str | None,
    as_json: bool,
    optimizers: tuple[str, ...],
    time_limit: float | None,
    memory_limit: int | None,
) -> None:
    """Show the size of NETWORK and what a query would cost, before anything is run."""
    from sumout.cli.info import run
    from sumout.cli.network import ask
    from sumout.plan import planning
    from sumout.settings import settings

    how = planning(orders=optimizers or None, time_limit=time_limit)
    with settings.override(memory_limit=memory_limit), how:
        run(ask(network, evidence, evidence_file), as_json)
