"""Collapsed sites taken apart into groups that do not depend on each other, and each group integrated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import torch
from torch import Tensor

from sumout.distributions.families import innermost
from sumout.effects.delayed import Delayed
from sumout.effects.steps import is_lookback
from sumout.errors import ModelError
from sumout.lower.collapse.assembly import component, component_or_filter, in_order, tied
from sumout.lower.collapse.centering import center_of, centered
from sumout.lower.collapse.chains import chains_of, single_steps
from sumout.lower.collapse.common_matrix import CommonMatrix, common_matrix
from sumout.lower.collapse.common_scale import CommonScale, common_scale
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.conjugate import Star, arm_of, star
from sumout.lower.collapse.digits import check_digits
from sumout.lower.collapse.filters import Filter
from sumout.lower.collapse.gaussian import member
from sumout.lower.collapse.layout import extents
from sumout.lower.collapse.loops import without_loops
from sumout.lower.collapse.moment_matching import Told, matched
from sumout.lower.collapse.normal import NormalForm, normal_form
from sumout.lower.collapse.observed import checked
from sumout.lower.collapse.parameters import delayed_parameters
from sumout.lower.collapse.sites import CollapsedSite


class NotConjugateError(ModelError):
    """A delayed site has no integral in closed form; ``sites`` are the delayed sites that are to blame."""

    def __init__(self, message: str, sites: Iterable[str]) -> None:
        super().__init__(message)
        self.sites = frozenset(sites)


@dataclass
class Integral:
    """A group of collapsed sites, integrated.

    Attributes:
        names: the dimensions of ``log_evidence``: discrete variables, and plates whose elements are told apart.
        log_evidence: the logarithm of the integral of all densities of the group.
        first: the name of one of its sites.
        approximation: how it was approximated, ``"moment_matching"``; ``None`` for an exact one.
    """

    names: tuple[str, ...]
    log_evidence: Tensor
    first: str
    _latents: Mapping[str, CollapsedSite]
    _solution: Component | Star | CommonScale | CommonMatrix | Filter | None
    approximation: str | None = None

    @cached_property
    def latents(self) -> Mapping[str, CollapsedSite]:
        """Its delayed sites, by name; those of a vectorized chain step by step."""
        return single_steps(self._latents)

    @cached_property
    def solution(self) -> Component | Star | CommonScale | CommonMatrix:
        """From which posteriors are read.

        Raises:
            ModelError: of an approximate integral: none is kept.
        """
        if self._solution is None:
            raise ModelError(
                f"Site {self.first!r} was integrated out with approximate={self.approximation!r}, of which posteriors "
                "are known for discrete sites only. Give these their values, with poutine.condition: all is exact then."
            )
        return self._solution.component if isinstance(self._solution, Filter) else self._solution

    @cached_property
    def discrete(self) -> tuple[str, ...]:
        """The discrete variables that it depends on."""
        plates = {frame.name for site in self._latents.values() for frame in site.frames.values()}
        return tuple([name for name in self.names if name not in plates])


def collapsed(
    sites: Sequence[CollapsedSite], discrete: Mapping[str, frozenset[str]], told: Sequence[Told] | None = None
) -> list[Integral]:
    """Integrates all delayed sites out.

    Args:
        sites: all sites that are delayed or depend on delayed ones, in the order of the program.
        discrete: the plates of each enumerated site.
        told: what else the program says of discrete sites, if mixtures over past ones are to be approximated by
            moment matching; ``None`` for exact integrals.

    Raises:
        NotConjugateError: naming the site, the families, how one depends on the other, and what would work.
    """
    found = []
    for linked in _groups(sites):
        group, power = without_loops(linked)
        integrals = (None if told is None else _matched(group, discrete, told)) or [
            _integral(group, discrete)
        ]
        if power != 1.0:
            integrals = [replace(each, log_evidence=each.log_evidence * power) for each in integrals]
        found += integrals
    return found


def _groups(sites: Sequence[CollapsedSite]) -> list[list[CollapsedSite]]:
    """Sites that share delayed sites, directly or through others."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    touched: list[tuple[str, ...]] = []
    known = {site.name for site in sites if site.is_latent}
    for site in sites:
        names = tuple(dict.fromkeys([each for value in _delayed_of(site) for each in value.sites]))
        if site.is_latent:
            names = (site.name, *names)
        for name in names:
            if name not in known:
                raise ModelError(
                    f"Site {site.name!r} depends on the delayed value of site {name!r}, which is not integrated out "
                    "here: the context that delayed it is over. Put both into one collapsing context, or pass the "
                    "value through poutine.barrier before its context ends."
                )
        for name in names:
            leader.setdefault(name, name)
        for name in names[1:]:
            leader[find(name)] = find(names[0])
        touched.append(names)
    groups: dict[str, list[CollapsedSite]] = {}
    for site, names in zip(sites, touched, strict=True):
        groups.setdefault(find(names[0]), []).append(site)
    return list(groups.values())


def _delayed_of(site: CollapsedSite) -> list[Delayed]:
    """What a site has to do with delayed sites: its parameters, and what it observes."""
    values = delayed_parameters(site.fn)
    return [*values, site.value] if isinstance(site.value, Delayed) and not site.is_latent else values


