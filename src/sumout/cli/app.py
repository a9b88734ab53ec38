"""The commands and their options; what they do is imported when one of them runs."""

from __future__ import annotations

import click

from sumout.cli.arguments import OneLineErrors, SpreadEvidence, evidence_options, print_version

_NETWORK = click.Path(exists=True, dir_okay=False, readable=True)


@click.group(
    cls=OneLineErrors, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--version", is_flag=True, is_eager=True, callback=print_version, help="Show the version and exit."
)
@click.pass_context
def main(context: click.Context, version: bool) -> None:
    """Exact inference in discrete networks, from BIF and UAI files.

    Exit codes: 0 done; 1 the evidence is impossible, or the memory limit is too small; 2 bad input.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@main.command(cls=SpreadEvidence)
@click.argument("network", type=_NETWORK)
@evidence_options
@click.option(
    "--task",
    type=click.Choice(["pr", "mar", "map"]),
    default="mar",
    show_default=True,
    help="pr: the probability of the evidence. mar: posterior marginals of every node. "
    "map: the most probable assignment of all nodes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def query(
    network: str, evidence: tuple[str, ...], evidence_file: str | None, task: str, as_json: bool
) -> None:
    """Answer a query about NETWORK, a .bif or .uai file.

    \b
    sumout query alarm.bif --evidence CVP=LOW HRBP=HIGH
    sumout query alarm.bif --evidence CVP=LOW,HRBP=HIGH --task map
    sumout query grid.uai --evidence-file grid.uai.evid --task pr --json

    JSON goes to standard output as one object. Its "evidence" holds the observed states; logarithms are
    natural unless they are named log10. A probability of zero is "possible": false, its logarithms null.
    """
    from sumout.cli.query import run

    run(network, evidence, evidence_file, task, as_json)


@main.command(cls=SpreadEvidence)
@click.argument("network", type=_NETWORK)
@evidence_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def info(network: str, evidence: tuple[str, ...], evidence_file: str | None, as_json: bool) -> None:
    """Show the size of NETWORK and what a query would cost, before anything is run."""
    from sumout.cli.info import run

    run(network, evidence, evidence_file, as_json)
