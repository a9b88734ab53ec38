"""Collapsed sites taken apart into groups that do not depend on each other, and each group integrated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.distributions.families import innermost
from sumout.effects.delayed import Delayed
from sumout.effects.steps import is_lookback
from sumout.errors import ModelError
from sumout.lower.collapse.assembly import component, tied
from sumout.lower.collapse.chains import single_steps
from sumout.lower.collapse.common_scale import CommonScale, common_scale
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.conjugate import Star, arm_of, star
from sumout.lower.collapse.gaussian import member
from sumout.lower.collapse.layout import extents
from sumout.lower.collapse.normal import NormalForm, normal_form
from sumout.lower.collapse.parameters import delayed_parameters
from sumout.lower.collapse.sites import CollapsedSite


class NotConjugateError(ModelError):
    """A delayed site has no integral in closed form; ``sites`` are the delayed sites that are to blame."""

    def __init__(self, message: str, sites: Iterable[str]) -> None:
        super().__init__(message)
        self.sites = frozenset(sites)


class Integral(NamedTuple):
    """A group of collapsed sites, integrated.

    Attributes:
        latents: its delayed sites, by name.
        names: the dimensions of ``log_evidence``: discrete variables, and plates whose elements are told apart.
        log_evidence: the logarithm of the integral of all densities of the group.
        solution: from which posteriors are read.
    """

    latents: Mapping[str, CollapsedSite]
    names: tuple[str, ...]
    log_evidence: Tensor
    solution: Component | Star | CommonScale

    @property
    def discrete(self) -> tuple[str, ...]:
        """The discrete variables that it depends on."""
        plates = {frame.name for site in self.latents.values() for frame in site.frames.values()}
        return tuple([name for name in self.names if name not in plates])


def collapsed(sites: Sequence[CollapsedSite], discrete: Mapping[str, frozenset[str]]) -> list[Integral]:
    """Integrates all delayed sites out.

    Args:
        sites: all sites that are delayed or depend on delayed ones, in the order of the program.
        discrete: the plates of each enumerated site.

    Raises:
        NotConjugateError: naming the site, the families, how one depends on the other, and what would work.
    """
    return [_integral(group, discrete) for group in _groups(sites)]


def _groups(sites: Sequence[CollapsedSite]) -> list[list[CollapsedSite]]:
    """Sites that share delayed sites, directly or through others."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    touched: list[tuple[str, ...]] = []
    for site in sites:
        names = tuple(dict.fromkeys([each for value in delayed_parameters(site.fn) for each in value.sites]))
        if site.is_latent:
            names = (site.name, *names)
        for name in names:
            leader.setdefault(name, name)
        for name in names[1:]:
            leader[find(name)] = find(names[0])
        touched.append(names)
    groups: dict[str, list[CollapsedSite]] = {}
    for site, names in zip(sites, touched, strict=True):
        groups.setdefault(find(names[0]), []).append(site)
    return list(groups.values())


def _integral(group: Sequence[CollapsedSite], discrete: Mapping[str, frozenset[str]]) -> Integral:
    inner = frozenset(frame.name for site in group for frame in site.inner)
    discrete = {name: plates & inner for name, plates in discrete.items()}
    dtype = reduce(torch.promote_types, [site.dtype for site in group])
    latents = {site.name: site for site in group if site.is_latent}
    group = [site for site in group if not is_lookback(site.message)]
    normal = {site.name: normal_form(site.fn, site.value) for site in group}
    members = [(site, form) for site in group if (form := normal[site.name]) is not None]
    others = [site for site in group if normal[site.name] is None]
    if not others and all(form.unit is None for _, form in members):
        solved = component([member(site, form, latents, dtype) for site, form in members], latents, discrete)
        return Integral(single_steps(latents), solved.batch, solved.log_evidence(), solved)
    arms = [arm for site in others if not site.is_latent and (arm := arm_of(site, latents)) is not None]
    unknown = [site for site in others if site.is_latent]
    if len(unknown) == 1 and len(arms) == len(others) - 1:
        known = [arm for site, _ in members if (arm := arm_of(site, latents)) is not None]
        if len(known) == len(members):  # Each has the one delayed site as its scale, and nothing else.
            return _of_star(star(unknown[0], [*arms, *known], dtype), latents, discrete)
        found = common_scale(members, arms, latents, discrete, dtype)
        if found is not None:
            return _of_star(found.factor, latents, discrete)._replace(solution=found)
    raise _not_conjugate(group, latents)


