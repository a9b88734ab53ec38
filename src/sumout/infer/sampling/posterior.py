"""The exact joint posterior of a program's discrete sites given everything else, drawn from or maximised.

The program runs with all values of its discrete sites at once; the graph of that run is solved, and what was drawn
from it is replayed in a run proper, in which all sites have one value and their own log-probabilities.

What is neither discrete nor given is drawn, and the discrete sites are then drawn given that value. That is a joint
draw only if the value does not depend on them. One that does, and that nothing else depends on, is left out of the
graph (it integrates to one) and drawn in the run proper. One that does and on which others depend has no exact
posterior, and is refused.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sumout.effects import CondIndepStackFrame, Message, Messenger, Trace, get_plates
from sumout.effects.handlers import ReplayMessenger, TraceMessenger
from sumout.effects.handlers.named import unused_names_allowed
from sumout.effects.random_state import kept_rng_state, set_rng_seed
from sumout.errors import EnumerationError, ModelError
from sumout.execute import MAX_SUM, Choice
from sumout.factors import FactorGraph
from sumout.infer.answers.readout import latent_sites, site_value
from sumout.infer.programs.graphs import graph_of_run, scale_of_runs
from sumout.infer.programs.program import EnumeratedProgram, Rehearsal, check_declared, plate_nesting
from sumout.infer.programs.sequential import sequential_runs
from sumout.infer.programs.unrecorded import Unrecorded
from sumout.infer.queries.question import refuse_impossible
from sumout.infer.rows.weights import for_maxima, without_factors
from sumout.infer.sampling.influence import Run, different, drawn, redrawn, runs_along_values, shape_of
from sumout.infer.solving.solve import sample, solve

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


_REPETITIONS = 3
"""How often a run is repeated to see what depends on a site that was drawn: a draw may be the same by chance."""


class _Keep(Messenger):
    """Gives sites the values that they had in another run of the program.

    Where the program lies in plates that are tensor dimensions, each of their elements has its own discrete values, so
    that no run can take them one after another.
    """

    def __init__(self) -> None:
        self.run = _KeptInRun()

    def _pyro_sample(self, msg: Message) -> None:
        if msg.is_observed or msg.done:
            return
        if msg.name in self.run.sites:
            msg.value = self.run.sites[msg.name].value
            msg.done = True
        elif self.run.in_plates and msg.infer.get("enumerate") in ("sequential", "auto"):
            msg.infer["enumerate"] = "parallel"


class _KeptInRun(threading.local):
    """What this thread's runs share."""

    def __init__(self) -> None:
        self.sites: dict[str, Message] = {}
        self.in_plates = False


