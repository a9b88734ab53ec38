"""The README and the docs do what they say: code and commands run, and links lead somewhere.

A page is one test; its blocks share a namespace and run from the project's root.

- ``python`` blocks run; one that starts with ``>>>`` is compared with the output it shows.
- ``console`` blocks: each ``$ sumout ...`` runs in this process; its output is compared with what follows it.
"""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run_commands(example: Example) -> str | None:
    """Runs the block's `sumout` commands; what is wrong with them, if anything."""
    from sumout.cli import main

    for block in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, _, shown = block.replace("\\\n", " ").partition("\n")
        program, *arguments = shlex.split(command)
        if program != "sumout":
            continue
        result = CliRunner().invoke(main, arguments)
        if result.exit_code != 0:
            return f"{command}\nexit code {result.exit_code}\n{result.output}\n{result.exception!r}"
        if shown.strip() and not doctest.OutputChecker().check_output(shown, result.output, OPTIONS):
            return f"{command}\nshown:\n{shown}\ngot:\n{result.output}"
    return None


READER = Sybil(
    parsers=[
        SkipParser(),
        PythonCodeBlockParser(doctest_optionflags=OPTIONS),
        CodeBlockParser(language="console", evaluator=run_commands),
    ],
)


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sumout

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    sumout.clear_param_store()
    sumout.set_rng_seed(0)
    for example in READER.parse(page).examples():
        example.evaluate()
    sumout.clear_param_store()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set(re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    written = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert listed == {page for page in written if not page.startswith("examples/data/")}
