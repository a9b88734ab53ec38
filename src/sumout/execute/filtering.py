"""Chains of Gaussian factors integrated by halving: what is the same in all steps, or in all series, is done once.

Each element of a chain is a factor between the variables of a step and those of the next one. Two neighbours are
multiplied and what they share is integrated out, for all pairs at once: ``log2(T)`` rounds. The plan of such a chain
has the same rounds; here precisions are kept apart from the information vectors, which alone depend on the data. In a
model whose matrices do not change all elements of a round have one precision, so that it costs ``log2(T)`` small
factorizations, and products of vectors with matrices.

Source: Särkkä and García-Fernández, *Temporal parallelization of Bayesian smoothers* (2021), in information form.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Link(NamedTuple):
    """Factors ``exp(-1/2 x' P x - h' x)`` of consecutive steps.

    Attributes:
        precision: ``P``, shape ``(steps or 1, groups, n, n)``: of size one where all steps have the same.
        vector: ``h``, shape ``(steps, groups, series, n)``; the series of a group have the same precision.
    """

    precision: Tensor
    vector: Tensor

    @property
    def steps(self) -> int:
        return self.vector.shape[0]

    def split(self, first: int) -> tuple[Link, Link]:
        """The first steps, and the others."""
        shared = self.precision.shape[0] == 1
        sizes = [first, self.steps - first]
        before, after = torch.split_with_sizes(self.vector, sizes)
        if shared:
            return Link(self.precision, before), Link(self.precision, after)
        left, right = torch.split_with_sizes(self.precision, sizes)
        return Link(left, before), Link(right, after)

    def halves(self) -> tuple[Link, Link]:
        """The even and the odd steps."""
        even, odd = self.vector.reshape(-1, 2, *self.vector.shape[1:]).unbind(1)
        if self.precision.shape[0] == 1:
            return Link(self.precision, even), Link(self.precision, odd)
        left, right = self.precision.reshape(-1, 2, *self.precision.shape[1:]).unbind(1)
        return Link(left, even), Link(right, odd)


def chain(first: Link, elements: Link | None, size: int) -> Tensor:
    """The logarithm of the integral over all variables of a chain.

    Args:
        first: the factor of the first step's variables, of which there are ``size``.
        elements: the factors between each step's variables and the next one's; ``None`` for a chain of one step.
        size: the number of entries of a step.

    Returns:
        Shape ``(groups, series)``.

    Raises:
        torch.linalg.LinAlgError: if the integral diverges.
    """
    gains = []
    while elements is not None:
        if elements.steps % 2:
            here, rest = elements.split(1)
            first, gain = _combined(first, here, size)
            gains.append(gain)
            elements = rest if rest.steps else None
        else:
            even, odd = elements.halves()
            elements, gain = _combined(even, odd, size)
            gains.append(gain)
    root = torch.linalg.cholesky(first.precision)
    white = torch.linalg.solve_triangular(root, first.vector.mT, upper=False)
    gains.append(0.5 * white.square().sum((0, -2)) + _normalizer(root, 1, size))
    return torch.stack(gains).sum(0)


def _combined(left: Link, right: Link, size: int) -> tuple[Link, Tensor]:
    """Neighbours multiplied, and what they share integrated out: the last variables of one, the first of the other."""
    before = left.precision.shape[-1] - size
    after = right.precision.shape[-1] - size
    middle = left.precision[..., before:, before:] + right.precision[..., :size, :size]
    root = torch.linalg.cholesky(middle)
    cross = right.precision[..., :size, size:]
    if before:
        cross = torch.cat([left.precision[..., before:, :before], cross], -1)
    unit = torch.eye(size, dtype=cross.dtype, device=cross.device).expand(*cross.shape[:-1], size)
    solved = torch.linalg.solve_triangular(root, torch.cat([cross, unit], -1), upper=False)
    cross, inverse = solved.split([before + after, size], -1)
    white = times(left.vector[..., before:] + right.vector[..., :size], inverse.mT)
    corner = F.pad(right.precision[..., size:, size:], (before, 0, before, 0))
    if before:
        corner = corner + F.pad(left.precision[..., :before, :before], (0, after, 0, after))
    vector = torch.cat([left.vector[..., :before], right.vector[..., size:]], -1) - times(white, cross)
    gain = 0.5 * white.square().sum((0, -1)) + _normalizer(root, left.steps, size)
    return Link(corner - cross.mT @ cross, vector), gain


def _normalizer(root: Tensor, steps: int, size: int) -> Tensor:
    """What the Gaussian integrals add that depends on precisions only; shape ``(groups, 1)``."""
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum((0, -1)).unsqueeze(-1)
    return 0.5 * steps * size * math.log(2 * math.pi) - log_det * (steps / root.shape[0])


def times(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Vectors ``(..., rows, n)`` times matrices ``(..., n, k)``, which may have first dimensions of size one."""
    lead = [place for place in range(matrices.ndim - 2) if matrices.shape[place] > 1]
    if not lead:
        return vectors @ matrices[(0,) * (matrices.ndim - 2)]
    if lead[0] == 0:
        return vectors @ matrices
    shape = vectors.shape
    turned = vectors.movedim(0, -3).flatten(-3, -2) @ matrices[0]
    return turned.reshape(*turned.shape[:-2], shape[0], shape[-2], turned.shape[-1]).movedim(-3, 0)
