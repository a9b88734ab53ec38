"""Which factors hang together."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Sequence
from typing import Protocol, TypeVar


class _HasInputs(Protocol):
    @property
    def inputs(self) -> Iterable[Hashable]: ...


Term = TypeVar("Term", bound=_HasInputs)


def components(terms: Sequence[Term], variables: Container[Hashable]) -> list[list[Term]]:
    """The terms in groups: those of one group are linked by chains of shared ``variables``; order is kept.

    >>> from types import SimpleNamespace as Term
    >>> groups = components([Term(inputs="ab"), Term(inputs="c"), Term(inputs="bd")], set("abcd"))
    >>> [[term.inputs for term in group] for group in groups]
    [['ab', 'bd'], ['c']]
    """
    parent = list(range(len(terms)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    owner: dict[Hashable, int] = {}
    for index, term in enumerate(terms):
        for name in term.inputs:
            if name in variables:
                low, high = sorted((root(owner.setdefault(name, index)), root(index)))
                parent[high] = low
    groups: dict[int, list[Term]] = {}
    for index, term in enumerate(terms):
        groups.setdefault(root(index), []).append(term)
    return list(groups.values())
