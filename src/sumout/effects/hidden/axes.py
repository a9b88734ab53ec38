"""Enumerated sites as axes: the named dimensions of hidden values."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sumout.errors import MemoryLimitError
from sumout.settings import settings

_FEW = 8
_MOST = 2**27
_COPIES = 16
"""So many values of the largest size may be there at a time."""


class Axis:
    """The values of one enumerated site in one run.

    Attributes:
        number: orders the axes of a run; later sites have greater numbers.
        site: the site's name.
        size: how many values it has.
        automatic: whether it may be enumerated sequentially if Python decides on its value.
    """

    __slots__ = ("automatic", "number", "site", "size")

    def __init__(self, number: int, site: str, size: int, automatic: bool = False) -> None:
        self.number, self.site, self.size, self.automatic = number, site, size, automatic

    def __repr__(self) -> str:
        return f"{self.site}: {self.size}"


Axes = tuple[Axis, ...]
"""In the order of their numbers."""


def merged(several: Iterable[Axes]) -> Axes:
    """All axes of some values, each once, in order.

    Raises:
        MemoryLimitError: if they have more combinations than fit into memory.

    >>> a, b = Axis(0, "a", 2), Axis(1, "b", 3)
    >>> merged([(b,), (a, b), ()])
    (a: 2, b: 3)
    """
    found: Axes = ()
    for axes in several:
        if axes is found or axes == found or not axes:
            continue
        found = axes if not found else tuple(sorted({*found, *axes}, key=lambda axis: axis.number))
    if len(found) > _FEW:
        _check_memory(found)
    return found


def _check_memory(axes: Axes) -> None:
    combinations = math.prod(axis.size for axis in axes)
    if combinations > min(_MOST, settings.memory_limit // (_COPIES * 8)):
        sites = ", ".join(repr(axis.site) for axis in axes[:_FEW])
        raise MemoryLimitError(
            f"A value depends on {len(axes)} enumerated sites at once ({sites}, ...): {combinations:,} values "
            "are too many. Let values depend on fewer sites, for instance by sites for partial sums."
        )
