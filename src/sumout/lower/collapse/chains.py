"""Vectorized chains of delayed sites step by step: variables and factors with the names that they have in a loop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sumout.effects.delayed import Delayed
from sumout.effects.steps import is_lookback, names_in_loop, unrolled_step, without_steps
from sumout.lower.collapse.gaussian import GaussianFactor
from sumout.lower.collapse.sites import CollapsedSite


def chains_of(sites: Iterable[CollapsedSite]) -> frozenset[str]:
    """The names of the vectorized chains that some sites are steps of."""
    return frozenset(step.chain for site in sites if (step := unrolled_step(site.message)) is not None)


def single_steps(latents: Mapping[str, CollapsedSite]) -> dict[str, CollapsedSite]:
    """The delayed sites as a loop has them; what was only there to be looked back at is gone.

    All steps of a site are one object, which has the name of them all.
    """
    found = {}
    for name, site in latents.items():
        step = unrolled_step(site.message)
        if step is None:
            found[name] = site
        elif not is_lookback(site.message):
            assert step.dim is not None
            value = site.value.probe
            axis = value.dim() + step.dim - len(site.fn.event_shape)
            value = value.narrow(axis, 0, 1)
            if axis == 0:
                value = value[0]
            single = without_steps(site.message)
            inner = tuple([frame for frame in site.inner if frame.name != step.chain])
            single.value = Delayed.of_site(name, value)
            found.update(
                dict.fromkeys(names_in_loop(site.message), site._replace(message=single, inner=inner))
            )
    return found


def step_by_step(
    factors: Sequence[GaussianFactor], latents: Mapping[str, CollapsedSite], chains: Collection[str]
) -> list[GaussianFactor]:
    """Factors along a chain's dimension as one factor for each step, which are views."""
    found = []
    for factor in factors:
        inside = [name for name in factor.names if name in chains]
        if not inside:
            found.append(factor)
            continue
        (chain,) = inside
        place = factor.names.index(chain)
        names = tuple([name for name in factor.names if name != chain])
        form, rest = factor.table
        scopes = [
            names_in_loop(latents[name].message)
            if _runs_along(latents[name], chain)
            else (name,) * rest.shape[place]
            for name in factor.scope
        ]
        parts = zip(form.unbind(place), rest.unbind(place), zip(*scopes, strict=True), strict=True)
        kind = type(factor.table)
        found += [GaussianFactor(names, scope, kind(*each)) for *each, scope in parts]
    return found


def _runs_along(latent: CollapsedSite, chain: str) -> bool:
    step = unrolled_step(latent.message)
    return step is not None and step.chain == chain
