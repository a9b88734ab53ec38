"""What is fixed before an order is searched, and how the plan is put together when there is one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from sumout.plan.choose import Considered, Occurrence, occurrences
from sumout.plan.cost import Machine, cost_of
from sumout.plan.eliminate import eliminate
from sumout.plan.outline import Contract, Outline, outline
from sumout.plan.plan import EliminationPlan
from sumout.plan.problem import Path
from sumout.plan.record import Simplified
from sumout.plan.schedule import schedule
from sumout.plan.structure import Readout, Structure, readouts
from sumout.plan.unroll import unroll


class Draft:
    """A plan without its paths.

    Args:
        asked: what is to be planned.
        marginals: the readouts that are wanted.
        maximised: variables to be maximised after all others were summed out.
        unrolled: plates to be written out.
        sliced: variables to be fixed, of the structure with plates written out.
    """

    def __init__(
        self,
        asked: Structure,
        marginals: Sequence[Readout] = (),
        maximised: Sequence[str] = (),
        unrolled: Sequence[str] = (),
        sliced: Sequence[str] = (),
    ) -> None:
        self.asked, self.marginals, self.maximised = asked, tuple(marginals), tuple(maximised)
        self.unrolled = tuple(unrolled)
        self.structure, wanted, last = asked, list(marginals), list(maximised)
        if unrolled:
            copies = unroll(asked, self.unrolled)
            sizes = dict(asked.sizes)
            self.structure = copies.structure
            wanted = [copies.readout(each, at) for each in marginals for at in copies.elements(each, sizes)]
            last = [copies.at(each, at) for each in maximised for at in copies.elements(each, sizes)]
        self.varying = frozenset(
            number
            for number, factor in enumerate(self.structure.factors)
            if not set(sliced).isdisjoint(factor.inputs)
        )
        of_slices = dict(self.structure.sizes)
        self.sliced = tuple([(name, of_slices[name]) for name in sliced])
        self.put_together = 0
        if sliced:
            homes = dict(self.structure.variables)
            self.put_together = max(
                sum(
                    [math.prod([of_slices[name] for name in each.inputs]) for each in self.structure.factors]
                ),
                sum([math.prod([of_slices[name] for name in _dims(each, homes)]) for each in wanted]),
            )
            self.structure = self.structure.without(sliced)
            wanted = [each for each in (_without(each, sliced) for each in wanted) if each]
        self.last = frozenset(last)
        self.readouts, self.probes = readouts(self.structure, wanted)

    @cached_property
    def factors(self) -> int:
        """How many factors there are, probes included."""
        return len(self.structure.factors) + len(self.probes)

    @cached_property
    def outline(self) -> Outline:
        """The stages.

        Raises:
            StuckError: if the plates are not tree-shaped.
        """
        return outline(self.structure, self.probes, self.last)

    @cached_property
    def problems(self) -> dict[int, Occurrence]:
        """The different contractions."""
        return occurrences(self.outline, self.factors)

    def plan(
        self,
        order: str,
        paths: Sequence[Path],
        considered: Iterable[Considered],
        machine: Machine,
        safe: int = 0,
        frugal: bool = False,
        shared: bool = True,
    ) -> EliminationPlan:
        """The finished plan, given a path for each of ``problems``; the rest as ``PlanRecord`` says."""
        shared = shared and bool(self.sliced)
        of_problem = dict(zip(self.problems, paths, strict=True))
        elimination = eliminate(self.outline, self.factors, lambda each: of_problem[id(each)])
        timetable = schedule(
            elimination, dict(self.structure.sizes), self.factors, frugal, self.varying if shared else None
        )
        contractions = [stage for stage in self.outline.stages if isinstance(stage, Contract)]
        return EliminationPlan(
            structure=self.structure,
            readouts=tuple(self.readouts.items()),
            probes=self.probes,
            order=order,
            paths=tuple(paths),
            asked=self.asked,
            marginals=self.marginals,
            maximised=self.maximised,
            unrolled=self.unrolled,
            sliced=self.sliced,
            frugal=frugal,
            shared=shared,
            put_together=self.put_together,
            elimination=elimination,
            schedule=timetable,
            cost=cost_of(timetable),
            considered=tuple(considered),
            simplified=Simplified(
                sum(stage.problem is not None for stage in contractions),
                len(self.problems),
                sum([len(names) for stage in contractions for names in stage.alone]),
                safe,
            ),
            machine=machine,
        )


def _without(wanted: Readout, names: Sequence[str]) -> Readout:
    """A readout without variables that are fixed; nothing left is an empty tuple."""
    if isinstance(wanted, str):
        return () if wanted in names else wanted
    return tuple([name for name in wanted if name not in names])


def _dims(wanted: Readout, homes: Mapping[str, frozenset[str]]) -> set[str]:
    """The variables of a readout, and their plates."""
    names = {wanted} if isinstance(wanted, str) else set(wanted)
    return names.union(*[homes[name] for name in names])
