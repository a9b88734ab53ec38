"""Chains of Gaussian factors integrated in blocks of steps: what is the same in all steps, or series, is done once.

Each element of a chain is a factor between the variables of a step and those of the next one. In a block of ``m``
elements the variables between its ends are integrated out together, by one factorization of a matrix of ``m - 1``
steps; all blocks at once, which leaves a chain of a fraction ``1 / m`` of the length. Blocks of two are the parallel
scan; larger ones have fewer rounds and more arithmetic. Where there is so much of it that rounds do not matter, blocks
are taken one after the other from the start of the chain: the Kalman filter, which does least. What is cheapest is
known before (``block_sizes``).

Precisions are kept apart from the information vectors, which alone depend on the data. In a model whose matrices do not
change all blocks of a round have one precision, so that a round costs one small factorization, and products of
vectors with matrices. Information vectors may be affine in variables that are no part of the chain, such as an unknown
drift: then there is one more vector for each of these, and a quadratic form in them is left.

Source: Särkkä and García-Fernández, *Temporal parallelization of Bayesian smoothers* (2021), in information form.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sumout.execute.block_sizes import schedule


class Link(NamedTuple):
    """Factors ``exp(-1/2 x' P x - h' x)`` of consecutive steps; ``x`` is of a step and of those after it.

    Those of a chain have ``h`` of the last step only: what belongs to steps before is part of the factor before.

    Attributes:
        precision: ``P``, shape ``(groups, steps or 1, k, k)``: of size one where all steps have the same.
        vector: ``h``, shape ``(groups, series, columns, steps, k)``; the series of a group have the same precision, and
            ``h`` is the sum of its columns times 1 and the variables that are no part of the chain.
    """

    precision: Tensor
    vector: Tensor

    @property
    def steps(self) -> int:
        return self.vector.shape[-2]

    @property
    def is_even(self) -> bool:
        """Whether all steps have one precision."""
        return self.precision.shape[1] == 1

    def split(self, sizes: int | list[int]) -> list[Link]:
        """The first so many steps, the next ones, and so on."""
        vectors = torch.split(self.vector, sizes, -2)
        if self.is_even:
            return [Link(self.precision, each) for each in vectors]
        return list(map(Link, torch.split(self.precision, sizes, 1), vectors))

    def blocks(self, size: int) -> tuple[Tensor, Tensor]:
        """The precisions, ``(groups, blocks or 1, size, k, k)``, and vectors, ``(..., blocks, size, k)``, by blocks."""
        groups, _, width, _ = self.precision.shape
        precision = self.precision.reshape(groups, -1, 1 if self.is_even else size, width, width)
        vector = self.vector.reshape(*self.vector.shape[:-2], -1, size, self.vector.shape[-1])
        return precision.expand(-1, -1, size, -1, -1), vector

    def plus(self, vector: Tensor) -> Link:
        """With more of ``h``."""
        return Link(self.precision, self.vector + vector)


class Gain(NamedTuple):
    """What integrals give: ``log_normalizer + 1/2 c' squares c``, ``c`` being 1 and what is no part of the chain.

    Attributes:
        squares: shape ``(groups, series, columns, columns)``.
        log_normalizer: shape ``(groups,)``.
    """

    squares: Tensor
    log_normalizer: Tensor


def chain(first: Link, elements: Link | None, size: int, history: int = 1) -> Gain:
    """All variables of a chain integrated out.

    Args:
        first: the factor of the variables of the first ``history`` steps: one "step".
        elements: the factors of each ``history + 1`` consecutive steps; ``None`` for no more steps. For a history of
            one, ``h`` may be that of the last step only.
        size: the number of entries of a step.
        history: of how many steps before it each depends.

    Raises:
        torch.linalg.LinAlgError: if the integral diverges.
    """
    gains: list[Gain] = []
    if elements is not None and history > 1:
        first, elements = _in_pairs(first, elements, size, history, gains)
        size *= history
    if elements is not None:
        if elements.vector.shape[-1] > size:
            before, vector = folded(*_split(elements.vector, [size, size], -1))
            first, elements = first.plus(before), Link(elements.precision, vector)
        groups, series, columns, steps, _ = elements.vector.shape
        block, in_order = schedule(steps, size, groups, series * columns, elements.is_even)
        rest: list[Link] = []
        while elements.steps > block and not in_order:
            left = elements.steps % block
            if left:
                elements, more = elements.split([elements.steps - left, left])
                rest.append(more)
            elements, before = _shortened(elements, block, size, gains)
            first = first.plus(before)
        elements = _joined([elements, *reversed(rest)])
        *before_last, last = elements.split(block if in_order else elements.steps)
        for here in before_last:
            first = _absorbed(first, here, size, gains)
        first = _joint(first, last, size)
    _parted(first, first.vector.shape[-1], gains)
    return Gain(*[torch.stack(each).sum(0) for each in zip(*gains, strict=True)])


def folded(here: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Information vectors of the first and the last variables of elements, as those of the last ones.

    Returns:
        What belongs to the variables before all elements, and the vectors of the last variables; of shapes
        ``(..., 1, k)`` and ``(..., steps, k)``.
    """
    before, rest = _split(here, [1, here.shape[-2] - 1], -2)
    return before, after + F.pad(rest, (0, 0, 0, 1))