def _integral(group: Sequence[CollapsedSite], discrete: Mapping[str, frozenset[str]]) -> Integral:
    inner = frozenset(frame.name for site in group for frame in site.inner)
    discrete = {name: plates & inner for name, plates in discrete.items()}
    dtype = reduce(torch.promote_types, [site.dtype for site in group])
    wide = torch.promote_types(dtype, torch.float64)  # Quadratic forms lose twice the digits that data have.
    latents = {site.name: site for site in group if site.is_latent}
    group = [checked(site) for site in group if not is_lookback(site.message)]
    normal = {site.name: normal_form(site.fn, site.value) for site in group}
    members = [(site, form) for site in group if (form := normal[site.name]) is not None]
    others = [site for site in group if normal[site.name] is None]
    if not others and all(form.unit is None for _, form in members):
        own = [member(site, form, latents, wide) for site, form in members]
        solved = component_or_filter(own, latents, discrete)
        table = solved.log_evidence()
        if isinstance(solved, Component):
            center = center_of(solved, table, latents)
            if center is not None:
                near = [member(site, form, latents, wide) for site, form in centered(members, center)]
                table, own = component(near, latents, discrete).log_evidence(), near
            if not chains_of(latents.values()):
                check_digits(solved, own, latents, table)
        table = _finite(table, latents, lowest=-math.inf).to(dtype)
        return Integral(solved.batch, table, next(iter(latents)), latents, solved)
    arms = [arm for site in others if not site.is_latent and (arm := arm_of(site, latents)) is not None]
    unknown = [site for site in others if site.is_latent]
    if len(unknown) == 1 and len(arms) == len(others) - 1:
        known = [arm for site, _ in members if (arm := arm_of(site, latents)) is not None]
        if len(known) == len(members):  # Each has the one delayed site as its scale, and nothing else.
            return _of_star(star(unknown[0], [*arms, *known], wide), latents, discrete, dtype)
        found = common_scale(members, arms, latents, discrete, wide)
        if found is not None:
            return replace(_of_star(found.factor, latents, discrete, dtype), _solution=found)
    matrix = common_matrix(group, latents, discrete, wide) if unknown else None
    if matrix is not None:
        return replace(_of_star(matrix.factor, latents, discrete, dtype), _solution=matrix)
    raise _not_conjugate(group, latents)


def _matched(
    group: Sequence[CollapsedSite], discrete: Mapping[str, frozenset[str]], told: Sequence[Told]
) -> list[Integral] | None:
    """The integrals of stretches of a switching system; ``None`` for a group that can be integrated exactly."""
    dtype = reduce(torch.promote_types, [site.dtype for site in group])
    latents = {site.name: site for site in group if site.is_latent}
    group = [checked(site) for site in group]
    forms = {site.name: normal_form(site.fn, site.value) for site in group}
    if any(form is None or form.unit is not None for form in forms.values()):
        return None
    inner = frozenset(frame.name for site in group for frame in site.inner)
    homes = {name: plates & inner for name, plates in discrete.items()}
    wide = torch.promote_types(dtype, torch.float64)
    members = [member(site, form, latents, wide) for site in group if (form := forms[site.name]) is not None]
    factors = in_order(members, latents, homes)
    if factors is None:
        return None
    entries = {name: site.event_size for name, site in latents.items()}
    stretches = matched(
        factors, entries, told, {name for each in factors for name in each.names} - discrete.keys()
    )
    if len(stretches) == 1:
        return None
    found = []
    for sites, (names, table) in stretches:
        own = {name: latents[name] for name in sites}
        table = _finite(table, own).to(dtype)
        found.append(Integral(names, table, sites[0], own, None, "moment_matching"))
    return found


def _finite(table: Tensor, latents: Mapping[str, CollapsedSite], lowest: float = math.nan) -> Tensor:
    """The logarithm of an integral, which may be minus infinity where a choice of discrete sites is impossible."""
    if math.isnan(lowest) and bool(table.sum().isfinite()):
        return table
    if bool((table.isnan() | (table == math.inf) | (table == lowest)).any()):
        raise ModelError(
            f"The integral over {', '.join(map(repr, latents))} is not finite: something that depends on them is "
            "infinite or NaN, or a noise is so small that its square is no number. Look at data, parameters and scales."
        )
    return table


def _of_star(
    solved: Star,
    latents: Mapping[str, CollapsedSite],
    discrete: Mapping[str, frozenset[str]],
    dtype: torch.dtype,
) -> Integral:
    latent = solved.latent
    inner = latent.inner_plates
    homes = frozenset().union(*[discrete[name] for name in solved.names])
    own = extents(latent)
    missing = sorted(homes - own.keys())
    if missing:
        site = next(name for name in solved.names if missing[0] in discrete[name])
        raise tied(latent.name, site, missing[0])
    table = _finite(solved.log_evidence(), latents)
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
    return Integral(tuple(names), table.to(dtype), latent.name, latents, solved)


def _extra(latent: CollapsedSite) -> int:
    """Event dimensions that ``to_event`` made of batch dimensions."""
    return len(latent.fn.event_shape) - len(innermost(latent.fn).event_shape)


def _not_conjugate(group: Sequence[CollapsedSite], latents: Mapping[str, CollapsedSite]) -> NotConjugateError:
    """Names the site at which the conjugacy ends."""
    for site in group:
        values = _delayed_of(site)
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
