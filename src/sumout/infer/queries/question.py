"""What the queries have in common: what is asked, of which graph, and what has no answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Message, Trace
from sumout.errors import EnumerationError, EvidenceError, ImpossibleEvidenceError, ModelError, nearest
from sumout.execute.transforms import in_vmap
from sumout.factors import FactorGraph
from sumout.infer.answers.readout import check_shared_shape, latent_sites
from sumout.infer.collapsing.results import groups_of
from sumout.infer.programs.graphs import ProgramGraph, graphs_of
from sumout.infer.programs.program import EnumeratedProgram
from sumout.infer.rows.read import EvidenceTable, is_table, read_table
from sumout.infer.rows.weights import WeightedGraph
from sumout.infer.solving.prepared import PreparedGraph, prepared_graph
from sumout.plan.structure import Readout

Target = Callable[..., Any] | FactorGraph
"""What can be asked: a program, called with its own arguments, or a graph, called with ``evidence={...}``."""


class Question:
    """Turns a call of a query into the graph to be solved, and for a program the trace it came from."""

    def __init__(
        self, target: Target, max_plate_nesting: int | None, enumeration: str | None = "parallel"
    ) -> None:
        if not callable(target) and not isinstance(target, FactorGraph):
            raise TypeError(
                f"What can be asked is a program (a callable) or a FactorGraph, not {type(target).__name__}. "
                "io.read_network and FactorGraph.from_tables make graphs; io.from_pgmpy and io.from_pyagrum make one "
                "of a model of these libraries."
            )
        self.graph = target if isinstance(target, FactorGraph) else None
        self.program = (
            None
            if isinstance(target, FactorGraph)
            else EnumeratedProgram(target, max_plate_nesting, enumeration)
        )

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[FactorGraph, Trace | None]:
        runs = self.runs(args, kwargs)
        if runs[0].sites:
            names = ", ".join(map(repr, runs[0].sites))
            raise EnumerationError(
                f"Sites are enumerated sequentially ({names}): the program decides, run by run, what depends on them, "
                "so this query, of the sites that each factor depends on, has no answer. Ask for joint marginals: "
                "marginals(program, [('a', 'b')]). Or enumerate in parallel: infer={'enumerate': 'parallel'}, with "
                "torch.where in the place of decisions on their values."
            )
        return runs[0].graph, runs[0].trace

    def runs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[ProgramGraph]:
        """The graphs to be solved: one for a graph, and for a program without sequential sites."""
        _refuse_vmap()
        if self.program is not None:
            return graphs_of(self.program, args, kwargs)
        assert self.graph is not None
        if args or not kwargs.keys() <= {"evidence", "columns"}:
            raise TypeError("A query of a FactorGraph takes one argument, evidence={name: state or index}.")
        table = self.table(args, kwargs)
        if table is not None:
            raise EvidenceError(
                f"The evidence is a table of {table[1].count} rows, and this query takes one set of observations, "
                "evidence={name: state}: ask it row by row, [query(evidence=row) for row in rows]. Tables are taken by "
                "log_evidence, marginals, factor_beliefs, map_assignment, expectation, mutual_information, and "
                "entropy of named variables."
            )
        evidence = kwargs.get("evidence", {})
        return [ProgramGraph(self.graph.condition(evidence) if evidence else self.graph, None, {})]

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
        _refuse_vmap()
        if (
            self.graph is None
            or args
            or "evidence" not in kwargs
            or not kwargs.keys() <= {"evidence", "columns"}
        ):
            return None
        evidence, columns = kwargs["evidence"], kwargs.get("columns")
        if evidence is None or (columns is None and not is_table(self.graph, evidence)):
            return None
        return self.graph, read_table(self.graph, evidence, columns)


def _refuse_vmap() -> None:
    """Raises ``ModelError`` inside ``torch.vmap``: plans are checked and chosen by numbers, which it hides."""
    if in_vmap():
        raise ModelError(
            "A query was called inside torch.vmap (or jacfwd and hessian, which use it), where it cannot look at its "
            "numbers. Ask about many observations by a table of evidence, evidence={name: column}; about many values "
            "of parameters by a plate over them. Derivatives are torch.autograd's, or torch.func.grad and jacrev."
        )


def sites_of(trace: Trace | None) -> Mapping[str, Message]:
    """The enumerated sites of a program's trace; none for a graph."""
    return {} if trace is None else latent_sites(trace)


def group_of(names: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several as a tuple.

    Raises:
        EvidenceError: if there is none, or one twice.
    """
    group = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    wrong = [name for name in group if not isinstance(name, str)]
    if wrong:
        raise EvidenceError(f"{wrong[0]!r} is no name of a variable: names are strings, one or several.")
    repeated = [name for place, name in enumerate(group) if name in group[:place]]
    if not group or repeated:
        raise EvidenceError(
            f"{repeated[0]!r} is named twice in {group!r}. Name each variable once."
            if repeated
            else "An empty group of names was given. Name at least one variable."
        )
    return group


def readouts_of(wanted: str | Iterable[str | Iterable[str]]) -> tuple[Readout, ...]:
    """What ``marginals`` is asked for: names, and groups of names as tuples."""
    if isinstance(wanted, str) or not isinstance(wanted, Iterable):
        return group_of(wanted)
    return tuple([each if isinstance(each, str) else group_of(each) for each in wanted])


def check_names(
    variables: Collection[str], wanted: Iterable[Readout], sites: Mapping[str, Message] = MappingProxyType({})
) -> None:
    """Refuses what has no marginal.

    Args:
        variables: those that are summed out.
        wanted: names and groups of names.
        sites: of a program, by the names of their variables.

    Raises:
        EvidenceError: for a name that is not one of the variables.
        PlanError: for a group whose plates a program has at one dimension.
    """
    for each in wanted:
        for name in group_of(each):
            if name not in variables:
                raise EvidenceError(
                    f"{name!r} is not summed out, so it has no marginal: it is observed, or there is no such name."
                    f"{nearest(str(name), variables)}"
                )
        check_shared_shape(sites, each)


def refuse_collapsed(trace: Trace | None, what: str, remedy: str) -> None:
    """Raises ``ModelError`` for a program with sites that were integrated out, where that has no meaning."""
    groups = groups_of(trace)
    if groups:
        raise ModelError(
            f"{what} is asked of discrete sites, and collapse integrated site {next(iter(groups))!r} out. {remedy}"
        )


def refuse_continuous(trace: Trace | None, names: Iterable[str]) -> None:
    """Raises ``EvidenceError`` for names of sites that ``collapse`` integrated out: they have no table."""
    groups = groups_of(trace)
    for name in names:
        if name in groups:
            raise EvidenceError(
                f"{name!r} was integrated out by collapse: it has a density, and no table of states. marginals gives "
                "its distribution (with mean, variance and entropy), posterior_samples draws to average over."
            )


def refuse_scales(graph: FactorGraph, what: str) -> None:
    """Raises ``ModelError`` for a graph with powers, which make no distribution over assignments."""
    scaled = [f"plate {name!r}" for name, plate in graph.plates.items() if plate.scale != 1]
    scaled += [f"factor {factor.name!r}" for factor in graph.factors if factor.scale != 1]
    scaled += [f"factor {name!r}" for name in (graph.powers if isinstance(graph, WeightedGraph) else ())]
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
