"""Terms of a bound: named tables whose expectation over a guide's enumerated sites, summed over plates, is the bound.

Everything here goes by names: of plates, and of the guide's enumerated sites, its *variables*. Which tensor dimension
these had in the guide or in the model does not matter any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from torch import Tensor

from sumout.factors import Factor, FactorGraph


class Table(NamedTuple):
    """A tensor with a name for each dimension."""

    names: tuple[str, ...]
    data: Tensor

    def along(self, names: Sequence[str]) -> Tensor:
        """The tensor with its dimensions in the order of ``names``, of size one where it has none.

        >>> import torch
        >>> Table(("a", "b"), torch.zeros(2, 3)).along(("b", "c", "a")).shape
        torch.Size([3, 1, 2])
        """
        if self.names == tuple(names):
            return self.data
        places = {name: place for place, name in enumerate(self.names)}
        present = [name for name in names if name in places]
        data = self.data.permute([places[name] for name in present])
        sizes = dict(zip(present, data.shape, strict=True))
        return data.reshape([sizes.get(name, 1) for name in names])


class Term(NamedTuple):
    """A part of a bound.

    It counts ``weight`` times, once for each element of ``plates``; a plate that is not among the table's names is one
    along which it is constant. ``site`` and ``of_guide`` tell where it stands in its run: a term depends on nothing
    that is drawn after the site of that number. With ``before`` it does not depend on that site itself either.
    """

    table: Table
    plates: frozenset[str] = frozenset()
    weight: float = 1.0
    site: int = 0
    of_guide: bool = False
    before: bool = False


def factor_term(
    factor: Factor, graph: FactorGraph, sign: float = 1.0, site: int = 0, of_guide: bool = False
) -> Term:
    """A factor as a term by itself: its scale and the weights of its plates multiply it."""
    weight = sign * factor.scale
    for plate in factor.plates:
        weight *= graph.plates[plate].scale
    return Term(Table(factor.inputs, factor.data), factor.plates, weight, site, of_guide)


def union(*names: Collection[str]) -> tuple[str, ...]:
    """Names in the order in which they are met first.

    >>> union(("a", "b"), ("c", "a"))
    ('a', 'b', 'c')
    """
    return tuple(dict.fromkeys([each for group in names for each in group]))
