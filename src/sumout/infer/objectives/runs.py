"""All runs of a guide and a model that a bound is made of, lowered: one of each, if nothing is enumerated
sequentially."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

from sumout.effects import Message, Trace
from sumout.errors import ControlFlowError, EnumerationError, PlateError
from sumout.factors import Factor, FactorGraph
from sumout.infer.objectives.guide_run import GuideRun, places_of, run_of_guide
from sumout.infer.objectives.guide_values import in_steps
from sumout.infer.objectives.pair import (
    Args,
    Kwargs,
    Program,
    collisions_told,
    trace_guide,
    trace_model,
)
from sumout.infer.programs.agreement import check_agreement
from sumout.infer.programs.graphs import automatic_sites
from sumout.infer.programs.modes import Mode, in_a_mode_that_works
from sumout.infer.programs.sequential import sequential_runs
from sumout.infer.rows.weights import raised
from sumout.lower import lower


class ModelRun(NamedTuple):
    """A run of the model and its graph, whose variables are to be summed out.

    ``powers`` are scales that differ from element to element; ``sites`` those that have one of their values in it.
    """

    trace: Trace
    graph: FactorGraph
    powers: Mapping[str, Factor]
    sites: Mapping[str, Message]

    @property
    def places(self) -> dict[str, int]:
        """Where each site stands in the run, by the names that sites have in a loop."""
        return places_of(self.trace)


class PairRun(NamedTuple):
    """A run of the guide, and the runs of the model that take its values."""

    trace: Trace
    guide: GuideRun
    models: list[ModelRun]


def pair_runs(
    model: Program, guide: Program, args: Args, kwargs: Kwargs, first_available_dim: int, key: Any
) -> list[PairRun]:
    """Runs a guide and a model with all that is marked enumerated.

    Args:
        model, guide: programs.
        args, kwargs: the arguments of both.
        first_available_dim: the first batch dimension, counted from the right, that no plate uses.
        key: what is remembered about these programs is remembered for it: an objective.

    Returns:
        For each joint value of the sites that the guide enumerates sequentially a run, and in it one run of the
        model for each joint value of those that the model alone enumerates sequentially.

    Raises:
        EnumerationError: what ``lower`` raises; if a program means something else with all values at once than with one
            value each.
        ControlFlowError: if Python decides on the value of a site that is enumerated in parallel.
    """

    def attempt(mode: Mode) -> list[PairRun]:
        room = collisions_told(model, guide, args, kwargs, -1 - first_available_dim)
        with room if mode is Mode.DIMS else nullcontext():
            # Where the model decides on a value of the guide, it is the guide that has to begin anew.
            return [run.result for run in sequential_runs(lambda: one_of_guide(mode))]

    def one_of_guide(mode: Mode) -> PairRun:
        recorded = trace_guide(guide, args, kwargs, first_available_dim, mode)

        plain: GuideRun | None = None

        def of_model() -> tuple[Trace, GuideRun, ModelRun]:
            nonlocal plain
            trace = trace_model(model, recorded, args, kwargs, first_available_dim, mode)
            try:
                guide_trace = in_steps(recorded.trace, trace)
                if guide_trace is recorded.trace:
                    run = plain = plain or run_of_guide(guide_trace)
                else:
                    run = run_of_guide(guide_trace)
                powers: dict[str, Factor] = {}
                graph = lower(trace, run.variables, multiplied=not run.scores, powers=powers)
                if run.comparable:
                    check_agreement(guide, lambda: guide(*args, **kwargs), guide_trace, run.graph)
                if run.comparable:
                    given = _with_given(raised(graph, powers), run)
                    check_agreement(key, lambda: model(*args, **kwargs), trace, given)
            except (EnumerationError, PlateError) as error:
                # What has no meaning with all values at once may have one with each, where that is allowed.
                names = automatic_sites(trace, error) if mode is Mode.SHAPED else frozenset[str]()
                if not names or isinstance(error, ControlFlowError):
                    raise
                raise ControlFlowError(str(error), sorted(names), names) from error
            return guide_trace, run, ModelRun(trace, graph, powers, {})

        runs = sequential_runs(of_model)
        guide_trace, run, _ = runs[0].result
        return PairRun(guide_trace, run, [each.result[-1]._replace(sites=each.sites) for each in runs])

    return in_a_mode_that_works(key, attempt)


def _with_given(graph: FactorGraph, guide: GuideRun) -> FactorGraph:
    """The model's graph with the guide's variables as variables of its own."""
    if not guide.variables:
        return graph
    met = {name for factor in graph.factors for name in factor.inputs if name in guide.variables}
    if not met:
        return graph
    given = {name: each for name, each in guide.variables.items() if name in met}
    return FactorGraph(graph.factors, {**graph.variables, **given}, graph.plates)
