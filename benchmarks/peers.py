"""Libraries with the same statements under one set of names: a benchmark's program is written once."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Library:
    """Where a library keeps its statements, distributions, handlers, objectives and optimizers."""

    name: str
    language: ModuleType
    dist: ModuleType
    poutine: ModuleType
    infer: ModuleType
    optim: ModuleType

    def __str__(self) -> str:
        return self.name


def sumout_library() -> Library:
    import sumout
    from sumout import distributions, infer, optim, poutine

    return Library("sumout", sumout, distributions, poutine, infer, optim)


def pyro_library() -> Library:
    import pyro
    import pyro.infer.reparam  # which pyro.infer does not import by itself
    from pyro import distributions, infer, optim, poutine

    return Library("pyro", pyro, distributions, poutine, infer, optim)


LIBRARIES = (sumout_library(), pyro_library())
