"""What a factor graph is made of: records without behaviour.

Meaning: each variable has one copy per element of its plates, and

    log Z = log sum over all copies of all variables, of the product over factors, and over the elements of
            the factor's plates, of exp(table).

Two powers refine this. ``Plate.scale`` multiplies the logarithm of each product over the plate's elements,
after the variables inside the plate have been summed out: a plate of 10 subsampled elements out of 1000 has
scale 100. ``Factor.scale`` multiplies the logarithm of what the factor's component contributes, after all its
variables have been summed out; factors that share variables share one scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from sumout.terms import named_tensor


@dataclass(frozen=True, slots=True)
class Variable:
    """A discrete variable to eliminate; ``plates`` is its ordinal: one copy per element of these plates.

    >>> Variable(3, frozenset({"docs"}))
    Variable(size=3, plates=frozenset({'docs'}))
    """

    size: int
    plates: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plate:
    """A set of independent elements; ``scale`` is full size over size where they are a subsample."""

    size: int
    scale: float = 1.0


class _TermSlot:
    """A place to keep the funsor that a factor makes on demand; empty until then, so it costs nothing."""

    __slots__ = ("_term",)
    _term: Any


@dataclass(frozen=True, eq=False, slots=True)
class Factor(_TermSlot):
    """A table of log-values over variables and plates.

    ``data`` has one dim per name in ``inputs``, of that name's size. ``plates`` is the ordinal: all plates
    the factor lives in. One that is not among ``inputs`` is one along which the table is constant; the
    factor still counts once per element. ``scale`` is the power of the factor's component.

    >>> coin = Factor("coin", ("side",), torch.tensor([0.5, 0.5]).log(), frozenset())
    >>> dict(coin.term.inputs)
    {'side': Bint[2]}
    """

    name: str
    inputs: tuple[str, ...]
    data: torch.Tensor
    plates: frozenset[str] = frozenset()
    scale: float = 1.0

    @property
    def term(self) -> Any:
        """The table as a ``funsor.tensor.Tensor`` with the same inputs, made when first asked for."""
        try:
            return self._term
        except AttributeError:
            term = named_tensor(self.data, self.inputs)
            object.__setattr__(self, "_term", term)
            return term


@dataclass(frozen=True, eq=False)
class GraphData:
    """The content of a factor graph: what the modules of this package take and give."""

    factors: tuple[Factor, ...]
    variables: Mapping[str, Variable]
    plates: Mapping[str, Plate] = field(default_factory=dict)
    states: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def size(self, name: str) -> int:
        """The size of a variable or plate."""
        variable = self.variables.get(name)
        return variable.size if variable is not None else self.plates[name].size
