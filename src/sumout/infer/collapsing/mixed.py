"""Posteriors as mixtures of one family, which discrete sites and runs of a program choose among."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.errors import ModelError
from sumout.execute import Marginal
from sumout.plan import Readout


class Mixed(NamedTuple):
    """A mixture before it is made a distribution.

    Attributes:
        family: what a distribution of the parts is called, with its event shape; the same for all components.
        make: the distribution of parts.
        parts: parameters, each of shape ``(components, *batch, *rest)``.
        batch: the batch shape.
        weights: probabilities, of a shape that broadcasts to ``(components, *batch)``; ``None`` for one component.
    """

    family: tuple[str, tuple[int, ...]]
    make: Callable[[Sequence[Tensor]], Any]
    parts: tuple[Tensor, ...]
    batch: tuple[int, ...]
    weights: Tensor | None

    def distribution(self) -> Any:
        """The family's, or a ``MixtureSameFamily`` of it with the components along the last batch dimension."""
        if self.weights is None:
            return self.make([part[0] for part in self.parts])
        rank = len(self.batch)
        probs = self.weights.expand(len(self.parts[0]), *self.batch).movedim(0, -1)
        parts = [part.movedim(0, rank) for part in self.parts]
        return dist.MixtureSameFamily(dist.Categorical(probs=probs), self.make(parts))


def together(name: Readout, found: Sequence[Mixed], probs: Sequence[Tensor]) -> Mixed:
    """The mixture of a site's posteriors in several runs of a program, each with its probability.

    Raises:
        ModelError: if the runs have it of different families or shapes.
    """
    if len(found) == 1:
        return found[0]
    first = found[0]
    for each in found:
        if (each.family, each.batch) != (first.family, first.batch):
            told = [f"{one.family[0]} of shape {(*one.batch, *one.family[1])}" for one in (first, each)]
            raise ModelError(
                f"The posterior of site {name!r} is {told[0]} in one run of the program and {told[1]} in another, by "
                "the values of sequentially enumerated sites: no one distribution has both. Draw it: "
                "posterior_samples."
            )
    weights = [
        prob * (each.parts[0].new_ones(()) if each.weights is None else each.weights)
        for each, prob in zip(found, probs, strict=True)
    ]
    full = [
        weight.expand(len(each.parts[0]), *each.batch).to(each.parts[0].dtype)
        for each, weight in zip(found, weights, strict=True)
    ]
    parts = tuple([torch.cat(each) for each in zip(*[one.parts for one in found], strict=True)])
    return first._replace(parts=parts, weights=torch.cat(full))


class Along(NamedTuple):
    """A tensor with some named dimensions in front."""

    names: tuple[str, ...]
    data: Tensor

    def over(self, wanted: Sequence[str], sizes: Mapping[str, int]) -> Tensor:
        """The same along ``wanted``, as one first dimension; repeated along those that it has not."""
        order = [self.names.index(each) for each in wanted if each in self.names]
        rest = self.data.shape[len(self.names) :]
        data = self.data.permute([*order, *range(len(self.names), self.data.dim())])
        data = data.reshape([*[sizes[each] if each in self.names else 1 for each in wanted], *rest])
        data = data.expand([*[sizes[each] for each in wanted], *rest])
        return data.reshape([-1, *rest])


def weights_of(marginal: Marginal, dims: Mapping[str, int], rank: int) -> Tensor:
    """Probabilities of the joint states of discrete sites, all joint states in one first dimension.

    Args:
        marginal: of all of them together.
        dims: the negative dimension that each of its plates has.
        rank: the number of batch dimensions.

    Returns:
        Shape ``(states, *batch)``, with size one along dimensions of other plates.
    """
    plates = sorted(marginal.plates, key=lambda each: dims[each])
    count = len(plates)
    probs = marginal.probs.flatten(count) if marginal.probs.dim() > count else marginal.probs.unsqueeze(-1)
    probs = probs.permute([count, *[marginal.plates.index(each) for each in plates]])
    shape = [1] * rank
    for plate, size in zip(plates, probs.shape[1:], strict=True):
        shape[dims[plate]] = size
    return probs.reshape([-1, *shape])
