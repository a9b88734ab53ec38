"""Vectorized chains of Gaussian sites in which each step depends on the one before: integrated by halving."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sumout.effects.steps import ChainStep, family, is_lookback
from sumout.errors import ModelError
from sumout.execute.filtering import Link, chain
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.gaussian import GaussianFactor, Member, Parts
from sumout.lower.collapse.sites import CollapsedSite
from sumout.settings import settings

Families = dict[tuple[str, str], int]
"""The delayed sites of a step by what stands before and after the step in their names, with their entries."""


class Filter:
    """A chain whose evidence is known, and its factors step by step, made when posteriors are asked for.

    Attributes:
        batch: the dimensions of the evidence.
        evidence: the logarithm of the integral.
    """

    def __init__(self, batch: tuple[str, ...], evidence: Tensor, unrolled: Callable[[], Component]) -> None:
        self.batch, self.evidence, self._unrolled = batch, evidence, unrolled

    def log_evidence(self) -> Tensor:
        return self.evidence

    @cached_property
    def component(self) -> Component:
        return self._unrolled()


class _Steps(NamedTuple):
    """A chain that can be filtered: its delayed sites, at which place the entries of each stand."""

    name: str
    families: Families
    places: dict[str, tuple[int, range]]
    """For each delayed site: 0 for the first step, and in pairs of steps 1 for the step before and 2 for its own."""
    size: int
    length: int


def filtered(
    members: Sequence[Member],
    factors: Sequence[Parts | GaussianFactor],
    latents: Mapping[str, CollapsedSite],
    ordinals: Mapping[str, frozenset[str]],
    scales: Mapping[str, float],
    unrolled: Callable[[], Component],
) -> Filter | None:
    """The integral of a chain; ``None`` for what is no chain, or no simple one.

    Args:
        members: the sites.
        factors: theirs.
        latents: the delayed sites.
        ordinals: for each delayed site the plates whose elements are multiplied.
        scales: of each plate.
        unrolled: makes the component step by step.

    Raises:
        ModelError: if the integral diverges.
    """
    steps = _steps_of(latents)
    if steps is None or len({each - {steps.name} for each in ordinals.values()}) > 1:
        return None
    parts = [each for each in factors if isinstance(each, Parts)]
    where = [_where(member, each, steps) for member, each in zip(members, parts, strict=False)]
    if len(parts) < len(factors) or not all(where):
        return None
    names = tuple(dict.fromkeys([name for each in parts for name in each.names if name != steps.name]))
    plates = next(iter(ordinals.values())) - {steps.name}
    if not plates.issubset(names):
        return None
    sizes = {name: size for each in parts for name, size in zip(each.names, each.const.shape, strict=True)}
    batch = [sizes[name] for name in names]
    if (
        steps.length * math.prod(batch) * 9 * steps.size**2 * parts[0].const.element_size()
        > settings.memory_limit
    ):
        return None
    first = _Sum(steps, names, batch, 0)
    later = _Sum(steps, names, batch, 1)
    for each in parts:
        (first if steps.name not in each.names else later).add(each)
    if not first.parts:
        return None
    try:
        table = _integral(first, later, steps)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        listed = ", ".join(sorted(map(repr, latents))[:8])
        raise ModelError(
            f"The integral over {listed} diverges or is too close to diverging for its precision: prior and "
            "observations together do not determine them. Give them proper priors, and noise that is not zero."
        ) from error
    kept = tuple([name for name in names if name not in plates])
    for place, name in reversed(list(enumerate(names))):
        if name in plates:
            table = table.sum(place) * scales[name]
    return Filter(kept, table, unrolled)


def _steps_of(latents: Mapping[str, CollapsedSite]) -> _Steps | None:
    """The chain, if all delayed sites are steps of one, and all of its steps have the same."""
    found: dict[int, dict[tuple[str, str], tuple[str, int]]] = {0: {}, 1: {}, 2: {}}
    spans: dict[int, set[tuple[int, int]]] = {0: set(), 1: set(), 2: set()}
    chains = set()
    for name, site in latents.items():
        step: ChainStep | None = site.message.infer.get("_chain")
        if step is None or step.independent or (step.dim is None and is_lookback(site.message)):
            return None
        kind = 0 if step.dim is None else 1 if is_lookback(site.message) else 2
        key = family(name, step)
        chains.add(step.chain)
        spans[kind].add((step.start, step.stop))
        found[kind][key] = name, site.event_size
    if len(chains) != 1 or len(spans[2]) != 1 or spans[0] != {(0, 1)}:
        return None
    ((start, stop),) = spans[2]
    families: Families = {key: size for key, (_, size) in found[2].items()}
    same = {key: size for key, (_, size) in found[0].items()} == families
    if start != 1 or not same or spans[1] - {(0, stop - 1)} or not found[1].keys() <= families.keys():
        return None
    stops = dict.fromkeys(families, 0)
    total = 0
    for key, size in families.items():
        total += size
        stops[key] = total
    places = {
        name: (kind, range(stops[key] - size, stops[key]))
        for kind, of_kind in found.items()
        for key, (name, size) in of_kind.items()
    }
    return _Steps(chains.pop(), families, places, total, stop)


def _where(member: Member, parts: Parts, steps: _Steps) -> bool:
    """Whether a factor is one of the first step, or of all others in their order."""
    step: ChainStep | None = member.site.message.infer.get("_chain")
    if step is None or step.chain != steps.name:
        return False
    if step.dim is None:
        right = step.start == 0 and steps.name not in parts.names
        return right and all(steps.places[name][0] == 0 for name in parts.scope)
    right = (step.start, step.stop) == (1, steps.length) and steps.name in parts.names
    return right and all(steps.places[name][0] for name in parts.scope)


class _Sum:
    """The product of some factors, along the dimensions ``(steps, *names)``."""

    def __init__(self, steps: _Steps, names: Sequence[str], batch: Sequence[int], pairs: int) -> None:
        self.steps, self.names, self.pairs = steps, (steps.name, *names), pairs
        self.batch = [steps.length - 1 if pairs else 1, *batch]
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, parts: Parts) -> None:
        size = self.steps.size
        places = [
            place + (size if kind == 2 else 0)
            for kind, places in map(self.steps.places.__getitem__, parts.scope)
            for place in places
        ]
        order = [parts.names.index(name) for name in self.names if name in parts.names]
        shape = [parts.names.index(name) if name in parts.names else None for name in self.names]

        def placed(x: Tensor, tail: int) -> Tensor:
            own = x.permute([*order, *range(x.ndim - tail, x.ndim)])
            return own.reshape(
                [1 if place is None else x.shape[place] for place in shape]
                + list(own.shape[own.ndim - tail :])
            )

        precision, vector = placed(parts.precision, 2), placed(parts.vector, 1)
        total = size * (1 + self.pairs)
        if places != list(range(total)):
            missing = total - len(places)
            index = [len(places)] * total
            for mine, theirs in enumerate(places):
                index[theirs] = mine
            chosen = torch.tensor([min(each, total - 1) for each in index], device=vector.device)
            precision = (
                F.pad(precision, (0, missing, 0, missing)).index_select(-1, chosen).index_select(-2, chosen)
            )
            vector = F.pad(vector, (0, missing)).index_select(-1, chosen)
        rest = parts.rest.expand(parts.const.shape) - 0.5 * parts.const
        self.parts.append((precision, vector, placed(rest, 0)))

    def total(self, shared: bool) -> tuple[Link, Tensor]:
        """The product, and the constants of all steps together, shape ``batch``."""
        precision = _added([each for each, _, _ in self.parts])
        vector = _added([each for _, each, _ in self.parts])
        rest = sum([each.sum(0) * (self.batch[0] // each.shape[0]) for _, _, each in self.parts])
        assert isinstance(rest, Tensor)
        count, n = math.prod(self.batch[1:]), vector.shape[-1]
        groups, series = (1, count) if shared else (count, 1)
        if not shared:
            precision = precision.expand([precision.shape[0], *self.batch[1:], n, n])
        precision = precision.reshape([precision.shape[0], groups, n, n])
        vector = vector.expand([*self.batch, n]).reshape([self.batch[0], groups, series, n])
        return Link(precision, vector), rest.expand(self.batch[1:])

    @property
    def is_shared(self) -> bool:
        return all(math.prod(each.shape[1:-2]) == 1 for each, _, _ in self.parts)


def _added(tables: Sequence[Tensor]) -> Tensor:
    total = tables[0]
    for each in tables[1:]:
        total = total + each
    return total


def _integral(first: _Sum, later: _Sum, steps: _Steps) -> Tensor:
    shared = first.is_shared and later.is_shared
    start, rest = first.total(shared)
    elements = None
    if later.parts:
        elements, more = later.total(shared)
        rest = rest + more
    return chain(start, elements, steps.size).reshape(rest.shape) + rest
