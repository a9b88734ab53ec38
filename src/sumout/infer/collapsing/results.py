"""The sites that a run integrated out, and their posteriors given those of the discrete sites that it summed out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from sumout.distributions.families import innermost
from sumout.effects import Trace
from sumout.effects.hidden.value import Hidden
from sumout.errors import ModelError
from sumout.execute import Choice, Marginal
from sumout.infer.collapsing.affine import normal_predictive
from sumout.infer.collapsing.draws import Draws, draws
from sumout.infer.collapsing.emission import with_table
from sumout.infer.collapsing.mixed import Mixed
from sumout.infer.collapsing.peaks import at_peak, log_peak
from sumout.infer.collapsing.posterior import mixed_posterior, moments_of
from sumout.infer.collapsing.predicted import at_peaks, peak
from sumout.infer.collapsing.predictive import choices, parents_of, predictive
from sumout.infer.collapsing.unfolded import Unfolded, unfolded
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.component import Moments, States
from sumout.lower.collapse.sites import CollapsedSite
from sumout.lower.collapse.star_steps import step_integrals


class Group:
    """Sites that were integrated out together: an integral, and what is known of it once it was looked at."""

    def __init__(self, integral: Integral, drawn: Mapping[str, Tensor]) -> None:
        self.integral = integral
        self.drawn = drawn
        self.predicted: dict[str, CollapsedSite] = {}
        self.others: Mapping[str, Group] = {}
        self._unfolded: dict[str, Unfolded | None] = {}

    @cached_property
    def moments(self) -> dict[str, Moments]:
        return moments_of(self.integral)

    def check_kept(self) -> None:
        """Raises ``ModelError`` where posteriors are not kept."""
        if isinstance(self.integral.log_evidence, Hidden):
            raise ModelError(
                f"Site {self.integral.first!r} is integrated out, and discrete sites that it depends on have no tensor "
                "dimensions of their own, as they are too many, or used after their markov loop: only its evidence is "
                "known then. Use them inside the loop, or give some their values: poutine.condition."
            )
        self.integral.solution  # noqa: B018  (an approximate one has none, and says so)

    def choices(self, name: str) -> tuple[str, ...]:
        """The discrete variables whose joint marginal a site's posterior needs."""
        site = self.predicted.get(name)
        if site is None:
            return self.integral.discrete
        found = self._affine(site)
        if found is not None:
            return tuple(found.choices)
        if not parents_of(site) <= self.integral.latents.keys():
            return ()
        return tuple(choices(site, self.integral))

    def _affine(self, site: CollapsedSite) -> Unfolded | None:
        """A prediction as a normal one, of sites of this group and of others; ``None`` where it is none."""
        if site.name not in self._unfolded:
            predicted = {
                name: each.predicted[name] for name, each in self.others.items() if name in each.predicted
            }
            integrals = {
                name: each.integral for name, each in self.others.items() if name in each.integral.latents
            }
            self._unfolded[site.name] = unfolded(site, integrals, predicted)
        return self._unfolded[site.name]

    def posterior(self, name: str, marginal: Marginal | None) -> Mixed:
        """A site's posterior, given that of ``choices``.

        Raises:
            ModelError: for a prediction without a closed form.
        """
        self.check_kept()
        if name in self.integral.latents:
            return mixed_posterior(self.integral, name, marginal, self.moments)
        site = self.predicted[name]
        found = None
        affine = self._affine(site)
        if affine is not None:
            found = normal_predictive(affine, marginal)
        elif parents_of(site) <= self.integral.latents.keys():
            found = predictive(site, self.integral, marginal)
        if found is None:
            raise ModelError(
                f"Site {name!r} ({type(innermost(site.fn)).__name__}) depends on sites that are integrated out and "
                "nothing observed depends on it: it is a prediction, whose distribution has no closed form here. Draw "
                "it: posterior_samples, or Predictive(program, num_samples=...)."
            )
        return found

    def draws(self, count: int, choices: Mapping[str, Choice]) -> Draws:
        """Joint samples of all its sites, given states of the discrete variables."""
        self.check_kept()
        if self.drawn:
            values = {name: value.expand(count, *value.shape) for name, value in self.drawn.items()}
            return Draws(values, torch.zeros(count))
        states = {name: States(*choices[name]) for name in self.integral.discrete}
        return draws(self.integral, count, states)


