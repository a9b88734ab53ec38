"""What the queries have in common: what is asked, of which graph, and what has no answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Message, Trace
from sumout.errors import EvidenceError, ImpossibleEvidenceError, ModelError, nearest
from sumout.factors import FactorGraph
from sumout.infer.answers.readout import latent_sites
from sumout.infer.programs.agreement import check_agreement
from sumout.infer.programs.program import EnumeratedProgram
from sumout.infer.rows.read import EvidenceTable, is_table, read_table
from sumout.infer.solving.prepared import PreparedGraph, prepared_graph
from sumout.lower import lower
from sumout.plan.structure import Readout

Target = Callable[..., Any] | FactorGraph
"""What can be asked: a program, called with its own arguments, or a graph, called with ``evidence={...}``."""


class Question:
    """Turns a call of a query into the graph to be solved, and for a program the trace it came from."""

    def __init__(self, target: Target, max_plate_nesting: int | None) -> None:
        self.graph = target if isinstance(target, FactorGraph) else None
        self.program = (
            None if isinstance(target, FactorGraph) else EnumeratedProgram(target, max_plate_nesting)
        )

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[FactorGraph, Trace | None]:
        if self.program is not None:
            program = self.program.program
            trace = self.program.trace(*args, **kwargs)
            graph = lower(trace)
            check_agreement(program, lambda: program(*args, **kwargs), trace, graph)
            return graph, trace
        assert self.graph is not None
        evidence = kwargs.pop("evidence", {})
        if args or kwargs:
            raise TypeError("A query of a FactorGraph takes one argument, evidence={name: state or index}.")
        return (self.graph.condition(evidence) if evidence else self.graph), None

    def quick(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[PreparedGraph, list[tuple[str, int]]] | None:
        """For a graph that is kept prepared, that and the states of what is observed."""
        if self.graph is None or args or not kwargs.keys() <= {"evidence"}:
            return None
        evidence = kwargs.get("evidence", {})
        prepared = prepared_graph(self.graph) if isinstance(evidence, Mapping) else None
        return None if prepared is None else (prepared, prepared.states(evidence))

    def table(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[FactorGraph, EvidenceTable] | None:
        """The graph and the table of evidence, where a graph was given one."""
        if (
            self.graph is None
            or args
            or "evidence" not in kwargs
            or not kwargs.keys() <= {"evidence", "columns"}
        ):
            return None
        evidence, columns = kwargs["evidence"], kwargs.get("columns")
        if columns is None and not is_table(self.graph, evidence):
            return None
        return self.graph, read_table(self.graph, evidence, columns)


def sites_of(trace: Trace | None) -> Mapping[str, Message]:
    """The enumerated sites of a program's trace; none for a graph."""
    return {} if trace is None else latent_sites(trace)


def group_of(names: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several as a tuple.

    Raises:
        EvidenceError: if there is none, or one twice.
    """
    group = (names,) if isinstance(names, str) else tuple(names)
    repeated = [name for place, name in enumerate(group) if name in group[:place]]
    if not group or repeated:
        raise EvidenceError(
            f"{repeated[0]!r} is named twice in {group!r}. Name each variable once."
            if repeated
            else "An empty group of names was given. Name at least one variable."
        )
    return group


def check_names(variables: Collection[str], wanted: Iterable[Readout]) -> None:
    """Raises ``EvidenceError`` for a name that is not one of the variables to be summed out."""
    for each in wanted:
        for name in group_of(each):
            if name not in variables:
                raise EvidenceError(
                    f"{name!r} is not summed out, so it has no marginal: it is observed, or there is no such name."
                    f"{nearest(str(name), variables)}"
                )


def refuse_scales(graph: FactorGraph, what: str) -> None:
    """Raises ``ModelError`` for a graph with powers, which make no distribution over assignments."""
    scaled = [f"plate {name!r}" for name, plate in graph.plates.items() if plate.scale != 1]
    scaled += [f"factor {factor.name!r}" for factor in graph.factors if factor.scale != 1]
    if scaled:
        raise ModelError(
            f"{what} is that of a distribution over assignments, and a power (of {scaled[0]}, from a subsampled plate "
            "or a scale) leaves none. Use the full plate, and no scale."
        )


def refuse_nan(graph: FactorGraph, value: Tensor) -> None:
    """Raises ``ModelError``, with the factors at fault, where the answer is not a number."""
    if value.isnan():
        # An infinite density and an impossible one are NaN together, though neither is alone.
        for kind, found in (("NaN", Tensor.isnan), ("infinite", Tensor.isposinf)):
            names = [repr(factor.name) for factor in graph.factors if found(factor.data).any()]
            if names:
                raise ModelError(
                    f"The log-probability is {kind} at {', '.join(names)}. Look for parameters and data there that "
                    "are not numbers, or at the edge of a support."
                )
        raise ModelError(
            "The log-probability is NaN, though no single site's is: look for very large parameters."
        )


def refuse_impossible(graph: FactorGraph, value: Tensor) -> None:
    """Raises ``ImpossibleEvidenceError`` where there is no posterior."""
    refuse_nan(graph, value)
    if value == -torch.inf:
        raise ImpossibleEvidenceError(
            "The observations have probability zero under the model, so there is no posterior. "
            "log_evidence gives -inf for them; observe less to find the contradiction."
        )
