"""Names that a module of the backend does not define itself: sumout's, or an error that says what to use."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from sumout.errors import nearest


def handed_on(module: str, name: str, source: ModuleType, instead: Mapping[str, str] | None = None) -> Any:
    """The object of a name in the module that stands behind one of the backend's.

    Args:
        module: what ``pyroapi`` calls the module.
        name: the name that was asked for.
        source: sumout's module.
        instead: what to use in the place of names that Pyro has and sumout has not.

    Raises:
        AttributeError: if there is none; ``pyroapi`` turns it into a ``NotImplementedError``, below which
            Python prints this one.

    >>> import sumout
    >>> handed_on("optim", "Adam", sumout.optim).__name__
    'Adam'
    """
    if not name.startswith("_"):  # a module's own: with the other's __path__ this one would be its package
        try:
            return getattr(source, name)
        except AttributeError:
            pass
    advice = (instead or {}).get(name)
    hint = nearest(name, names(source)) if advice is None else f" {advice}"
    raise AttributeError(f"The backend sumout has no {module}.{name}.{hint}")


def names(source: ModuleType) -> list[str]:
    """What a module offers.

    >>> import sumout
    >>> "Adam" in names(sumout.optim)
    True
    """
    return [name for name in dir(source) if not name.startswith("_")]