def _in_pairs(
    first: Link, elements: Link, size: int, history: int, gains: list[Gain]
) -> tuple[Link, Link | None]:
    """The same chain with steps put together by ``history``, so that each depends on the one before only.

    Steps at its start that are too many are integrated out.
    """
    extra = elements.steps % history
    if extra:
        *more, elements = elements.split([1] * extra + [elements.steps - extra])
        width = (history + extra) * size
        first = _widened([first, *more], [0, *[place * size for place in range(extra)]], width)
        first = _parted(first, extra * size, gains)
    if not elements.steps:
        return first, None
    precision, vector = elements.blocks(history)
    parts = [Link(precision[:, :, place], vector[..., place, :]) for place in range(history)]
    return first, _widened(parts, [place * size for place in range(history)], 2 * history * size)


def _widened(links: list[Link], places: list[int], width: int) -> Link:
    """The product of factors of ever other variables, the first of which stand at some places of all."""
    precision, vector = None, None
    for each, place in zip(links, places, strict=True):
        pad = (place, width - place - each.vector.shape[-1])
        form, row = F.pad(each.precision, pad * 2), F.pad(each.vector, pad)
        precision = form if precision is None else precision + form
        vector = row if vector is None else vector + row
    assert precision is not None
    assert vector is not None
    return Link(precision, vector)


def _shortened(elements: Link, block: int, size: int, gains: list[Gain]) -> tuple[Link, Tensor]:
    """One element for each block of them, between the variables before it and its last ones.

    Returns:
        Also what is added to the information vector of the variables before all of them.
    """
    precision, vector = elements.blocks(block)
    here, across, after = _blocks(precision, size)
    # Split, not sliced: the derivative of a slice has the size of the whole.
    start, here = _split(here, [1, block - 1], -3)
    after, stop = _split(after, [block - 1, 1], -3)
    left, across, right = _split(across, [1, block - 2, 1], -3)
    joint = _tridiagonal(after + here, across)
    hidden = (block - 2) * size
    cross = F.pad(left.squeeze(-3).mT, (0, size, 0, hidden)) + F.pad(right.squeeze(-3), (size, 0, hidden, 0))
    corner = F.pad(start.squeeze(-3), (0, size, 0, size)) + F.pad(stop.squeeze(-3), (size, 0, size, 0))
    inner, end = _split(vector, [block - 1, 1], -2)
    precision, change = _eliminated(joint, cross, corner, inner.flatten(-2), gains)
    before, vector = folded(*_split(change, [size, size], -1))
    return Link(precision, end.squeeze(-2) + vector), before


def _absorbed(first: Link, elements: Link, size: int, gains: list[Gain]) -> Link:
    """The factor of the last of some steps, with all before it integrated out."""
    precision, vector = elements.blocks(elements.steps)
    here, across, after = _blocks(precision, size)
    more = elements.steps - 1
    across, right = _split(across, [more, 1], -3)
    after, stop = _split(after, [more, 1], -3)
    joint = _tridiagonal(here + torch.cat([first.precision.unsqueeze(2), after], -3), across)
    cross = F.pad(right.squeeze(-3), (0, 0, more * size, 0))
    inner, end = _split(vector, [more, 1], -2)
    inner = torch.cat([first.vector.unsqueeze(-2), inner], -2)
    precision, change = _eliminated(joint, cross, stop.squeeze(-3), inner.flatten(-2), gains)
    return Link(precision, end.squeeze(-2) + change)


