"""Gaussian sites that depend on each other, integrated by one plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.execute.beliefs import Belief, beliefs
from sumout.execute.gaussian import Factor, Integrated, integrate
from sumout.plan import EliminationPlan, FactorShape, Structure, make_plan
from sumout.plan.unroll import unroll
from sumout.terms.gaussian import Quadratic


class Moments(NamedTuple):
    """The posterior of one delayed site, given the discrete variables.

    Attributes:
        names: the first dimensions: the component's batch, then plates.
        mean: shape ``(*names, entries)``; the entries are those of the site's event, and before them those of the
            plates that are written out.
        covariance: ``(*names, entries, entries)``.
    """

    names: tuple[str, ...]
    mean: Tensor
    covariance: Tensor


SAMPLES = "samples of the posterior"
"""The name of the dimension along which samples run."""


class States(NamedTuple):
    """A number in each sample, such as the index of a discrete variable's state: shape ``(samples, *plates)``."""

    values: Tensor
    plates: tuple[str, ...]


Center = tuple[tuple[str, ...], Tensor]
"""A point for each element of some plates: their names, and a tensor of shape ``(*plates, entries)``."""


class Component(NamedTuple):
    """Gaussian factors, and what is needed to plan their integral.

    Attributes:
        structure: real variables are dimensions of sizes by which they are told apart; the batch are the discrete
            variables and the plates whose elements are problems of their own.
        factors: one for each of the structure's, all of one form.
        real: the entries of each real variable.
        written: the plates that are written out.
        center: where factors are functions of deviations, of each variable from what.
    """

    structure: Structure
    factors: tuple[Factor, ...]
    real: dict[str, int]
    written: frozenset[str]
    center: Mapping[str, Center] = MappingProxyType({})

    @property
    def batch(self) -> tuple[str, ...]:
        return self.structure.batch

    def centered(self, center: Mapping[str, Center]) -> Component:
        """The same factors as functions of deviations."""
        return self._replace(center=center)

    def squares(self) -> Tensor:
        """The sum of all squares of data in units of their noise."""
        of_shape: dict[torch.Size, list[Factor]] = {}  # There may be thousands of them.
        for factor in self.factors:
            of_shape.setdefault(factor.table.shape, []).append(factor)
        found = [type(each[0]).stacked(each).square().abs().sum() for each in of_shape.values()]
        return torch.stack(found).sum()

    def ran(self) -> Integrated:
        """The integral over all real variables."""
        return integrate(make_plan(self.structure), self.factors, self.real)

    def integral(self) -> Quadratic:
        """What is left: ``form`` and ``rest`` of the batch's shape."""
        found = self.ran()
        return Quadratic(found.square, found.rest)

    def log_evidence(self) -> Tensor:
        """The logarithm of the integral, of the batch's shape."""
        form, rest = self.integral()
        return rest - 0.5 * form

    def moments(self) -> dict[str, Moments]:
        """The posterior of each real variable."""
        found = beliefs(self.ran())
        return {name: self._moments(found[name], (name,)) for name in self.real}

    def joint_moments(self, names: tuple[str, ...]) -> Moments:
        """The posterior of several real variables, whose entries lie side by side.

        Returns:
            Along the plates of all of them: what lives outside of one is the same for each element.
        """
        if len(names) == 1:
            return self.moments()[names[0]]
        plan = make_plan(self.structure, (names,), unroll=True)
        if not plan.unrolled:
            return self._moments(_shown(plan, self.factors, self.real, [names])[0], names)
        copies = unroll(self.structure, plan.unrolled)
        sizes = dict(self.structure.sizes)
        factors = []
        for number, at in copies.factors:
            index = dict(at)
            dims = [each for each in self.structure.factors[number].inputs if each not in self.real]
            factors.append(
                self.factors[number].chosen(tuple([index.get(each, slice(None)) for each in dims]))
            )
        real = {}
        for name, entries in self.real.items():
            of_name = copies.copies[name][1].values() if name in copies.copies else (name,)
            real.update(dict.fromkeys(of_name, entries))
        groups = [copies.readout(names, at) for at in copies.elements(names, sizes)]
        found = _shown(plan, factors, real, [each for each in groups if isinstance(each, tuple)])
        home = copies.home(names)
        around = found[0].names
        shape = [sizes[each] for each in (*around, *home)]
        rank = len(around)
        value = torch.stack([each.value for each in found], rank)
        covariance = torch.stack([each.covariance for each in found if each.covariance is not None], rank)
        entries = value.shape[-1]
        value, covariance = value.reshape([*shape, entries]), covariance.reshape([*shape, entries, entries])
        return self._moments(Belief((*around, *home), value, covariance), names)

    def _moments(self, found: Belief, names: Sequence[str]) -> Moments:
        """What is known of some variables, as values instead of deviations."""
        assert found.covariance is not None
        parts = torch.split_with_sizes(found.value, [self.real[name] for name in names], -1)
        moved = [self._moved(name, found.names, each) for name, each in zip(names, parts, strict=True)]
        return Moments(found.names, torch.cat(moved, -1) if len(moved) > 1 else moved[0], found.covariance)

    def draws(self) -> dict[str, tuple[tuple[str, ...], Tensor]]:
        """A joint sample of all real variables for each element of the batch, all at once.

        Returns:
            For each variable its dimensions, and values of shape ``(*dimensions, entries)``.
        """
        with torch.no_grad():
            found = beliefs(self.ran(), noisy=True)
            values = {name: (found[name].names, found[name].value) for name in self.real}
            return {name: (names, self._moved(name, names, each)) for name, (names, each) in values.items()}

    def _moved(self, name: str, names: tuple[str, ...], value: Tensor, sign: float = 1.0) -> Tensor:
        """From deviations to values, of shape ``(*names, entries)``; or back."""
        center = self.center.get(name)
        if center is None:
            return value
        home, point = center
        point = point.permute([*[home.index(each) for each in names if each in home], -1])
        shape = [size if each in home else 1 for each, size in zip(names, value.shape[:-1], strict=True)]
        return value + sign * point.reshape([*shape, -1])

    def widened(self, width: States) -> Component:
        """The component with all standard deviations multiplied by numbers in each sample and element of some plates.

        Its evidence is off by a constant.
        """
        factors = []
        for shape, factor in zip(self.structure.factors, self.factors, strict=True):
            dims = [each for each in shape.inputs if each not in self.real]
            factors.append(factor.wider(_along(width, dims, factor.rest.shape)))
        return self._replace(factors=tuple(factors))

    def in_states(self, count: int, states: Mapping[str, States] = MappingProxyType({})) -> Component:
        """The component with samples in the place of discrete variables: one for each element of a new batch."""
        sizes = dict(self.structure.sizes)
        shapes, factors = [], []
        for shape, factor in zip(self.structure.factors, self.factors, strict=True):
            dims = [each for each in shape.inputs if each not in self.real]
            kept = [each for each in dims if each not in states]
            plates = list(
                dict.fromkeys(
                    [*kept, *[plate for each in dims if each in states for plate in states[each].plates]]
                )
            )
            index = []
            for each in dims:
                if each in states:
                    chosen, of = states[each]
                    order = [0, *[1 + of.index(plate) for plate in plates if plate in of]]
                    extent = [sizes[plate] if plate in of else 1 for plate in plates]
                    index.append(chosen.permute(order).reshape([count, *extent]))
                else:
                    place = plates.index(each)
                    index.append(
                        torch.arange(sizes[each], device=factor.rest.device).reshape(
                            [1, *[-1 if other == place else 1 for other in range(len(plates))]]
                        )
                    )
            extent = [count, *[sizes[plate] for plate in plates]]
            factors.append((factor.chosen(tuple(index)) if index else factor).expanded(extent))
            names = [each for each in shape.inputs if each in self.real]
            shapes.append(shape._replace(inputs=(SAMPLES, *plates, *names)))
        codes = codes_of(set(self.real.values()), {count, *sizes.values()})
        batch = (SAMPLES, *[each for each in self.batch if each not in states])
        structure = self.structure._replace(
            factors=tuple(shapes),
            sizes=(
                (SAMPLES, count),
                *[
                    each
                    for each in self.structure.sizes
                    if each[0] not in states and each[0] not in self.real
                ],
                *[(name, codes[size]) for name, size in self.real.items()],
            ),
            batch=batch,
        )
        return self._replace(structure=structure, factors=tuple(factors))

    def log_density(self, homes: Mapping[str, tuple[str, ...]], values: Mapping[str, Tensor]) -> Tensor:
        """The logarithm of the product of all factors at some values, of the batch's shape.

        Args:
            homes: for each real variable the dimensions of its value.
            values: shape ``(*homes, entries)``.
        """
        sizes, weights = dict(self.structure.sizes), dict(self.structure.plates)
        total = self.factors[0].rest.new_zeros([sizes[each] for each in self.batch])
        for shape, factor in zip(self.structure.factors, self.factors, strict=True):
            own = [each for each in shape.inputs if each not in self.real]
            varied = {each for name in shape.inputs if name in self.real for each in homes[name]}
            dims = [*[each for each in self.batch if each in varied and each not in own], *own]
            names = [each for each in shape.inputs if each in self.real]
            point = self._beside(shape._replace(inputs=(*dims, *names)), homes, values)
            point = torch.cat([point.new_ones([*point.shape[:-1], 1]), point], -1)
            found = factor.log_value(point)
            gone = [place for place, each in enumerate(dims) if each not in self.batch]
            if gone:
                found = found.sum(gone)
            for plate in shape.plates:
                found = found * weights.get(plate, 1.0)
            left = [each for each in dims if each in self.batch]
            found = found.permute([left.index(each) for each in self.batch if each in left])
            total = total + found.reshape([sizes[each] if each in left else 1 for each in self.batch])
        return total

    def _beside(
        self, shape: FactorShape, homes: Mapping[str, tuple[str, ...]], values: Mapping[str, Tensor]
    ) -> Tensor:
        """The values of a factor's variables side by side, with its dimensions, as deviations from the center."""
        sizes = dict(self.structure.sizes)
        dims = [each for each in shape.inputs if each not in self.real]
        parts = [self.factors[0].rest.new_zeros([*[sizes[each] for each in dims], 0])]
        for name in shape.inputs:
            if name in self.real:
                home = homes[name]
                value = self._moved(name, home, values[name], -1.0)
                value = value.permute([*[home.index(each) for each in dims if each in home], value.dim() - 1])
                value = value.reshape(
                    [sizes[each] if each in home else 1 for each in dims] + [self.real[name]]
                )
                parts.append(value.expand([*[sizes[each] for each in dims], self.real[name]]))
        return torch.cat(parts, -1)


