"""Plates written out: a copy of each variable and factor for every element of some plates.

Plates that are not tree-shaped cannot be multiplied out before the variables in them are gone. When enough plates are
written out, the rest is a tree again. Only what has variables in such a plate is copied: a factor that lives in the
plate without them is still multiplied over it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from sumout.errors import MemoryLimitError, PlanError
from sumout.plan.outline import StuckError, listed
from sumout.plan.structure import FactorShape, Readout, Structure

_MOST_COPIES = 2**16
"""Of factors and variables. A graph of more takes too long to plan."""

Element = tuple[tuple[str, int], ...]
"""An element of some plates: the plates by name, sorted, each with an index."""


class Copy(NamedTuple):
    """A factor of the unrolled graph: the number of the original, and the element at which it is read."""

    source: int
    at: Element


@dataclass(frozen=True)
class Unrolled:
    """A structure with plates written out, and where its parts come from.

    Attributes:
        structure: the unrolled one.
        plates: those that were written out.
        factors: of each new factor, where it comes from.
        copies: of each old variable that lives in one of the plates, those of them that it lives in (sorted), and its
            new names by index along these.
    """

    structure: Structure
    plates: tuple[str, ...]
    factors: tuple[Copy, ...]
    copies: Mapping[str, tuple[tuple[str, ...], Mapping[tuple[int, ...], str]]]

    def at(self, name: str, element: Mapping[str, int]) -> str:
        """The copy of a variable at an element of at least all plates that it was unrolled over."""
        if name not in self.copies:
            return name
        plates, names = self.copies[name]
        return names[tuple([element[plate] for plate in plates])]

    def readout(self, wanted: Readout, element: Mapping[str, int]) -> Readout:
        """The copy of a readout at an element."""
        if isinstance(wanted, str):
            return self.at(wanted, element)
        return tuple([self.at(name, element) for name in wanted])

    def home(self, wanted: Readout) -> tuple[str, ...]:
        """The plates over which a readout was unrolled, sorted."""
        names = (wanted,) if isinstance(wanted, str) else wanted
        return tuple(
            sorted({plate for name in names if name in self.copies for plate in self.copies[name][0]})
        )

    def elements(self, wanted: Readout, sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """The elements at which a readout has copies, the last plate fastest."""
        home = self.home(wanted)
        for index in itertools.product(*[range(sizes[plate]) for plate in home]):
            yield dict(zip(home, index, strict=True))


def _elements(plates: Collection[str], sizes: Mapping[str, int]) -> list[Element]:
    names = sorted(plates)
    return [
        tuple(zip(names, index, strict=True))
        for index in itertools.product(*[range(sizes[name]) for name in names])
    ]


@lru_cache(maxsize=64)
def unroll(structure: Structure, plates: tuple[str, ...]) -> Unrolled:
    """Writes plates out.

    Args:
        structure: the plated one.
        plates: the names of those to be written out.

    Raises:
        PlanError: if a plate is subsampled and variables live in it: each of its elements stands for more than one, of
            which none can be written out.

    >>> pair = Structure((FactorShape(("z", "i"), frozenset("i")),), (("z", 2), ("i", 2)), (("z", frozenset("i")),),
    ...                  (("i", 1.0),))
    >>> [factor.inputs for factor in unroll(pair, ("i",)).structure.factors]
    [('z[i=0]',), ('z[i=1]',)]
    """
    sizes, weights = dict(structure.sizes), dict(structure.plates)
    taken = set(sizes)
    copies: dict[str, tuple[tuple[str, ...], dict[tuple[int, ...], str]]] = {}
    variables: list[tuple[str, frozenset[str]]] = []
    new_sizes: list[tuple[str, int]] = []
    for name, ordinal in structure.variables:
        gone = tuple(sorted(ordinal.intersection(plates)))
        for plate in gone:
            if weights[plate] != 1.0:
                raise _subsampled(plate, weights[plate], name, plates)
        names: dict[tuple[int, ...], str] = {}
        for element in _elements(gone, sizes):
            names[tuple([index for _, index in element])] = new = _name(name, element, taken)
            variables.append((new, ordinal.difference(plates)))
            new_sizes.append((new, sizes[name]))
        if gone:
            copies[name] = gone, names
    factors: list[FactorShape] = []
    sources: list[Copy] = []
    for number, factor in enumerate(structure.factors):
        own = {plate for name in factor.inputs if name in copies for plate in copies[name][0]}
        for element in _elements(own, sizes):
            index = dict(element)
            inputs = [
                copies[name][1][tuple([index[plate] for plate in copies[name][0]])]
                if name in copies
                else name
                for name in factor.inputs
                if name not in own
            ]
            factors.append(factor._replace(inputs=tuple(inputs), plates=factor.plates - own))
            sources.append(Copy(number, element))
    kept = {*(name for name, _ in structure.plates), *structure.batch}
    new_sizes += [(name, size) for name, size in structure.sizes if name in kept]
    unrolled = Structure(
        tuple(factors), tuple(new_sizes), tuple(variables), structure.plates, structure.batch
    )
    return Unrolled(unrolled, tuple(sorted(plates)), tuple(sources), copies)


def _name(name: str, element: Element, taken: set[str]) -> str:
    if not element:
        return name
    found = f"{name}[{','.join(f'{plate}={index}' for plate, index in element)}]"
    while found in taken:
        found += "'"
    taken.add(found)
    return found


def _subsampled(plate: str, weight: float, name: str, plates: Collection[str]) -> PlanError:
    return PlanError(
        f"The plates {sorted(plates)} are not tree-shaped and would have to be written out, but {plate!r} is "
        f"subsampled: each of its elements, a copy of {name!r} among them, stands for {weight:g}. Take the whole plate."
    )


def how_many(structure: Structure, plates: Collection[str]) -> int:
    """How many factors and variables there are when plates are written out."""
    sizes, ordinals = dict(structure.sizes), dict(structure.variables)

    def copies(home: Collection[str]) -> int:
        return math.prod(sizes[plate] for plate in home if plate in plates)

    return sum(copies(ordinal) for ordinal in ordinals.values()) + sum(
        copies(frozenset().union(*[ordinals[name] for name in factor.inputs if name in ordinals]))
        for factor in structure.factors
    )


def cheapest(structure: Structure, stuck: StuckError, seconds: Callable[[Unrolled], float]) -> Unrolled:
    """Writes out those plates that make the rest tree-shaped at the least cost.

    Args:
        structure: one whose plates are not tree-shaped.
        stuck: the error that tells so.
        seconds: what an unrolled structure costs; raises ``StuckError`` where it is not tree-shaped yet.

    Raises:
        PlanError: if a plate that must be written out is subsampled.
        MemoryLimitError: if every choice makes too many copies.
    """
    waiting = [(frozenset[str](), stuck)]
    seen: set[frozenset[str]] = set()
    found: list[tuple[float, list[str], Unrolled]] = []
    refused: list[PlanError] = []
    too_large: list[tuple[int, list[str]]] = []
    while waiting:
        plates, error = waiting.pop()
        for plate in sorted(error.plates):
            more = plates | {plate}
            if more in seen:
                continue
            seen.add(more)
            copies = how_many(structure, more)
            if copies > _MOST_COPIES:
                too_large.append((copies, sorted(more)))
                continue
            try:
                unrolled = unroll(structure, tuple(sorted(more)))
                found.append((seconds(unrolled), sorted(more), unrolled))
            except StuckError as again:
                waiting.append((more, again))
            except PlanError as no:
                refused.append(no)
    if found:
        return min(found, key=lambda each: each[:2])[2]
    if too_large:
        copies, names = min(too_large)
        raise MemoryLimitError(
            f"{stuck} That way, or by itself, the cheapest choice, {listed(names)}, makes {copies:,} copies of "
            f"variables and factors; {_MOST_COPIES:,} can be planned. Take fewer elements, or observe variables."
        )
    raise refused[0]
