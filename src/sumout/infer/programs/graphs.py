"""From a program to the graphs that are to be solved: one for each run that its sequential sites need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sumout.effects import Message, Trace
from sumout.effects.trace import sample_sites, tensor_plates
from sumout.errors import ControlFlowError, EnumerationError, PlateError
from sumout.factors import FactorGraph
from sumout.infer.programs.agreement import Disagreement, check_agreement
from sumout.infer.programs.modes import Mode, in_a_mode_that_works
from sumout.infer.programs.program import EnumeratedProgram, refuse_latent
from sumout.infer.programs.sequential import sequential_runs
from sumout.lower import lower


class ProgramGraph(NamedTuple):
    """One run of a program, and the graph of what it enumerated in parallel; a graph that was given has no trace.

    ``sites`` are those that had one of their values in this run, by name: factors of the graph without variables of
    their own.
    """

    graph: FactorGraph
    trace: Trace | None
    sites: Mapping[str, Message]


def graphs_of(
    program: EnumeratedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[ProgramGraph]:
    """The graphs whose values add up to a program's evidence; one, if no site is enumerated sequentially.

    Raises:
        EnumerationError: if a latent site has no finite support, or the program means something else with all values at
            once than with one value each.
        ControlFlowError: if Python decides on the value of a site that is marked ``"parallel"``.
        PlateError: as ``lower``.
    """
    runs = sequential_runs(lambda: graph_of_run(program, args, kwargs))
    return [ProgramGraph(*run.result, run.sites) for run in runs]


def graph_of_run(
    program: EnumeratedProgram, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, refuse: bool = True
) -> tuple[FactorGraph, Trace]:
    """The graph of one run, lowered and compared with a plain run.

    Args:
        program: what is run with ``args`` and ``kwargs``.
        refuse: whether a latent site that cannot be enumerated is an error; else it has the value that a handler gave
            it or that was drawn.
    """
    blamed: frozenset[str] = frozenset()

    def attempt(mode: Mode) -> tuple[FactorGraph, Trace]:
        nonlocal blamed
        trace = program.run_in(mode, args, kwargs)
        if refuse:
            refuse_latent(trace)
        try:
            graph = lower(trace)
            check_agreement(program.program, lambda: program.collapsed(*args, **kwargs), trace, graph)
        except (EnumerationError, PlateError) as error:
            blamed = automatic_sites(trace, error)
            raise
        return graph, trace

    try:
        return in_a_mode_that_works(program.program, attempt)
    except (EnumerationError, PlateError) as error:
        if not blamed or isinstance(error, ControlFlowError):
            raise
        raise ControlFlowError(str(error), sorted(blamed), blamed) from error


def automatic_sites(trace: Trace, error: Exception) -> frozenset[str]:
    """Sites that would have to be enumerated sequentially, if that is allowed for all of them.

    They are those on which a site depends that means something else with all values at once, and those in a plate on
    which a site outside of it depends.
    """
    sites = {site.name or "": site for site in sample_sites(trace)}
    found: set[str] = set()
    for name, site in sites.items():
        plates = {frame.name for frame in tensor_plates(site).values()}
        for other in set((site.enum_dims or {}).values()) - {name}:
            home = {frame.name for frame in tensor_plates(sites[other]).values()} if other in sites else set()
            if not home <= plates or (isinstance(error, Disagreement) and error.site == name):
                found.add(other)
    if any(name not in sites or sites[name].infer.get("enumerate") == "parallel" for name in found):
        return frozenset()
    return frozenset(found)
