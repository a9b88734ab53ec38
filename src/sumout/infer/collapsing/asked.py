"""What is asked of collapsed sites, in one run of a program or in several: distributions made when looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.errors import EvidenceError, ModelError
from sumout.execute import Marginal
from sumout.infer.answers.readout import check_shared_shape
from sumout.infer.collapsing.joint import discrete_of, joint_posterior
from sumout.infer.collapsing.mixed import Mixed, together
from sumout.infer.collapsing.results import Group
from sumout.plan import Readout


class Sought(NamedTuple):
    """What is asked of collapsed sites in one run: the posterior of one, or of several together."""

    asked: Readout
    groups: tuple[Group, ...]

    @property
    def readout(self) -> Readout | None:
        """The discrete variables whose joint marginal it needs; ``None`` if there are none."""
        if self.is_not_kept:
            return None
        if isinstance(self.asked, str):
            names = self.groups[0].choices(self.asked)
        else:
            names = discrete_of([each.integral for each in self.groups])
        return names[0] if len(names) == 1 else names or None

    @property
    def is_not_kept(self) -> bool:
        """Whether only evidence is known."""
        try:
            for each in self.groups:
                each.check_kept()
        except ModelError:
            return True
        return False

    @property
    def is_uncertain(self) -> bool:
        """Whether it has a closed form only perhaps: predictions, and several sites together."""
        return not isinstance(self.asked, str) or self.asked in self.groups[0].predicted

    def posterior(self, read: Callable[[Readout], Marginal]) -> Mixed:
        """The posterior; ``read`` gives the marginal of ``readout``.

        Raises:
            ModelError: if it has no closed form.
        """
        for group in self.groups:
            group.check_kept()
        marginal = None if self.readout is None else read(self.readout)
        if isinstance(self.asked, str):
            return self.groups[0].posterior(self.asked, marginal)
        for name, group in zip(self.asked, self.groups, strict=True):
            if name in group.predicted:
                raise ModelError(
                    f"Site {name!r} in {self.asked!r} is a prediction, and a joint posterior with it has no closed "
                    "form. Draw them jointly: posterior_samples."
                )
        integrals = {name: group.integral for name, group in zip(self.asked, self.groups, strict=True)}
        return joint_posterior(integrals, self.asked, marginal)


def sought_of(groups: Mapping[str, Group], each: Readout) -> Sought | None:
    """What a name, or a group of names, asks of collapsed sites; ``None`` for discrete ones.

    Raises:
        EvidenceError: for discrete and collapsed sites together, whose joint posterior is neither table nor density.
        PlanError: for sites in plates at one dimension.
    """
    if isinstance(each, str):
        return Sought(each, (groups[each],)) if each in groups else None
    inside = [name for name in each if name in groups]
    if not inside:
        return None
    if len(inside) < len(each):
        other = next(name for name in each if name not in groups)
        raise EvidenceError(
            f"{inside[0]!r} in {each!r} was integrated out by collapse and has a density, {other!r} has a table of "
            f"states: there is no joint distribution of both. Ask for {inside[0]!r} given {other!r} "
            "(poutine.condition), or draw them jointly: posterior_samples."
        )
    found = tuple([groups[name] for name in each])
    latents = {
        name: group.integral.latents[name].message
        for name, group in zip(each, found, strict=True)
        if name in group.integral.latents
    }
    check_shared_shape(latents, each)
    return Sought(each, found)


class InRun(NamedTuple):
    """What is sought in one run of a program, with the run's weight."""

    sought: Sought
    read: Callable[[Readout], Marginal]
    weight: Tensor


Thunk = Callable[[], Any]


def posteriors(asked: Mapping[Readout, Sequence[InRun]]) -> tuple[dict[Readout, Thunk], dict[Readout, Thunk]]:
    """The posteriors of collapsed sites, made when they are asked for; mixtures over the runs that have the site.

    Returns:
        Those that there are, and for sites without one what raises ``ModelError`` and tells why.
    """
    found: dict[Readout, Thunk] = {}
    unknown: dict[Readout, Thunk] = {}
    for each, runs in asked.items():
        thunk = partial(_over_runs, each, runs)
        if any(run.sought.is_not_kept for run in runs):
            unknown[each] = thunk
        elif len(runs) > 1 or runs[0].sought.is_uncertain:
            try:
                found[each] = partial(_itself, thunk())
            except ModelError:
                unknown[each] = thunk
        else:
            found[each] = thunk
    return found, unknown


def _over_runs(each: Readout, runs: Sequence[InRun]) -> Any:
    total = torch.stack([run.weight for run in runs]).sum()
    mixed = [run.sought.posterior(run.read) for run in runs]
    return together(each, mixed, [run.weight / total for run in runs]).distribution()


def _itself(known: Any) -> Any:
    return known
