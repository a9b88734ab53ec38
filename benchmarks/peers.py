"""Libraries with the same statements under one set of names: a benchmark's program is written once."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Library:
    """Where a library keeps its statements, distributions, handlers and objectives."""

    name: str
    language: ModuleType
    dist: ModuleType
    poutine: ModuleType
    infer: ModuleType

    def __str__(self) -> str:
        return self.name


def sumout_library() -> Library:
    import sumout
    from sumout import distributions, infer, poutine

    return Library("sumout", sumout, distributions, poutine, infer)


def pyro_library() -> Library:
    import pyro
    import pyro.infer.reparam  # which pyro.infer does not import by itself
    from pyro import distributions, infer, poutine

    return Library("pyro", pyro, distributions, poutine, infer)


LIBRARIES = (sumout_library(), pyro_library())
