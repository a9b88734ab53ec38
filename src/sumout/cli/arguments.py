"""How the command line is read, and how it complains: in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, NoReturn

import click

from sumout.cli.options import EVIDENCE
from sumout.errors import EvidenceError, GraphError, MissingExtraError, ParseError, SumoutError

BAD_INPUT = 2
NO_ANSWER = 1


class OneLineErrors(click.Group):
    """A group of commands that turns every expected error into one line on stderr and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the command; see ``click.Command.main``."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        if isinstance(sys.stdout, TextIOWrapper):  # a name must not fail where the terminal lacks its letters
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except click.Abort:
            _fail("interrupted", 130)
        except (ParseError, EvidenceError, GraphError, MissingExtraError) as error:
            _fail(str(error), BAD_INPUT)
        except SumoutError as error:
            _fail(as_typed(str(error)), NO_ANSWER)
        except (MemoryError, RuntimeError) as error:
            if not (isinstance(error, MemoryError) or _is_lack_of_memory(error)):
                raise
            _fail("out of memory; a smaller --memory-limit makes it run in slices", NO_ANSWER)
        except BrokenPipeError:  # whoever read the answer has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(NO_ANSWER)
        except OSError as error:
            _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), BAD_INPUT)
        sys.exit(code if isinstance(code, int) else 0)


def as_typed(message: str) -> str:
    """A message of the library with the remedy as it is typed here.

    >>> as_typed("Raise the limit: settings.override(memory_limit=...).")
    'Raise the limit: --memory-limit.'
    """
    return message.replace("settings.override(memory_limit=...)", "--memory-limit")


def _is_lack_of_memory(error: RuntimeError) -> bool:
    """Whether torch, which need not be here to tell, could not allocate."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"sumout: error: {' '.join(message.split())}", err=True)
    sys.exit(code)


class SpreadEvidence(click.Command):
    """A command whose ``--evidence`` takes several values after one another."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments; see ``click.Command.parse_args``."""
        return super().parse_args(ctx, spread(args))


def spread(args: Sequence[str]) -> list[str]:
    """Gives every value its own ``--evidence``, which is what click understands.

    >>> spread(["--evidence", "A=x", "B=y", "net.bif", "--json"])
    ['--evidence', 'A=x', '--evidence', 'B=y', 'net.bif', '--json']
    """
    result: list[str] = []
    opened = following = False  # the next argument is a value; the next may be one
    for place, arg in enumerate(args):
        if opened:
            opened, following = False, True
        elif arg == "--":
            return [*result, *args[place:]]
        elif arg.startswith("-"):
            opened, following = arg in EVIDENCE, arg.startswith("--evidence=")
        elif following and "=" in arg:
            result.append(EVIDENCE[0])
        else:
            following = False
        result.append(arg)
    return result


def print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Answers ``--version``."""
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"sumout {version('sumout')}")
        except PackageNotFoundError:
            click.echo("sumout, from its sources: not installed")
        context.exit()
