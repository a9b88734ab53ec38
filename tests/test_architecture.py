"""What import contracts cannot express: to them an external package is one thing, its parts unseen."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "sumout"
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that the source imports, `from a import b` counted as a.b: b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_of_pyro_only_its_distributions_are_imported() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in SOURCES
        for name in imported(ast.parse(path.read_text()))
        if name.split(".")[0] in {"pyro", "pyroapi"}
    }
    wrong = [pair for pair in found if not (pair[1] + ".").startswith("pyro.distributions.")]
    assert wrong == []


@pytest.mark.parametrize("name", ["utils", "misc", "common", "helpers"])
def test_no_module_is_named_after_nothing(name: str) -> None:
    assert [path for path in SOURCES if name in (path.stem, path.parent.name)] == []


def test_a_plan_is_made_without_tensors() -> None:
    # The package's own __init__, which re-exports the tensor half too, is stood in for by an empty one.
    script = f"""
import sys, types
package = types.ModuleType("sumout")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["sumout"] = package
import sumout.plan
print(sorted({{"torch", "funsor", "pyro"}} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")
