"""`FactorGraph`: the content of `GraphData` with everything that can be done to it.

The methods only name the verbs; each is a function in a module of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sumout.factors.check import check
from sumout.factors.evidence import Evidence, condition
from sumout.factors.from_expression import read_expression
from sumout.factors.parts import GraphData, Plate
from sumout.factors.show import MOST_DRAWN, dot, table
from sumout.factors.tables import TableLike, graph_from_tables
from sumout.factors.to_expression import write_expression
from sumout.plan.show import drawn
from sumout.plan.structure import FactorShape, Structure, only_copy


@dataclass(frozen=True, eq=False, repr=False)
class FactorGraph(GraphData):
    """Factors, the variables to eliminate, the plates, and optional state labels.

    Building one checks nothing: lowering does so in every training step. `from_tables`, `from_funsor` and
    `condition` do check what they are given.

    >>> import torch
    >>> graph = FactorGraph.from_tables(
    ...     {"rain": (["rain"], [0.8, 0.2]), "wet|rain": (["rain", "wet"], [[0.9, 0.1], [0.2, 0.8]])},
    ...     states={"rain": ["no", "yes"], "wet": ["no", "yes"]},
    ... )
    >>> graph
    FactorGraph(2 factors, 2 variables, 0 plates)
    >>> graph.condition({"wet": "yes"}).factors[1].data.exp()
    tensor([0.1000, 0.8000])
    """

    @classmethod
    def from_tables(
        cls,
        tables: Mapping[str, tuple[Sequence[str], TableLike]],
        *,
        plates: Mapping[str, int | Plate] | None = None,
        ordinals: Mapping[str, Collection[str]] | None = None,
        states: Mapping[str, Sequence[str]] | None = None,
        log: bool = False,
    ) -> FactorGraph:
        """A checked graph from tables ``name -> (inputs, values)``, one dim of the values per input.

        An input is a variable unless ``plates`` (name -> size or `Plate`) has it. ``ordinals`` gives the
        plates that a variable has a copy for; other variables have one copy. It may also give, by a table's
        name, plates that the table lives in without varying along them. Values are probabilities, or with
        ``log`` their logarithms: a tensor, a numpy array or nested lists.

        Raises `GraphError` when sizes disagree, a value is negative, or an invariant of `check` fails.
        """
        data = graph_from_tables(tables, plates or {}, ordinals or {}, states or {}, log)
        graph = cls(data.factors, data.variables, data.plates, data.states)
        graph.check()
        return graph

    @classmethod
    def from_funsor(cls, expression: Any) -> FactorGraph:
        """A checked graph from a lazy funsor expression of a log-density with every input reduced.

        Understood are Tensor and Number leaves, ``+``, multiplication by a Number, and reductions by
        ``logaddexp`` (of variables) and ``add`` (of plates), as ``Binary``, ``Reduce`` or ``Contraction``.
        Funsor renames what it binds, ``x`` to ``x__BOUND_3``: the first ``x`` gets its name back, another
        variable of that name becomes ``x_2``; plates of one name, size and scale are one plate.

        Raises `GraphError` for anything else, and for inputs that are not reduced.

        >>> graph = FactorGraph.from_tables({"coin": (["side"], [0.5, 0.5])})
        >>> FactorGraph.from_funsor(graph.to_funsor()).variables
        {'side': Variable(size=2, plates=frozenset())}
        """
        data = read_expression(expression)
        graph = cls(data.factors, data.variables, data.plates, data.states)
        graph.check()
        return graph

    @cached_property
    def structure(self) -> Structure:
        """Names, sizes and ordinals alone: what a plan is made from and kept under."""
        sizes = [(name, variable.size) for name, variable in self.variables.items()]
        sizes += [(name, plate.size) for name, plate in self.plates.items()]
        return only_copy(
            Structure(
                tuple([FactorShape(factor.inputs, factor.plates, factor.scale) for factor in self.factors]),
                tuple(sizes),
                tuple([(name, variable.plates) for name, variable in self.variables.items()]),
                tuple([(name, plate.scale) for name, plate in self.plates.items()]),
            )
        )

    def check(self) -> None:
        """Raises `GraphError` unless every invariant written in ``sumout.factors.check`` holds."""
        check(self)

    def condition(self, evidence: Evidence) -> FactorGraph:
        """The graph with variables fixed: tables sliced, the variables gone; log Z is that of the evidence.

        ``evidence`` maps a variable to a state label or an index. For a variable in plates it is an integer
        tensor (or nested list of labels or indices) whose shape is the sizes of the plates in sorted order,
        or one value for all copies.

        Raises `EvidenceError` for an unknown variable or state (naming the nearest ones), an index out of
        range, or a wrong shape.
        """
        data = condition(self, evidence)
        return FactorGraph(data.factors, data.variables, data.plates, data.states)

    def to_funsor(self) -> Any:
        """The whole graph as one lazy funsor expression without inputs, whose value is log Z.

        Variables are reduced by ``logaddexp``, plates by ``add``, deepest first; a scale is a multiplication
        by a Number. Every leaf is expanded, without a copy, to all plates its factor lives in.

        Raises `GraphError` when the plates are not tree-shaped.
        """
        return write_expression(self)

    def to_dot(self) -> str:
        """The graph in Graphviz's DOT language: variables are ellipses, factors boxes, plates clusters."""
        return dot(self)

    def draw(self, path: str | Path | None = None) -> str:
        """The graph as a picture, by Graphviz.

        Args:
            path: where it is written; its ending (``.svg``, ``.pdf``, ``.png``) is its format.

        Returns:
            The picture as SVG.

        Raises:
            MissingExtraError: if the extra ``draw`` or the program ``dot`` is not installed.
        """
        return drawn(self.to_dot(), path)

    def _repr_svg_(self) -> str | None:
        """What a notebook shows of a graph that is not too large; where nothing can draw, it shows the text."""
        return drawn(self.to_dot(), None, quiet=True) or None if len(self.factors) <= MOST_DRAWN else None

    def __str__(self) -> str:
        return table(self)

    def __repr__(self) -> str:
        return (
            f"FactorGraph({len(self.factors)} factors, {len(self.variables)} variables, "
            f"{len(self.plates)} plates)"
        )
