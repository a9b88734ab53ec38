"""Collapsed sites taken apart into groups that do not depend on each other, and each group integrated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.distributions.families import innermost
from sumout.effects.steps import ChainStep, family, is_lookback
from sumout.errors import ModelError
from sumout.lower.collapse.alike import NormalSite
from sumout.lower.collapse.arms import arm_of
from sumout.lower.collapse.assembly import in_order, tied
from sumout.lower.collapse.centering import integral_of
from sumout.lower.collapse.chains import single_steps
from sumout.lower.collapse.common_matrix import CommonMatrix, common_matrix
from sumout.lower.collapse.common_scale import CommonScale, common_scale
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.conjugate import Star, star
from sumout.lower.collapse.filters import Filter
from sumout.lower.collapse.gaussian import member
from sumout.lower.collapse.layout import extents
from sumout.lower.collapse.loops import without_loops
from sumout.lower.collapse.moment_matching import Told, matched
from sumout.lower.collapse.normal import NormalForm, normal_form
from sumout.lower.collapse.observed import checked
from sumout.lower.collapse.refusals import delayed_of, not_conjugate
from sumout.lower.collapse.sites import CollapsedSite


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

    @property
    def step(self) -> ChainStep | None:
        """Where in a vectorized chain it stands, if it has a term for each step; else ``None``."""
        steps = {site.message.infer.get("_chain") for site in self._latents.values()}
        step: ChainStep | None = steps.pop() if len(steps) == 1 else None
        return step if step is not None and (step.dim is None or step.chain in self.names) else None

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
        if all(is_lookback(site.message) for site in linked):
            continue  # The same steps of a vectorized chain are scored elsewhere.
        own, power = without_loops(linked)
        group = _looked_at(own, discrete)
        integrals = (None if told is None else _matched(group, discrete, told)) or [_integral(group)]
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
        names = tuple(dict.fromkeys([each for value in delayed_of(site) for each in value.sites]))
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
    for name, other in _looked_back(sites, touched):
        leader[find(name)] = find(other)
    groups: dict[str, list[CollapsedSite]] = {}
    for site, names in zip(sites, touched, strict=True):
        groups.setdefault(find(names[0]), []).append(site)
    return list(groups.values())


def _looked_back(
    sites: Sequence[CollapsedSite], touched: Sequence[tuple[str, ...]]
) -> Iterator[tuple[str, str]]:
    """Delayed sites of vectorized chains that scored sites look back at, each with all that have the same steps."""
    used = {
        name
        for site, names in zip(sites, touched, strict=True)
        for name in names
        if name != site.name and not is_lookback(site.message)
    }
    kinds: dict[tuple[str, str, str], list[CollapsedSite]] = {}
    for site in sites:
        step: ChainStep | None = site.message.infer.get("_chain")
        if step is not None and site.is_latent:
            kinds.setdefault((step.chain, *family(site.name, step)), []).append(site)
    for kind in kinds.values():
        if any(site.name in used and is_lookback(site.message) for site in kind):
            yield from [(kind[0].name, site.name) for site in kind[1:]]


class _Group(NamedTuple):
    """Sites that depend on each other, looked at.

    Attributes:
        sites: all but what is only there to be looked back at.
        latents: the delayed ones.
        forms: of those that are normal given the others.
        homes: the plates of each enumerated site in which some of these are.
        dtype: of the result.
        wide: in which to compute: quadratic forms lose twice the digits that data have.
    """

    sites: list[CollapsedSite]
    latents: dict[str, CollapsedSite]
    forms: dict[str, NormalForm]
    homes: dict[str, frozenset[str]]
    dtype: torch.dtype
    wide: torch.dtype

    @property
    def normal(self) -> list[NormalSite]:
        return [(site, self.forms[site.name]) for site in self.sites if site.name in self.forms]

    @property
    def others(self) -> list[CollapsedSite]:
        return [site for site in self.sites if site.name not in self.forms]

    @property
    def is_gaussian(self) -> bool:
        """Whether all are normal, with scales that are known."""
        return not self.others and all(form.unit is None for form in self.forms.values())


def _looked_at(group: Sequence[CollapsedSite], discrete: Mapping[str, frozenset[str]]) -> _Group:
    inner = frozenset(frame.name for site in group for frame in site.inner)
    homes = {name: plates & inner for name, plates in discrete.items()}
    dtype = reduce(torch.promote_types, [site.dtype for site in group])
    wide = torch.promote_types(dtype, torch.float64)
    latents = {site.name: site for site in group if site.is_latent}
    sites = [checked(site) for site in group if not is_lookback(site.message)]
    forms = {site.name: form for site in sites if (form := normal_form(site.fn, site.value)) is not None}
    return _Group(sites, latents, forms, homes, dtype, wide)


def _integral(group: _Group) -> Integral:
    _, latents, _, discrete, dtype, wide = group
    members, others = group.normal, group.others
    if group.is_gaussian:
        solved, table = integral_of(members, latents, discrete, wide)
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
    matrix = common_matrix(group.sites, latents, discrete, wide) if unknown else None
    if matrix is not None:
        return replace(_of_star(matrix.factor, latents, discrete, dtype), _solution=matrix)
    raise not_conjugate(group.sites, latents)


def _matched(
    group: _Group, discrete: Mapping[str, frozenset[str]], told: Sequence[Told]
) -> list[Integral] | None:
    """The integrals of stretches of a switching system; ``None`` for a group that can be integrated exactly."""
    if not group.is_gaussian:
        return None
    latents = group.latents
    members = [member(*each, latents, group.wide) for each in group.normal]
    factors = in_order(members, latents, group.homes)
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
        table = _finite(table, own).to(group.dtype)
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
    # A plate that the site does not live in is among the names where a discrete site in it chooses.
    homes = frozenset().union(*[discrete.get(name, {name}) for name in solved.names])
    own = extents(latent)
    missing = sorted(homes - own.keys())
    if missing:
        site = next(name for name in solved.names if missing[0] in discrete.get(name, ()))
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
