"""Vectorized chains of Gaussian sites in which each step depends on those before it: integrated in blocks of steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sumout.effects.delayed.links import joint_shape
from sumout.effects.steps import ChainStep, family, is_lookback
from sumout.errors import ModelError
from sumout.execute.filtering import Link, chain, folded
from sumout.lower.collapse.component import Center, Component
from sumout.lower.collapse.gaussian import GaussianFactor, Member, Parts
from sumout.lower.collapse.sites import CollapsedSite
from sumout.settings import settings
from sumout.terms.gaussian import Quadratic

Assembled = Callable[[Sequence[GaussianFactor], Mapping[str, CollapsedSite]], Component]
"""Makes a component of factors and delayed sites."""


class Filter:
    """A chain whose evidence is known, and its factors step by step, made when posteriors are asked for.

    Attributes:
        batch: the dimensions of the evidence.
        evidence: the logarithm of the integral.
    """

    def __init__(
        self, batch: tuple[str, ...], evidence: Tensor, squares: Tensor, unrolled: Callable[[], Component]
    ) -> None:
        self.batch, self.evidence, self._squares, self._unrolled = batch, evidence, squares, unrolled

    def log_evidence(self) -> Tensor:
        return self.evidence

    def squares(self) -> Tensor:
        """The sum of all squares of data in units of their noise."""
        return self._squares

    def centered(self, center: Mapping[str, Center]) -> Filter:
        """The same factors as functions of deviations."""
        return Filter(self.batch, self.evidence, self._squares, lambda: self.component.centered(center))

    @cached_property
    def component(self) -> Component:
        return self._unrolled()


class _Steps(NamedTuple):
    """A chain that can be filtered.

    Attributes:
        name: the chain.
        places: for each of its delayed sites whether it is one of the first steps, and where its entries stand: among
            those of the first ``history`` steps, or of ``history + 1`` consecutive ones.
        size: the entries of a step.
        history: of how many steps before it each depends.
        length: the number of steps.
    """

    name: str
    places: dict[str, tuple[bool, range]]
    size: int
    history: int
    length: int


def filtered(
    members: Sequence[Member],
    factors: Sequence[Parts | GaussianFactor],
    latents: Mapping[str, CollapsedSite],
    ordinals: Mapping[str, frozenset[str]],
    scales: Mapping[str, float],
    unrolled: Callable[[], Component],
    assembled: Assembled,
) -> Filter | None:
    """The integral of a chain, and of delayed sites that its steps have in common.

    Args:
        members: the sites.
        factors: theirs.
        latents: the delayed sites.
        ordinals: for each delayed site the plates whose elements are multiplied.
        scales: of each plate.
        unrolled: makes the component step by step.
        assembled: makes that of what is left when the chain is integrated out.

    Returns:
        ``None`` for what is no chain, or no simple one.

    Raises:
        ModelError: if the integral diverges.
    """
    steps = _steps_of(latents)
    if steps is None:
        return None
    homes = {ordinals[name] - {steps.name} for name in steps.places}
    common = {name: latents[name] for name in latents if name not in steps.places}
    (plates, *others) = homes
    if others or not all(ordinals[name] <= plates for name in common):
        return None
    pairs = list(zip(members, factors, strict=True))
    left = [each for _, each in pairs if not steps.places.keys() & set(each.scope)]
    inside = [pair for pair in pairs if steps.places.keys() & set(pair[1].scope)]
    parts = [each for _, each in inside if isinstance(each, Parts)]
    where = [_where(member, each, steps) for member, each in inside]
    if len(parts) < len(inside) or not all(where) or any(steps.name in each.names for each in left):
        return None
    names = tuple(dict.fromkeys([name for each in parts for name in each.names if name != steps.name]))
    if not plates.issubset(names):
        return None
    sizes = {name: size for each in parts for name, size in zip(each.names, each.const.shape, strict=True)}
    batch = [sizes[name] for name in names]
    columns = _Columns(common, {name for each in parts for name in each.scope})
    entries = ((steps.history + 1) * steps.size) ** 2 * 2 + columns.count * steps.size * 4
    if steps.length * math.prod(batch) * entries * parts[0].vector.element_size() > settings.memory_limit:
        return None
    first = _Sum(steps, columns, names, batch, later=False)
    later = _Sum(steps, columns, names, batch, later=True)
    for each in parts:
        (later if steps.name in each.names else first).add(each)
    try:
        table = _integral(first, later, steps)
        scope = tuple(columns.places)
        kept = plates.difference(*[ordinals[name] for name in scope])
        for place, name in reversed(list(enumerate(names))):
            if name in kept:
                table = table.multiplied([place], scales[name])
        names = tuple([name for name in names if name not in kept])
        squares = torch.stack([_square(each).detach().abs().sum() for each in factors]).sum()
        if not common:
            return Filter(names, table.rest - 0.5 * table.form[..., 0, 0], squares, unrolled)
        whole = [each.joined() if isinstance(each, Parts) else each for each in left]
        rest = assembled([*whole, GaussianFactor(names, scope, table)], common)
        return Filter(rest.batch, rest.log_evidence(), squares, unrolled)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        listed = ", ".join(sorted(map(repr, latents))[:8])
        raise ModelError(
            f"The integral over {listed} diverges or is too close to diverging for its precision: prior and "
            "observations together do not determine them. Give them proper priors, and noise that is not zero."
        ) from error


def _square(factor: Parts | GaussianFactor) -> Tensor:
    return factor.const if isinstance(factor, Parts) else factor.table.square()


def _steps_of(latents: Mapping[str, CollapsedSite]) -> _Steps | None:
    """The chain, if there is one, and all of its steps have the same delayed sites."""
    found: dict[tuple[bool, int], dict[tuple[str, str], tuple[str, int]]] = {}
    spans = set()
    for name, site in latents.items():
        step: ChainStep | None = site.message.infer.get("_chain")
        if step is None:
            continue
        single = step.dim is None
        if step.independent or (single and is_lookback(site.message)):
            return None
        spans.add(
            (step.chain, step.stop - step.start, 0) if single else (step.chain, 0, step.stop - step.start)
        )
        found.setdefault((single, step.start), {})[family(name, step)] = name, site.event_size
    starts = sorted(start for single, start in found if not single)
    if not starts:
        return None
    history = starts[-1]
    own = found[False, history]
    length = history + max(span for _, _, span in spans)
    (chain_name, *_) = sorted({name for name, _, _ in spans})
    if spans != {(chain_name, 1, 0), (chain_name, 0, length - history)}:
        return None
    sizes = {key: size for key, (_, size) in own.items()}
    stops = {}
    total = 0
    for key, size in sizes.items():
        total += size
        stops[key] = total
    places = {}
    for (single, start), of_kind in found.items():
        here = {key: size for key, (_, size) in of_kind.items()}
        if not here.items() <= sizes.items() or (single and (here != sizes or start >= history)):
            return None
        for key, (name, size) in of_kind.items():
            stop = start * total + stops[key]
            places[name] = single, range(stop - size, stop)
    if any((True, start) not in found for start in range(history)):
        return None
    return _Steps(chain_name, places, total, history, length)


def _where(member: Member, factor: Parts | GaussianFactor, steps: _Steps) -> bool:
    """Whether a factor is one of the first steps, or of all others in their order."""
    step: ChainStep | None = member.site.message.infer.get("_chain")
    if step is None or step.chain != steps.name:
        return False
    later = steps.name in factor.names
    if {steps.places[name][0] for name in factor.scope if name in steps.places} != {not later}:
        return False
    if step.dim is None:
        return not later and step.start < steps.history
    return later and (step.start, step.stop) == (steps.history, steps.length)


class _Columns:
    """Delayed sites that are no part of the chain: an information vector is affine in them, and has a column for each.

    The first column is what it is where they are all zero.
    """

    def __init__(self, common: Mapping[str, CollapsedSite], used: set[str]) -> None:
        self.places: dict[str, range] = {}
        self.count = 1
        for name, site in common.items():
            if name in used:
                self.places[name] = range(self.count, self.count + site.event_size)
                self.count += site.event_size


class _Sum:
    """The product of some factors, along the dimensions ``(steps, *names)``."""

    def __init__(
        self, steps: _Steps, columns: _Columns, names: Sequence[str], batch: Sequence[int], later: bool
    ) -> None:
        self.steps, self.columns, self.names = steps, columns, (steps.name, *names)
        self.width = steps.size * (steps.history + later)
        self.batch = [steps.length - steps.history if later else 1, *batch]
        self.precisions: list[Tensor] = []
        self.vectors: list[Tensor] = []
        self.forms: list[Tensor] = []
        self.rests: list[Tensor] = []

    def add(self, parts: Parts) -> None:
        places: list[
            int
        ] = []  # Of its entries: in the chain, and behind that in the columns but for the first.
        for name in parts.scope:
            if name in self.steps.places:
                places += self.steps.places[name][1]
            else:
                places += [self.width + each - 1 for each in self.columns.places[name]]
        order = [parts.names.index(name) for name in self.names if name in parts.names]

        def placed(x: Tensor, tail: int) -> Tensor:
            own = x.permute([*order, *range(x.ndim - tail, x.ndim)])
            for place, name in enumerate(self.names):
                own = own if name in parts.names else own.unsqueeze(place)
            return own

        total = self.width + self.columns.count - 1
        precision = _spread(_spread(placed(parts.precision, 2), places, total).mT, places, total).mT
        # Vectors are as long as data: they have no zeros for the step before where it has no part in them.
        low = self.steps.size if self.has_ends and min(places) >= self.steps.size else 0
        vector = _spread(placed(parts.vector, 1), [each - low for each in places], total - low)
        const, rest = placed(parts.const, 0), placed(parts.rest, 0)
        own = self.width - low
        form, row = self._over_steps(const)[..., None, None], vector[..., None, :own]
        if self.columns.count > 1:
            form = self._over_steps(precision[..., self.width :, self.width :])
            more = self._over_steps(vector[..., own:])
            corner = self._over_steps(const).unsqueeze(-1)
            shape = joint_shape(form.shape[:-2], more.shape[:-1], corner.shape[:-1])
            more, corner = more.expand([*shape, -1]), corner.expand([*shape, -1])
            form = torch.cat([more.unsqueeze(-2), form.expand([*shape, *form.shape[-2:]])], -2)
            form = torch.cat([torch.cat([corner, more], -1).unsqueeze(-1), form], -1)
            cross = precision[..., self.width :, low : self.width]
            shape = joint_shape(row.shape[:-2], cross.shape[:-2])
            row = torch.cat([each.expand([*shape, *each.shape[-2:]]) for each in (row, cross)], -2)
        self.precisions.append(precision[..., : self.width, : self.width])
        self.vectors.append(row)
        self.forms.append(form)
        self.rests.append(self._over_steps(rest))

    def _over_steps(self, x: Tensor) -> Tensor:
        """Constants of all steps together."""
        return x.sum(0) * (self.batch[0] // x.shape[0])

    @property
    def is_shared(self) -> bool:
        """Whether all that the batch is made of has one precision."""
        return all(math.prod(each.shape[1:-2]) == 1 for each in self.precisions)

    @property
    def has_ends(self) -> bool:
        """Whether its vectors may be told of the last steps only: see ``Link``."""
        return self.width == 2 * self.steps.size and self.batch[0] > 1

    def _vector(self) -> tuple[Tensor | None, Tensor]:
        """The information vectors, shape ``(*batch, columns, entries)``, and what belongs to the variables before.

        What is the same everywhere is added up first, as it is small.
        """
        rank, size = len(self.batch), self.steps.size
        small = [each for each in self.vectors if each.shape[:rank].numel() == 1]
        large = [each for each in self.vectors if each.shape[:rank].numel() > 1]
        if not self.has_ends:
            return None, _added([*small, *large])
        ends = [each for each in large if each.shape[-1] == size]
        wide = [each for each in (*small, *large) if each.shape[-1] > size]
        before = None
        if wide:
            both = _added(wide).movedim(0, -2)
            both = both.expand([*both.shape[:-2], self.batch[0], -1])
            before, after = folded(*torch.split_with_sizes(both, [size, size], -1))
            ends = [*ends, after.movedim(-2, 0)]
        return before, _added([*[each for each in small if each.shape[-1] == size], *ends])

    def link(self, shared: bool) -> tuple[Link, Tensor | None]:
        """The product, with the series of one precision side by side, and what belongs to the vectors before it."""
        precision, (before, vector) = _added(self.precisions), self._vector()
        count = math.prod(self.batch[1:])
        groups, series = (1, count) if shared else (count, 1)
        steps = precision.shape[0]
        if not shared:
            precision = precision.expand([steps, *self.batch[1:], *precision.shape[-2:]])
        precision = precision.reshape([steps, groups, *precision.shape[-2:]]).transpose(0, 1)

        def lined(x: Tensor) -> Tensor:
            x = x.expand([*self.batch[1:], *x.shape[-3:]])
            return x.reshape([groups, series, *x.shape[-3:]])

        vector = vector.expand([self.batch[0], *vector.shape[1:]]).movedim(0, -2)
        return Link(precision, lined(vector)), None if before is None else lined(before)


def _spread(x: Tensor, places: list[int], total: int) -> Tensor:
    """The tensor with the entries of its last dimension at some places of more, and zero elsewhere."""
    if places == list(range(places[0], places[0] + len(places))):
        return F.pad(x, (places[0], total - places[-1] - 1)) if len(places) < total else x
    index = [len(places)] * total
    for mine, theirs in enumerate(places):
        index[theirs] = mine
    return F.pad(x, (0, 1)).index_select(-1, torch.tensor(index, device=x.device))


def _added(tables: Sequence[Tensor]) -> Tensor:
    total = tables[0]
    for each in tables[1:]:
        total = total + each
    return total


def _integral(first: _Sum, later: _Sum, steps: _Steps) -> Quadratic:
    """What is left of a chain: a factor of the delayed sites that its steps have in common."""
    shared = first.is_shared and later.is_shared
    (start, _), (elements, before) = first.link(shared), later.link(shared)
    start = start if before is None else start.plus(before)
    squares, log_normalizer = chain(start, elements, steps.size, steps.history)
    batch = first.batch[1:]
    form = _added([*first.forms, *later.forms, -squares.reshape([*batch, *squares.shape[-2:]])])
    rest = _added(
        [*first.rests, *later.rests, log_normalizer[0] if shared else log_normalizer.reshape(batch)]
    )
    return Quadratic(form, rest.expand(batch))