def _shown(
    plan: EliminationPlan,
    factors: Sequence[Factor],
    real: Mapping[str, int],
    groups: Sequence[tuple[str, ...]],
) -> list[Belief]:
    """The joint posteriors of groups of variables, of which a plan has readouts."""
    sizes, like = dict(plan.structure.sizes), factors[0]
    tables = list(factors)
    for probe in plan.probes:
        shape = [sizes[each] for each in probe.inputs if each not in real]
        size = 1 + sum([real[each] for each in probe.inputs if each in real])
        tables.append(type(like)(like.table.new_zeros([*shape, size, size]), like.rest.new_zeros(shape)))
    places = dict(plan.readouts)
    found = beliefs(integrate(plan, tables, real), shown={each: places[each] for each in groups})
    return [found[each] for each in groups]


def _along(states: States, dims: Sequence[str], shape: Sequence[int]) -> Tensor:
    """Numbers in each sample and element of plates, as a tensor that broadcasts along ``dims``, samples first."""
    found, plates = states
    found = found.permute([0, *[1 + plates.index(each) for each in dims if each in plates]])
    return found.reshape(
        [shape[0], *[shape[place] if each in plates else 1 for place, each in enumerate(dims) if place]]
    )


def codes_of(entries: set[int], taken: set[int]) -> dict[int, int]:
    """Sizes by which a planner tells real variables from other dimensions; about as large as their extent."""
    codes: dict[int, int] = {}
    code = 1
    for extent in sorted(entries):
        code = max(code + 1, extent + 1)
        while code in taken:
            code += 1
        codes[extent] = code
    return codes