class DiscretePosterior:
    """Draws values for the discrete sites of a program from their joint posterior, given all others.

    Args:
        program: the model.
        max_plate_nesting: tensor dimensions of its plates, those around it included; found by a trial run if ``None``.
        temperature: 1 for samples, 0 for a most probable joint assignment.
        enumeration: how sites without a mark are enumerated: ``"parallel"``, ``"sequential"`` or ``"auto"``.
        generator: where random numbers come from; torch's own if ``None``.

    Raises:
        ValueError: for another temperature.
    """

    def __init__(
        self,
        program: Callable[..., Any],
        max_plate_nesting: int | None = None,
        temperature: int = 1,
        enumeration: str = "parallel",
        generator: torch.Generator | None = None,
    ) -> None:
        if temperature not in (0, 1):
            raise ValueError(
                f"temperature is {temperature!r}: it is 1 for posterior samples or 0 for a most probable assignment."
            )
        self.max_plate_nesting = max_plate_nesting
        self.temperature = temperature
        self.enumeration = enumeration
        self.generator = generator
        self.program = program
        self._keep = _Keep()
        self._handled = self._keep(program)
        self._checked: set[object] = set()
        """Shapes of programs in which what is drawn last was found to influence nothing."""

    def trace(self, *args: Any, **kwargs: Any) -> Trace:
        """The values that a run proper is to take: a trace for ``replay``.

        Handlers around the call give values to the program as they would to the run proper.

        Raises:
            ImpossibleEvidenceError: if the observations have probability zero.
            EnumerationError: if a latent site that has no finite support depends on enumerated ones and others depend
                on it; and as ``infer.log_evidence`` does.
            PlanError, MemoryLimitError: as ``infer.log_evidence``.
        """
        with torch.no_grad(), unused_names_allowed():
            runs, kept, free = self._runs(args, kwargs)
            graphs = [without_factors(run.result[0], free) for run in runs]
            sequential = [(graph, run.sites) for graph, run in zip(graphs, runs, strict=True)]
            chosen, choices = self._choose(graphs, scale_of_runs(sequential) if len(runs) > 1 else 1.0)
        graph, trace = runs[chosen].result
        given = Trace()
        for name, site in runs[chosen].sites.items():
            given.nodes[name] = Message(type="sample", name=name, fn=site.plain_fn, value=site.value)
        sites = latent_sites(trace)
        for name in graph.variables:
            value = site_value(sites[name], choices[name])
            given.nodes[name] = Message(type="sample", name=name, fn=sites[name].plain_fn, value=value)
        for name, site in kept.items():
            if name in trace.nodes and name not in given.nodes:
                given.nodes[name] = Message(type="sample", name=name, fn=site.plain_fn, value=site.value)
        return given

    def _runs(self, args: Args, kwargs: Kwargs) -> tuple[list[Run], dict[str, Message], set[str]]:
        """All runs, the values that they share, and the sites that are to be drawn afresh."""
        around = get_plates()
        program = EnumeratedProgram(self._handled, self._nesting(around, args, kwargs), self.enumeration)
        shared = self._keep.run
        shared.in_plates = any(frame.dim is not None for frame in around)
        dependent: set[str] = set()

        def enumerated() -> tuple[FactorGraph, Trace]:
            with Unrecorded():
                return graph_of_run(program, args, kwargs, refuse=False)

        def first() -> tuple[FactorGraph, Trace]:
            graph, trace = enumerated()
            for name, site in drawn(trace).items():
                if runs_along_values(site):
                    dependent.add(name)
                else:
                    shared.sites.setdefault(name, site)
            return graph, trace

        def again() -> tuple[FactorGraph, Trace]:
            with kept_rng_state():
                set_rng_seed(next(rng_seeds))
                return enumerated()

        try:
            shared.sites = {}
            runs = sequential_runs(first)
            kept = shared.sites
            if len(runs) > 1:
                dependent |= different([run.result[1] for run in runs], kept)
            if not dependent:
                return runs, kept, set()
            shared.sites = {name: site for name, site in kept.items() if name not in dependent}
            free = {name for name in dependent if name not in kept}  # Along values only what is drawn runs.
            shape = shape_of(runs, dependent)
            if free == dependent and shape in self._checked:
                return runs, kept, free
            rng_seeds = itertools.count()
            for _ in range(_REPETITIONS):
                repetition = sequential_runs(again)
                if len(repetition) != len(runs):
                    raise EnumerationError(
                        f"Which sites the program has depends on the value of {min(dependent)!r}, which is latent, has "
                        "no finite support and depends on sites that are summed out. Give it a value (condition, "
                        "replay)."
                    )
                for run, repeated in zip(runs, repetition, strict=True):
                    free |= redrawn(run, repeated, dependent)
            if free == dependent:
                self._checked.add(shape)
        finally:
            shared.sites = {}
        return runs, {name: site for name, site in kept.items() if name not in free}, free

    def _nesting(self, around: tuple[CondIndepStackFrame, ...], args: Args, kwargs: Kwargs) -> int:
        if self.max_plate_nesting is None:
            with Unrecorded(), kept_rng_state(), TraceMessenger() as recorder, Rehearsal():
                self.program(*args, **kwargs)
            check_declared(recorder.trace)
            self.max_plate_nesting = plate_nesting(recorder.trace)
        return max([self.max_plate_nesting, *(-frame.dim for frame in around if frame.dim is not None)])

    def _choose(self, graphs: list[FactorGraph], scale: float) -> tuple[int, Mapping[str, Choice]]:
        """A run and the states of its variables; the sum over runs is raised to the power ``scale``."""
        if len(graphs) == 1 and not graphs[0].variables:
            return 0, {}
        if self.temperature == 0:
            results = [solve(for_maxima(graph), MAX_SUM) for graph in graphs]
            values = torch.stack([result.value for result in results])
            refuse_impossible(graphs[0], values.amax())
            best = int(values.argmax())
            return best, results[best].assignment
        chosen = 0
        if len(graphs) > 1:
            values = torch.stack([solve(graph).value for graph in graphs]).double() / scale
            refuse_impossible(graphs[0], values.logsumexp(0))
            probs = (values - values.logsumexp(0)).exp()
            chosen = int(torch.multinomial(probs, 1, generator=self.generator))
        samples = sample(graphs[chosen], 1, self.generator)
        refuse_impossible(graphs[chosen], samples.value)
        return chosen, {
            name: Choice(choice.states[0], choice.plates) for name, choice in samples.choices.items()
        }


def replayed(program: Callable[..., Any], values: Trace) -> Callable[..., Any]:
    """A program that takes the values of ``DiscretePosterior.trace``."""
    replayer = ReplayMessenger(trace=values)
    replayer.reports_unused = False  # In a chain steps have other names.
    return replayer(program)


def check_program(fn: Any, name: str) -> None:
    """Raises ``ModelError`` for what is no program."""
    if not callable(fn):
        raise ModelError(
            f"{name} takes a program first and was given {fn!r}. Pass other arguments by keyword."
        )
