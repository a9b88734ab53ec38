"""Gaussian sites that depend on each other, integrated by one plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.execute.gaussian import integrate
from sumout.plan import FactorShape, Structure, make_plan
from sumout.terms.gaussian import Quadratic, shifted


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


class Component(NamedTuple):
    """Gaussian factors, and what is needed to plan their integral.

    Attributes:
        structure: real variables are dimensions of sizes by which they are told apart; the batch are the discrete
            variables and the plates whose elements are problems of their own.
        factors: one for each of the structure's.
        real: the entries of each real variable.
        written: the plates that are written out.
    """

    structure: Structure
    factors: tuple[Quadratic, ...]
    real: dict[str, int]
    written: frozenset[str]

    @property
    def batch(self) -> tuple[str, ...]:
        return self.structure.batch

    def integral(self) -> Quadratic:
        """What is left: ``form`` and ``rest`` of the batch's shape."""
        form, rest = integrate(make_plan(self.structure), self.factors, self.real)
        return Quadratic(form[..., 0, 0], rest)

    def log_evidence(self) -> Tensor:
        """The logarithm of the integral, of the batch's shape."""
        form, rest = self.integral()
        return rest - 0.5 * form

    def moments(self) -> dict[str, Moments]:
        """The posterior of each real variable.

        The derivatives of the log-integral by a factor that is one give its first two moments. They are taken twice,
        the second time of deviations from the means, so that a variance is no difference of large numbers.
        """
        names, means, _ = self._derivatives(self.factors)
        batch = len(self.batch)
        centers = {
            name: mean.detach().mean(list(range(batch))) if batch else mean.detach()
            for name, mean in means.items()
        }
        homes = {name: each[batch:] for name, each in names.items()}
        centered = [
            Quadratic(shifted(factor.form, self._center(shape, homes, centers)), factor.rest)
            for shape, factor in zip(self.structure.factors, self.factors, strict=True)
        ]
        _, small, second = self._derivatives(centered)
        return {
            name: Moments(
                names[name],
                small[name] + centers[name],
                second[name] - small[name].unsqueeze(-1) * small[name].unsqueeze(-2),
            )
            for name in self.real
        }

    def draws(self) -> dict[str, tuple[tuple[str, ...], Tensor]]:
        """A joint sample of all real variables for each element of the batch, all at once.

        Noise that has each factor's precision as its covariance is added to its information vector; the posterior mean
        is then a sample (Papandreou and Yuille, *Gaussian sampling by local perturbations*, 2010).

        Returns:
            For each variable its dimensions, and values of shape ``(*dimensions, entries)``.
        """
        noisy = []
        for form, rest in self.factors:
            values, vectors = torch.linalg.eigh(form[..., 1:, 1:].detach())
            noise = torch.randn_like(values) * values.clamp(min=0.0).sqrt()
            change = torch.zeros_like(form)
            change[..., 0, 1:] = -(vectors @ noise.unsqueeze(-1)).squeeze(-1)
            noisy.append(Quadratic(form.detach() + change + change.mT, rest.detach()))
        names, means, _ = self._derivatives(noisy)
        return {name: (names[name], means[name].detach()) for name in self.real}

    def widened(self, width: States) -> Component:
        """The component with all standard deviations multiplied by numbers in each sample and element of some plates.

        Its evidence is off by a constant.
        """
        factors = []
        for shape, (form, rest) in zip(self.structure.factors, self.factors, strict=True):
            dims = [each for each in shape.inputs if each not in self.real]
            factors.append(Quadratic(form * _along(width, dims, form.shape)[..., None, None] ** -2, rest))
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
            form, rest = factor
            if index:
                form, rest = form[tuple(index)], rest[tuple(index)]
            form = form.expand([*extent, *form.shape[-2:]])
            factors.append(Quadratic(form, rest.expand(extent)))
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
        for shape, (form, rest) in zip(self.structure.factors, self.factors, strict=True):
            own = [each for each in shape.inputs if each not in self.real]
            varied = {each for name in shape.inputs if name in self.real for each in homes[name]}
            dims = [*[each for each in self.batch if each in varied and each not in own], *own]
            names = [each for each in shape.inputs if each in self.real]
            point = self._center(shape._replace(inputs=(*dims, *names)), homes, values)
            point = torch.cat([torch.ones_like(point[..., :1]), point], -1)
            found = rest - 0.5 * (point * (form @ point.unsqueeze(-1)).squeeze(-1)).sum(-1)
            gone = [place for place, each in enumerate(dims) if each not in self.batch]
            if gone:
                found = found.sum(gone)
            for plate in shape.plates:
                found = found * weights.get(plate, 1.0)
            left = [each for each in dims if each in self.batch]
            found = found.permute([left.index(each) for each in self.batch if each in left])
            total = total + found.reshape([sizes[each] if each in left else 1 for each in self.batch])
        return total

    def _center(
        self, shape: FactorShape, homes: Mapping[str, tuple[str, ...]], centers: Mapping[str, Tensor]
    ) -> Tensor:
        """The centers of a factor's variables side by side, with its dimensions."""
        sizes = dict(self.structure.sizes)
        dims = [each for each in shape.inputs if each not in self.real]
        parts = []
        for name in shape.inputs:
            if name in self.real:
                center = centers[name]
                home = homes[name]
                center = center.permute(
                    [*[home.index(each) for each in dims if each in home], center.dim() - 1]
                )
                center = center.reshape(
                    [sizes[each] if each in home else 1 for each in dims] + [self.real[name]]
                )
                parts.append(center.expand([*[sizes[each] for each in dims], self.real[name]]))
        return torch.cat(parts, -1)

    def _derivatives(
        self, factors: Sequence[Quadratic]
    ) -> tuple[dict[str, tuple[str, ...]], dict[str, Tensor], dict[str, Tensor]]:
        """For each variable its dimensions, and its first and second moments."""
        plan = make_plan(self.structure, tuple(self.real))
        sizes = dict(self.structure.sizes)
        like = factors[0].rest
        keep = (
            any(each.form.requires_grad or each.rest.requires_grad for each in factors)
            and torch.is_grad_enabled()
        )
        given = len(self.structure.factors)
        with torch.enable_grad():
            tables = list(factors)
            for probe in plan.probes:
                shape = [sizes[each] for each in probe.inputs if each not in self.real]
                size = 1 + sum([self.real[each] for each in probe.inputs if each in self.real])
                form = like.new_zeros([*shape, size, size], requires_grad=True)
                tables.append(Quadratic(form, like.new_zeros(shape)))
            places = {name: dict(plan.readouts)[name] for name in self.real}
            forms = []
            for place in places.values():
                if (
                    place < given
                ):  # A factor of the structure over this variable alone shows its moments, too.
                    form = tables[place].form
                    form = form if form.requires_grad else form.detach().requires_grad_()
                    tables[place] = Quadratic(form, tables[place].rest)
                forms.append(tables[place].form)
            form, rest = integrate(plan, tables, self.real)
            total = (rest - 0.5 * form[..., 0, 0]).sum()
            found = torch.autograd.grad(total, forms, create_graph=keep)
        ordinals = dict(self.structure.variables)
        names, first, second = {}, {}, {}
        shapes = [*self.structure.factors, *plan.probes]
        for (name, place), each in zip(places.items(), found, strict=True):
            dims = [dim for dim in shapes[place].inputs if dim not in self.real]
            for dim in [dim for dim in dims if dim not in self.batch and dim not in ordinals[name]]:
                each = each.select(dims.index(dim), 0)  # All elements show the same.
                dims.remove(dim)
            wanted = [*self.batch, *[dim for dim in dims if dim not in self.batch]]
            moments = -(each + each.mT).permute([*[dims.index(dim) for dim in wanted], -2, -1])
            names[name] = tuple(wanted)
            before = [other for other in shapes[place].inputs if other in self.real]
            start = 1 + sum([self.real[other] for other in before[: before.index(name)]])
            own = slice(start, start + self.real[name])
            first[name], second[name] = moments[..., 0, own], moments[..., own, own]
        return names, first, second


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
