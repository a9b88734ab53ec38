"""The sites that a run integrated out, and their posteriors given those of the discrete sites that it summed out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from sumout.distributions.families import innermost
from sumout.effects import Trace
from sumout.effects.random_state import kept_rng_state
from sumout.errors import ModelError
from sumout.execute import Choice, Marginal
from sumout.infer.collapsing.draws import Draws, draws
from sumout.infer.collapsing.emission import with_table
from sumout.infer.collapsing.peaks import at_peak, log_peak
from sumout.infer.collapsing.posterior import moments_of, posterior
from sumout.infer.collapsing.predictive import parent_of, predictive
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.component import Moments, States
from sumout.lower.collapse.sites import CollapsedSite
from sumout.plan import Readout


class Group:
    """Sites that were integrated out together: an integral, and what is known of it once it was looked at."""

    def __init__(self, integral: Integral, drawn: Mapping[str, Tensor]) -> None:
        self.integral = integral
        self.drawn = drawn
        self.predicted: dict[str, CollapsedSite] = {}

    @cached_property
    def moments(self) -> dict[str, Moments]:
        return moments_of(self.integral)

    @property
    def readout(self) -> Readout | None:
        """The discrete variables whose joint marginal a posterior needs; ``None`` if there are none."""
        names = self.integral.discrete
        return names[0] if len(names) == 1 else names or None

    def posterior(self, name: str, marginal: Marginal | None) -> Any:
        """A site's posterior, given that of ``readout``; ``None`` for a prediction without a closed form."""
        weights = None if marginal is None else _weights(self.integral, marginal)
        if name in self.integral.latents:
            return posterior(self.integral, name, weights, self.moments)
        site = self.predicted[name]
        return predictive(site, self.integral, weights) if parent_of(site) in self.integral.latents else None

    def draws(self, count: int, choices: Mapping[str, Choice]) -> Draws:
        """Joint samples of all its sites, given states of the discrete variables."""
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
            found.update(dict.fromkeys(integral.latents, Group(integral, site.infer["_drawn"])))
            predicted += site.infer["_predicted"]
    for each in predicted:
        group = found.get(parent_of(each) or "") or next(iter(found.values()))
        group.predicted[each.name] = each
        found[each.name] = group
    return found


def draws_of(
    groups: Iterable[Group],
    count: int,
    choices: Mapping[str, Choice],
    generator: torch.Generator | None = None,
) -> tuple[dict[str, Tensor], Tensor | float]:
    """Joint samples of collapsed sites given those of discrete ones, and the logarithms of their densities."""
    values: dict[str, Tensor] = {}
    log_prob: Tensor | float = 0.0
    with nullcontext() if generator is None else _seeded_by(generator):
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
            for each in site.infer["_predicted"]:
                raise ModelError(
                    f"Site {each.name!r} depends on sites that are integrated out and nothing observed depends on it: "
                    "it is a prediction, and no part of a most probable assignment. Leave it out of the program."
                )
            site = with_table(site, log_peak(integral).to(integral.log_evidence.dtype))
        found.nodes[name] = site
    return found


def best_values(groups: Iterable[Group], choices: Mapping[str, Choice]) -> dict[str, Tensor]:
    """The most probable values of collapsed sites, given states of the discrete ones."""
    values: dict[str, Tensor] = {}
    for group in dict.fromkeys(groups):
        states = {
            name: States(choices[name].states.unsqueeze(0), choices[name].plates)
            for name in group.integral.discrete
        }
        values.update(at_peak(group.integral, states))
    return values


@contextmanager
def _seeded_by(generator: torch.Generator) -> Iterator[None]:
    """Random numbers follow from a generator's: families draw from torch's own only."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with kept_rng_state():
        torch.manual_seed(seed)
        yield


def readouts_for(groups: Iterable[Group]) -> tuple[Readout, ...]:
    """All joint marginals of discrete variables that some posteriors need."""
    exact = [each for each in groups if each.integral.approximation is None]
    return tuple(dict.fromkeys([each.readout for each in exact if each.readout is not None]))


Thunk = Callable[[], Any]


def posteriors(
    groups: Mapping[str, Group], names: Iterable[str], read: Callable[[Readout], Marginal]
) -> tuple[dict[Readout, Thunk], dict[Readout, Thunk]]:
    """The posteriors of collapsed sites, made when they are asked for.

    Args:
        groups: of a run.
        names: which sites.
        read: gives the joint marginals that ``readouts_for`` lists.

    Returns:
        Those that there are, and for sites without one what raises ``ModelError`` and tells why.
    """
    found: dict[Readout, Thunk] = {}
    unknown: dict[Readout, Thunk] = {}
    for name in names:
        group = groups[name]
        if group.integral.approximation is not None:
            unknown[name] = partial(group.posterior, name, None)  # It has no solution, and says so.
            continue
        marginal = None if group.readout is None else read(group.readout)
        if name not in group.predicted:
            found[name] = partial(group.posterior, name, marginal)
            continue
        known = group.posterior(name, marginal)
        if known is None:
            unknown[name] = partial(_refuse, name, type(innermost(group.predicted[name].fn)).__name__)
        else:
            found[name] = partial(_itself, known)
    return found, unknown


def _itself(known: Any) -> Any:
    return known


def _refuse(name: str, family: str) -> None:
    raise ModelError(
        f"Site {name!r} ({family}) depends on sites that are integrated out and nothing observed depends on it: it is "
        "a prediction, whose distribution has no closed form here. Draw it: Predictive(program, num_samples=...)."
    )


def _weights(integral: Integral, marginal: Marginal) -> Tensor:
    """Probabilities with the dimensions of an integral; plates that do not matter have size one, and are expanded."""
    dims = [*marginal.plates, *integral.discrete]
    kept = [name for name in integral.names if name in dims]
    probs = marginal.probs.permute([dims.index(name) for name in kept])
    sizes = dict(zip(kept, probs.shape, strict=True))
    probs = probs.reshape([sizes.get(name, 1) for name in integral.names])
    return probs.expand(integral.log_evidence.shape)