def _of_star(
    solved: Star, latents: Mapping[str, CollapsedSite], discrete: Mapping[str, frozenset[str]]
) -> Integral:
    latent = solved.latent
    inner = latent.inner_plates
    homes = frozenset().union(*[discrete[name] for name in solved.names])
    own = extents(latent)
    missing = sorted(homes - own.keys())
    if missing:
        site = next(name for name in solved.names if missing[0] in discrete[name])
        raise tied(latent.name, site, missing[0])
    table = solved.log_evidence()
    lead = len(solved.names)
    rank = table.dim() - lead
    names = list(solved.names)
    frames = {frame.name: frame for frame in latent.inner}
    batch_rank = rank - _extra(latent)
    gone = []
    for place in range(rank):
        dim = place - batch_rank
        name = (
            next((plate for plate, (each, _) in own.items() if each == dim), None)
            if place < batch_rank
            else None
        )
        if name is not None and (name in homes or name not in inner):
            names.append(name)
            continue
        gone.append(lead + place)
        if name is not None:
            table = table * frames[name].scale
    if gone:
        table = table.sum(gone)
    return Integral(latents, tuple(names), table, solved)


def _extra(latent: CollapsedSite) -> int:
    """Event dimensions that ``to_event`` made of batch dimensions."""
    return len(latent.fn.event_shape) - len(innermost(latent.fn).event_shape)


def _not_conjugate(group: Sequence[CollapsedSite], latents: Mapping[str, CollapsedSite]) -> NotConjugateError:
    """Names the site at which the conjugacy ends."""
    for site in group:
        values = delayed_parameters(site.fn)
        if not values:
            continue
        family = type(innermost(site.fn)).__name__
        names = tuple(dict.fromkeys([each for value in values for each in value.sites]))
        parents = " and ".join(f"{name!r} ({type(innermost(latents[name].fn)).__name__})" for name in names)
        unknown = next((value.unknown for value in values if value.unknown), None)
        how = f" through {unknown!r}" if unknown else ""
        form = normal_form(site.fn, site.value)
        if arm_of(site, latents) is not None or (form is not None and _is_gaussian(form, latents)):
            continue
        return NotConjugateError(
            f"Site {site.name!r} ({family}) depends on the delayed site {parents}{how}, and their integral is not "
            f"known in closed form. {_advice(names, latents)} Or leave the site out: infer={{'collapse': False}}, or "
            "collapse(strict=False).",
            names,
        )
    names = tuple(latents)
    listed = ", ".join(f"{name!r} ({type(innermost(latents[name].fn)).__name__})" for name in names)
    return NotConjugateError(
        f"The delayed sites {listed} are observed together, and their joint integral is not known in closed form: "
        f"each is conjugate to its own observations only. {_advice(names, latents)}",
        names,
    )


def _is_gaussian(form: NormalForm, latents: Mapping[str, CollapsedSite]) -> bool:
    """Whether all that a residual is made of is Gaussian itself."""
    sites = form.residual.sites if isinstance(form.residual, Delayed) else ()
    return all(normal_form(latents[name].fn, latents[name].value) is not None for name in sites)


def _advice(names: Sequence[str], latents: Mapping[str, CollapsedSite]) -> str:
    from sumout.distributions.conjugacy import LIKELIHOODS

    kind = type(innermost(latents[names[0]].fn))
    rules = LIKELIHOODS.get(kind, {})
    if rules:
        known = ", ".join(f"{each.__name__}({options[0].name}=...)" for each, options in rules.items())
        return f"Known with {kind.__name__}: {known}, in the site's value or a multiple of it."
    return "Known with Normal and MultivariateNormal: the same families with an affine function of the value as loc."