def _joint(first: Link, elements: Link, size: int) -> Link:
    """The factor of all variables of some steps and of the one before."""
    precision, vector = elements.blocks(elements.steps)
    here, across, after = _blocks(precision, size)
    diagonal = torch.cat([first.precision.unsqueeze(2), after], -3) + F.pad(here, (0, 0, 0, 0, 0, 1))
    vector = torch.cat([first.vector.unsqueeze(-2), vector], -2)
    return Link(_tridiagonal(diagonal, across), vector.flatten(-2))


def _parted(first: Link, gone: int, gains: list[Gain]) -> Link:
    """The factor with its first so many variables integrated out."""
    precision, vector = first
    across = precision[..., :gone, gone:]
    corner = precision[..., gone:, gone:]
    left, change = _eliminated(precision[..., :gone, :gone], across, corner, vector[..., :gone], gains)
    return Link(left, vector[..., gone:] + change)


def _blocks(precision: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of an element's precision what concerns its first variables, both, and its last ones."""
    top, bottom = _split(precision, [size, size], -2)
    here, across = _split(top, [size, size], -1)
    return here, across, _split(bottom, [size, size], -1)[1]


_split = torch.split_with_sizes


def _tridiagonal(diagonal: Tensor, above: Tensor) -> Tensor:
    """A symmetric matrix of blocks, shape ``(..., b * n, b * n)``, from those on and above its diagonal."""
    joint = torch.diag_embed(diagonal.movedim(-3, -1))
    if above.shape[-3]:
        upper = torch.diag_embed(above.movedim(-3, -1), offset=1)
        joint = joint + upper + upper.transpose(-4, -3).mT
    joint = joint.permute(*range(joint.ndim - 4), -2, -4, -1, -3)
    return joint.flatten(-4, -3).flatten(-2)


def _eliminated(
    joint: Tensor, cross: Tensor, corner: Tensor, inner: Tensor, gains: list[Gain]
) -> tuple[Tensor, Tensor]:
    """What is left of factors when some variables are integrated out.

    Args:
        joint: the precision of these, shape ``(groups, rows or 1, k, k)``.
        cross: theirs with the others, ``(groups, rows or 1, k, e)``.
        corner: that of the others, ``(groups, rows or 1, e, e)``.
        inner: information vectors of these, ``(groups, series, columns, rows, k)``.
        gains: what the integrals give is added to it.

    Returns:
        The precision of the others, and what is added to their information vectors.
    """
    groups, series, columns, rows, entries = inner.shape
    left, even = corner.shape[-1], joint.shape[1] == 1
    root = torch.linalg.cholesky(joint)
    # Those of one precision side by side.
    vectors = inner.reshape(groups, 1, -1, entries) if even else inner.flatten(1, 2).transpose(1, 2)
    if vectors.shape[-2] > entries:
        unit = torch.eye(entries, dtype=root.dtype, device=root.device).expand_as(root)
        solved = torch.linalg.solve_triangular(root, torch.cat([cross, unit], -1), upper=False)
        cross, inverse = _split(solved, [left, entries], -1)
        white = _times(vectors, inverse.mT)
    else:
        solved = torch.linalg.solve_triangular(root, torch.cat([cross, vectors.mT], -1), upper=False)
        cross, white = _split(solved, [left, vectors.shape[-2]], -1)
        white = white.mT
    lined = (white if even else white.transpose(1, 2)).reshape(groups, series, columns, -1)
    squares = lined @ lined.mT
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum((1, 2)) * (rows if even else 1)
    gains.append(Gain(squares, 0.5 * rows * entries * math.log(2 * math.pi) - log_det))
    shape = [groups, series, columns, rows, left]
    if not left:
        return corner, inner.new_zeros(shape)
    change = _times(white, -cross)
    change = change.reshape(shape) if even else change.transpose(1, 2).reshape(shape)
    return corner - cross.mT @ cross, change


def _times(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Products of stacks ``(groups, rows, v, n)`` and ``(groups, rows, n, k)``; of one of each as matrices."""
    if matrices.shape[0] == matrices.shape[1] == 1:
        return (vectors[0, 0] @ matrices[0, 0])[None, None]
    return vectors @ matrices


def _joined(links: list[Link]) -> Link:
    """Steps one after the other."""
    if len(links) == 1:
        return links[0]
    precisions = [each.precision.expand(-1, each.steps, -1, -1) for each in links]
    return Link(torch.cat(precisions, 1), torch.cat([each.vector for each in links], -2))


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