def groups_of(trace: Trace | None) -> dict[str, Group]:
    """The collapsed sites of a run by name; steps of a vectorized chain by those that they have in a loop."""
    found: dict[str, Group] = {}
    predicted: list[CollapsedSite] = []
    for site in trace.nodes.values() if trace is not None else ():
        integral = site.infer.get("_integral") if site.type == "sample" else None
        if integral is not None:
            for step in step_integrals(integral):
                found.update(dict.fromkeys(step.latents, Group(step, site.infer["_drawn"])))
            predicted += site.infer["_predicted"]
    for each in predicted:
        group = next((found[name] for name in found if name in parents_of(each)), next(iter(found.values())))
        group.predicted[each.name] = each
        found[each.name] = group
    for group in found.values():
        group.others = found
    return found


def draws_of(
    groups: Iterable[Group], count: int, choices: Mapping[str, Choice]
) -> tuple[dict[str, Tensor], Tensor | float]:
    """Joint samples of collapsed sites given those of discrete ones, and the logarithms of their densities."""
    values: dict[str, Tensor] = {}
    log_prob: Tensor | float = 0.0
    for group in dict.fromkeys(groups):
        found = group.draws(count, choices)
        values.update(found.values)
        log_prob = log_prob + found.log_prob.to(group.integral.log_evidence.dtype)
    return values, log_prob


def maximised(trace: Trace) -> Trace:
    """The run with maxima over collapsed sites in the place of integrals.

    Raises:
        ModelError: naming a site that has no most probable value.
    """
    found = Trace()
    for name, site in trace.nodes.items():
        integral = site.infer.get("_integral") if site.type == "sample" else None
        if integral is not None:
            Group(integral, {}).check_kept()
            site = with_table(site, log_peak(integral).to(integral.log_evidence.dtype))
        found.nodes[name] = site
    for each in _assigned(groups_of(trace)):
        top = peak(each)
        assert top is not None
        found.nodes[each.name] = top
    return found


def _predicted(groups: Mapping[str, Group]) -> list[CollapsedSite]:
    """All predictions, in the order of the program."""
    return [group.predicted[name] for name, group in groups.items() if name in group.predicted]


def _assigned(groups: Mapping[str, Group]) -> list[CollapsedSite]:
    """The predictions that are part of a most probable assignment: at their means, all others are as without them."""
    found: list[CollapsedSite] = []
    left: set[str] = set()
    for site in _predicted(groups):
        if parents_of(site) & left or peak(site) is None:
            left.add(site.name)
        else:
            found.append(site)
    return found


def left_out(groups: Mapping[str, Group]) -> dict[str, str]:
    """The predictions that are not, and why."""
    assigned = {site.name for site in _assigned(groups)}
    return {
        site.name: f"Site {site.name!r} ({type(innermost(site.fn)).__name__}) depends on sites that are integrated out "
        "and nothing observed depends on it: it is a prediction, and no part of the most probable assignment, which "
        "is that of the program without it. Ask for its distribution, infer.marginals, or draw it: posterior_samples."
        for site in _predicted(groups)
        if site.name not in assigned
    }


def best_values(groups: Mapping[str, Group], choices: Mapping[str, Choice]) -> dict[str, Tensor]:
    """The most probable values of collapsed sites and their predictions, given states of the discrete ones."""
    values: dict[str, Tensor] = {}
    for group in dict.fromkeys(groups.values()):
        states = {
            name: States(choices[name].states.unsqueeze(0), choices[name].plates)
            for name in group.integral.discrete
        }
        values.update(at_peak(group.integral, states))
    return values | at_peaks(_assigned(groups), values, choices)
