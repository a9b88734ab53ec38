from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

from sumout import poutine
from sumout.effects import handlers
from sumout.errors import ModelError

MODULES = [module.name for module in pkgutil.iter_modules(poutine.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_exports_what_it_lists_and_defines_nothing(name: str) -> None:
    module = importlib.import_module(f"sumout.poutine.{name}")
    assert module.__doc__
    for public in module.__all__:
        assert not getattr(getattr(module, public), "__module__", "").startswith("sumout.poutine")


def test_every_module_is_there_once_the_package_is() -> None:
    # In a process of its own: here the test above has imported them all.
    script = f"import sumout; print([n for n in {MODULES} if not hasattr(sumout.poutine, n)])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")


@pytest.mark.parametrize(
    "name",
    [
        "block",
        "broadcast",
        "condition",
        "enum",
        "infer_config",
        "markov",
        "mask",
        "replay",
        "scale",
        "seed",
        "trace",
        "uncondition",
    ],
)
def test_handlers_are_the_same_objects(name: str) -> None:
    assert getattr(poutine, name) is getattr(handlers, name)
    messenger = importlib.import_module(f"sumout.poutine.{name}_messenger")
    class_name = "".join(part.capitalize() for part in name.split("_")) + "Messenger"
    assert getattr(messenger, class_name) is getattr(handlers, class_name)


def test_a_mistake_is_a_value_error() -> None:
    with pytest.raises(ModelError):
        poutine.scale(scale=0.0)
    with pytest.raises(ValueError, match="scale"):
        poutine.scale(scale=0.0)
