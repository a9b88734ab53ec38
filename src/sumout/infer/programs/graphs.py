"""From a program to the graphs that are to be solved: one for each run that its sequential sites need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.effects import Message, Trace
from sumout.effects.trace import sample_sites, tensor_plates
from sumout.errors import ControlFlowError, EnumerationError, PlateError
from sumout.factors import Factor, FactorGraph
from sumout.infer.programs.agreement import Disagreement, check_agreement
from sumout.infer.programs.modes import Mode, in_a_mode_that_works
from sumout.infer.programs.program import EnumeratedProgram, refuse_latent
from sumout.infer.programs.sequential import sequential_runs
from sumout.infer.rows.weights import raised, weighted
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
            powers: dict[str, Factor] = {}
            graph = lower(trace, powers=powers)
            check_agreement(
                program.program, lambda: program.collapsed(*args, **kwargs), trace, raised(graph, powers)
            )
        except (EnumerationError, PlateError) as error:
            blamed = automatic_sites(trace, error)
            raise
        return weighted(graph, powers), trace

    try:
        return in_a_mode_that_works(program.program, attempt)
    except (EnumerationError, PlateError) as error:
        if not blamed or isinstance(error, ControlFlowError):
            raise
        raise ControlFlowError(str(error), sorted(blamed), blamed) from error


def graph_of_trace(trace: Trace) -> FactorGraph:
    """The graph of a run that needs no comparison with a plain one.

    Raises:
        EnumerationError, PlateError: as ``lower``.
    """
    powers: dict[str, Factor] = {}
    return weighted(lower(trace, powers=powers), powers)


def scale_of_runs(runs: Sequence[tuple[FactorGraph, Mapping[str, Message]]]) -> float:
    """The power that the sum over runs is raised to, which is that of all factors in it: powers do not add up.

    Args:
        runs: their graphs, with the sites that have one of their values in each.

    Raises:
        EnumerationError: if factors that differ from run to run have different scales, or one for each element.
    """
    scales: dict[str, float] = {}
    sequential = dict.fromkeys([name for _, sites in runs for name in sites])
    for graph, sites in runs:
        scales |= {factor.name: factor.scale for factor in graph.factors if factor.name not in sites}
        scales |= {name: _scale_of(site) for name, site in sites.items()}
    if len({*scales.values()}) > 1:
        alike = {
            factor.name for factor in runs[0][0].factors if _is_constant(factor, [each for each, _ in runs])
        }
        scales = {name: scale for name, scale in scales.items() if name not in alike or name in sequential}
    found = next(iter(scales.values()), 1.0)
    odd = next((name for name, scale in scales.items() if scale != found or math.isnan(scale)), None)
    if odd is None:
        return found
    name = odd if scales[odd] != 1 else next(iter(scales))
    raise EnumerationError(
        f"Site {name!r} has a scale, and sites are enumerated sequentially ({', '.join(sequential)}): what all runs "
        "contribute together has no one power, as others have another scale, or several elements of a plate (of "
        "particles, or subsampled) that weighs them. Put one scale around all sites, take it away (particles: "
        "vectorize_particles=False), or enumerate in parallel."
    )


def refuse_powers(runs: Sequence[tuple[FactorGraph, Mapping[str, Message]]], what: str) -> None:
    """Raises ``EnumerationError`` for runs whose sum would be raised to a power, which ``what`` has no place for."""
    if scale_of_runs(runs) != 1:
        names = ", ".join([repr(name) for _, sites in runs[:1] for name in sites])
        raise EnumerationError(
            f"Sites are enumerated sequentially ({names}) under a scale, and {what} does not raise the sum over runs "
            "to a power. Take the scale away, or enumerate in parallel."
        )


def _scale_of(site: Message) -> float:
    """The scale of a site that has one of its values, with the digits that factors have; NaN for several."""
    scale = site.scale
    several = isinstance(scale, Tensor) and scale.numel() > 1
    # In a plate that is a tensor dimension the value is one of all elements together, and they are weighed one by one.
    weighed = any(frame.scale != 1 for frame in tensor_plates(site).values())
    return math.nan if several or weighed else float(f"{float(scale):.14g}")


def _is_constant(factor: Factor, graphs: Sequence[FactorGraph]) -> bool:
    """Whether a factor is the same in all runs, and nothing is summed out in it."""
    if not graphs[0].variables.keys().isdisjoint(factor.inputs):
        return False
    others = [[each for each in graph.factors if each.name == factor.name] for graph in graphs]
    return all(
        len(found) == 1 and found[0].inputs == factor.inputs and torch.equal(found[0].data, factor.data)
        for found in others
    )


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
