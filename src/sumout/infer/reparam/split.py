"""A site in parts, along a dimension of its events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.effects import get_mask
from sumout.effects.primitives.sample import sample
from sumout.errors import ModelError
from sumout.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult, determined

constraints = dist.constraints

SupportOfPart = Callable[[Any, slice, int], Any]


def same_support(fn: Any, *args: Any) -> Any:
    """The support of the whole, for each part.

    >>> same_support(dist.Beta(torch.ones(4), 1.0), slice(0, 2), -1)
    Interval(lower_bound=0.0, upper_bound=1.0)
    """
    return fn.support


def real_support(fn: Any, *args: Any) -> Any:
    """All real tensors with as many event dimensions as ``fn`` has.

    >>> real_support(dist.Normal(torch.zeros(4), 1.0).to_event(1), slice(0, 2), -1)
    IndependentConstraint(Real(), 1)
    """
    return constraints.independent(constraints.real, fn.event_dim)


def default_support(fn: Any, slice: slice, dim: int) -> Any:
    """The support of a part: of supports that are stacked or concatenated along ``dim``, those in the slice.

    >>> fn = dist.Normal(torch.zeros(4), 1.0).to_event(1)
    >>> default_support(fn, slice(0, 2), -1)
    IndependentConstraint(Real(), 1)
    """
    support, reinterpreted = fn.support, []
    while isinstance(support, constraints.independent):
        reinterpreted.append(support.reinterpreted_batch_ndims)
        support = support.base_constraint
    if isinstance(support, constraints.stack) and support.dim == dim:
        support = constraints.stack(support.cseq[slice], dim)
    elif isinstance(support, constraints.cat) and support.dim == dim:
        pieces, lengths = _cut(support, slice)
        support = constraints.cat(pieces, dim, lengths)
    for dims in reversed(reinterpreted):
        support = constraints.independent(support, dims)
    return support


def _cut(support: Any, part: slice) -> tuple[list[Any], list[int]]:
    """What of concatenated constraints lies in a part, and how much of each."""
    pieces, lengths, start = [], [], 0
    for each, length in zip(support.cseq, support.lengths, strict=True):
        overlap = min(part.stop, start + length) - max(part.start, start)
        if overlap > 0:
            pieces.append(each)
            lengths.append(overlap)
        start += length
    return pieces, lengths


class SplitReparam(Reparam):
    """Cuts a site into the sites ``x_split_0``, ``x_split_1``, ... along a dimension of its events.

    The parts can then be reparameterized, and guided, each in its own way. Their prior is improper and flat; the
    density of the whole stands in the site itself. Flat sites cannot be drawn: their values come from a guide, from
    ``replay`` or from ``condition``.

    Args:
        sections: the size of each part, or the size of all parts.
        dim: the dimension, counted from the right.
        support_fn: tells the support of a part from the distribution of the whole, the slice and the dimension:
            ``default_support``, ``same_support`` or ``real_support``.

    Raises:
        ModelError: if the arguments are none of these; when the program runs, if ``dim`` is no event dimension of
            the site or the parts do not add up to its size.

    >>> import sumout
    >>> model = sumout.poutine.reparam(
    ...     lambda: sumout.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1)),
    ...     config={"x": SplitReparam([1, 2], dim=-1)},
    ... )
    >>> parts = {"x_split_0": torch.tensor([1.0]), "x_split_1": torch.tensor([2.0, 3.0])}
    >>> sumout.poutine.condition(model, data=parts)()
    tensor([1., 2., 3.])
    """

    def __init__(
        self, sections: Sequence[int] | int, dim: int = -1, support_fn: SupportOfPart = default_support
    ) -> None:
        if not isinstance(dim, int) or dim >= 0:
            raise ModelError(f"SplitReparam has dim={dim!r}; it is counted from the right, e.g. dim=-1.")
        sizes = [sections] if isinstance(sections, int) else list(sections)
        if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ModelError(f"SplitReparam has sections={sections!r}; it is a list of sizes, e.g. [2, 5].")
        self.event_dim = -dim
        self.sections = sections
        self.support_fn = support_fn

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, fn, value = msg["name"], msg["fn"], msg["value"]
        dim = -self.event_dim
        sizes = self._sizes(msg)
        axis = fn.event_dim + dim
        left, right = fn.event_shape[:axis], fn.event_shape[axis + 1 :]
        given: Sequence[Tensor | None] = (
            [None] * len(sizes) if value is None else torch.split(value, sizes, dim)
        )
        parts, start = [], 0
        for number, size in enumerate(sizes):
            support = self.support_fn(fn, slice(start, start + size), dim)
            part = sample(
                f"{name}_split_{number}",
                dist.ImproperUniform(support, fn.batch_shape, (*left, size, *right)),
                obs=given[number],
                infer={"is_observed": msg["is_observed"]},
            )
            parts.append(part)
            start += size
        if value is None:
            value = _concatenate(parts, dim)
        log_density = None if get_mask() is False else fn.log_prob(value)
        return determined(value, fn.event_dim, log_density)

    def _sizes(self, msg: ReparamMessage) -> list[int]:
        fn = msg["fn"]
        if fn.event_dim < self.event_dim:
            raise self._misfit(
                msg,
                f"it has event shape {tuple(fn.event_shape)}, which has no dim {-self.event_dim}",
                "Make the dimension part of the event with .to_event().",
            )
        whole = fn.event_shape[-self.event_dim]
        if isinstance(self.sections, int):
            full, rest = divmod(whole, self.sections)
            return [self.sections] * full + [rest] * (rest > 0)
        if sum(self.sections) != whole:
            raise self._misfit(
                msg,
                f"its size along dim {-self.event_dim} is {whole}, and the sections {list(self.sections)} add up to "
                f"{sum(self.sections)}",
                "Give sections that add up to the size.",
            )
        return list(self.sections)


def _concatenate(parts: Sequence[Tensor], dim: int) -> Tensor:
    """The parts along ``dim``; along other dimensions they broadcast."""
    shape = list(np.broadcast_shapes(*(part.select(dim, 0).unsqueeze(dim).shape for part in parts)))
    sized = []
    for part in parts:
        shape[dim] = part.shape[dim]
        sized.append(part.expand(shape))
    return torch.cat(sized, dim)
