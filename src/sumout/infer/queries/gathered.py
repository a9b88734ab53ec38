"""Values of several runs of a program put together: of sites that some of them have, and others not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from sumout.errors import EnumerationError
from sumout.plan.structure import Readout


class Gathered:
    """Values by name along dimension 0, put together from those of runs, of which each has some of the names.

    Attributes:
        present: for each name which rows have it.
    """

    def __init__(self, count: int, names: Iterable[str]) -> None:
        self.count = count
        self.present = {name: torch.zeros(count, dtype=torch.bool) for name in names}
        self._values: dict[str, Tensor] = {}

    @property
    def values(self) -> dict[str, Tensor]:
        """What was put in; NaN, or -1 for integers, in the other rows."""
        return {name: self._values[name] for name in self.present if name in self._values}

    def put(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Puts values into some rows, in order."""
        for name, each in values.items():
            if name not in self.present:
                self.present[name] = torch.zeros(self.count, dtype=torch.bool)
            if name not in self._values:
                absent = float("nan") if each.is_floating_point() else -1
                self._values[name] = each.new_full((self.count, *each.shape[1:]), absent)
            check_alike(name, self._values[name].shape[1:], each.shape[1:])
            self._values[name][rows] = each
            self.present[name][rows] = True


def check_alike(each: Readout, one: Sequence[int], other: Sequence[int]) -> None:
    """Raises ``EnumerationError`` for shapes that differ from run to run."""
    if tuple(one) != tuple(other):
        raise EnumerationError(
            f"{each!r} has shape {tuple(one)} in one run of the program and {tuple(other)} in another, so there is no "
            "one answer for it. Give sites with other values or plates other names."
        )
