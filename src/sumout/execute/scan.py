"""A run of a plan as one loop over plain probabilities, each message scaled to a maximum of one.

What is multiplied with the messages is exponentiated for all cycles at once; so are the beliefs made, after the loop
back.
A cycle is three or four operations on the way forth, two on the way back (the scaled forward and backward recursions of
Rabiner, *A tutorial on hidden Markov models*, 1989, section V.A, for any tables).

Underflow is met as in ``kernels``: a term is lost only below tiny, so results that are far above it, with scales that
are, have all their digits. If one of them is not, those are told apart that are zero because they are impossible; if
that is not it, the run is made group by group instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.execute.kernels import finite_max
from sumout.execute.run_shape import Shape, inverse
from sumout.plan import Run


class Scan(NamedTuple):
    """A run that was made, and what its way back needs."""

    run: Run
    shape: Shape
    result: Tensor
    """Logarithms, in the shape of the last group's result."""
    wrong: Tensor
    """A boolean scalar: whether it is *not* right."""
    carried: Tensor
    """Of each cycle what went into it, before it was scaled, and of the last one what came of it: in ``made``."""
    taken: Tensor
    """What went into each cycle's matrices, scaled."""
    weights: Tensor | None
    """What each cycle multiplied by before, and divided its scale out: in ``taken``."""
    scales: Tensor
    matrices: Tensor
    same: tuple[bool, ...]
    """For each group of a cycle, whether the other operands are the same in all cycles."""
    impossible: Tensor | None
    """Where ``carried`` is zero; ``None`` if nowhere."""


def scan(run: Run, shape: Shape, head: Tensor, others: Sequence[Tensor], zeros: bool = False) -> Scan:
    """Makes a run.

    Args:
        run: what is to be made.
        shape: its layouts.
        head: the carried operand of the first group: logarithms.
        others: for each group of a cycle the other operands, of all cycles along a new first dimension, which has
            size one where they are the same in all.
        zeros: whether there may be zeros; else one makes the result wrong.
    """
    cycles, side = run.cycles, run.sides[-1]
    head = head if run.cut else head.permute(shape.from_first)
    total = finite_max(head, shape.scaled_over)
    weights = None
    if shape.weight is not None:
        weight = _aligned(others[0], shape)
        shift = finite_max(weight, tuple([1 + place for place in shape.scaled_over]))
        weights = (weight - shift).exp_().contiguous()
        total = total + _all(shift, cycles - run.cut)
        if run.cut:
            rest = weights.expand(cycles - 1, *weights.shape[1:])
            weights = torch.cat([torch.ones_like(weights[:1]), rest])
    matrices = others[-1]
    shift = finite_max(matrices, tuple([1 + place for place in shape.matrix_scaled_over]))
    total = total + _all(shift, cycles).reshape(shape.scale_of_matrix)
    of_last = run.cycle[-1].matrices
    matrices = (matrices - shift).exp_().reshape(len(matrices), *of_last[1 - side])

    carried = head.new_empty(cycles + 1, *shape.made)
    taken = head.new_empty(cycles, *shape.taken)
    carried[0] = (head - finite_max(head, shape.scaled_over)).exp_().permute(shape.to_made)
    scales = head.new_empty(
        cycles, *[1 if each in shape.scaled_over else size for each, size in enumerate(shape.taken)]
    )
    before, results = _as_both(carried, shape, of_last[2])
    here, of_scales, over = taken.unbind(0), scales.unbind(0), shape.scaled_over
    here_matrix = taken.view(cycles, *shape.matrix).unbind(0)
    of_weights = None if weights is None else _each(weights, cycles)
    of_matrices = _each(matrices, cycles)
    for cycle in range(cycles):
        if of_weights is None:
            torch.amax(before[cycle], over, True, out=of_scales[cycle])
            torch.div(before[cycle], of_scales[cycle], out=here[cycle])
        else:
            torch.mul(before[cycle], of_weights[cycle], out=here[cycle])
            torch.amax(here[cycle], over, True, out=of_scales[cycle])
            here[cycle].div_(of_scales[cycle])
        if side == 0:
            torch.bmm(here_matrix[cycle], of_matrices[cycle], out=results[cycle + 1])
        else:
            torch.bmm(of_matrices[cycle], here_matrix[cycle], out=results[cycle + 1])
    info = torch.finfo(head.dtype)
    # An entry of a message may be off by tiny before it is scaled, and by as much more after it as the scale is small.
    # That must not count in what it is summed up to, so neither of the two may be smaller than this.
    sure = math.sqrt(info.tiny / info.eps)
    impossible = None
    if zeros:
        impossible = carried == 0
        wrong = (
            ~(scales.amin() >= sure)
            | ((carried[1:] < sure) & _possible(run, shape, head, others, impossible)).any()
        )
    else:
        wrong = ~(torch.minimum(carried[1:].amin(), scales.amin()) >= sure)
    total = total + scales.log().sum(0)
    result = carried[-1].log() + total.permute(shape.to_made)
    if weights is not None:
        fits = all(have >= size for have, size in zip(weights.shape, scales.shape, strict=True))
        weights = weights.div_(scales) if fits else weights / scales
    same = tuple([len(each) == 1 for each in others])
    return Scan(run, shape, result, wrong, carried, taken, weights, scales, matrices, same, impossible)


def _aligned(weights: Tensor, shape: Shape) -> Tensor:
    """What the first groups multiply by, in ``taken``."""
    assert shape.weight is not None
    weights = weights.reshape(len(weights), *shape.weight)
    return weights.permute(0, *[1 + each for each in shape.from_first])


def _possible(run: Run, shape: Shape, head: Tensor, others: Sequence[Tensor], impossible: Tensor) -> Tensor:
    """Which entries of the cycles' results have a summand that is not zero, though it may be too small for a number.

    Args:
        run, shape, others: as for ``scan``.
        head: the same, in ``taken``.
        impossible: entries of the carried tables that are zero. If all is right, that is because they have none.
    """
    before = ~impossible[:-1].permute(0, *[1 + each for each in shape.to_taken])
    before[0] = head > -torch.inf
    if shape.weight is not None:
        here = _aligned(others[0], shape) > -torch.inf
        before = torch.cat([before[: run.cut], before[run.cut :] & here])
    side, last = run.sides[-1], run.cycle[-1]
    lhs = before.reshape(run.cycles, *shape.matrix).to(head.dtype)
    rhs = (others[-1] > -torch.inf).to(head.dtype)
    rhs = rhs.reshape(len(rhs), *last.matrices[1 - side])
    summands: Tensor = lhs @ rhs if side == 0 else rhs @ lhs
    return (summands > 0).reshape(run.cycles, *shape.made)


def scan_adjoint(
    made: Scan, incoming: Tensor, wanted: Sequence[bool], summed: bool
) -> tuple[Tensor, list[Tensor | None]]:
    """From beliefs of a run's result to those of its operands.

    Args:
        made: the run.
        incoming: beliefs, or derivatives by the result's logarithms.
        wanted: for each group of a cycle whether the beliefs of the other operands are wanted.
        summed: whether those of operands that are the same in all cycles are wanted as one sum.

    Returns:
        Beliefs of the carried operand of the first group; those of the others, in the shapes in which they came, if
        ``summed``, else with all cycles along the first dimension.
    """
    run, shape, carried, weights, scales = made.run, made.shape, made.carried, made.weights, made.scales
    cycles, side, last = run.cycles, run.sides[-1], run.cycle[-1]
    # By how much each entry of a message counts for the answer: its belief divided by itself.
    worth = torch.empty_like(carried)
    torch.div(incoming, carried[-1], out=worth[-1])
    if made.impossible is not None:
        worth[-1].masked_fill_(made.impossible[-1], 0.0)
    back = carried.new_empty(shape.taken)
    back_matrix = back.view(shape.matrix)
    before, results = _as_both(worth, shape, last.matrices[2])
    of_scales, of_matrices = scales.unbind(0), _each(made.matrices.mT, cycles)
    of_weights = None if weights is None else _each(weights, cycles)
    for cycle in reversed(range(cycles)):
        if side == 0:
            torch.bmm(results[cycle + 1], of_matrices[cycle], out=back_matrix)
        else:
            torch.bmm(of_matrices[cycle], results[cycle + 1], out=back_matrix)
        if of_weights is None:
            torch.div(back, of_scales[cycle], out=before[cycle])
        else:
            torch.mul(back, of_weights[cycle], out=before[cycle])
        if made.impossible is not None:
            worth[cycle].masked_fill_(made.impossible[cycle], 0.0)
    found: list[Tensor | None] = []
    if weights is not None:
        found.append(_of_weights(made, worth, summed) if wanted[0] else None)
    found.append(_of_matrices(made, worth, summed) if wanted[-1] else None)
    head = worth[0].mul_(carried[0]).permute(shape.to_taken)
    return head if run.cut else head.permute(inverse(shape.from_first)), found


def _of_weights(made: Scan, worth: Tensor, summed: bool) -> Tensor:
    """They are the beliefs of the tables that they are multiplied with, summed over dimensions that they lack."""
    run, shape = made.run, made.shape
    assert shape.weight is not None
    belief = worth[run.cut : -1] * made.carried[run.cut : -1]
    order = [shape.to_taken[place] for place in inverse(shape.from_first)]
    belief = belief.permute(0, *[1 + each for each in order])  # As the first group takes it.
    gone = [
        1 + place
        for place, (size, full) in enumerate(zip(shape.weight, belief.shape[1:], strict=True))
        if size != full
    ]
    if summed and made.same[0]:
        gone.append(0)
    belief = belief.sum(gone, keepdim=True) if gone else belief
    first = run.cycle[0]
    return belief.reshape(len(belief), *first.shapes[1 - run.sides[0]])


def _of_matrices(made: Scan, worth: Tensor, summed: bool) -> Tensor:
    run, shape, last, side = made.run, made.shape, made.run.cycle[-1], made.run.sides[-1]
    taken = made.taken.reshape(run.cycles, *shape.matrix)
    after = worth[1:].reshape(run.cycles, *last.matrices[2])
    matrices = made.matrices
    if summed and made.same[-1]:
        # All cycles lie side by side along the dimension that is summed.
        if side == 0:
            belief = _side_by_side(taken.mT) @ _side_by_side(after.mT).mT
        else:
            belief = _side_by_side(after) @ _side_by_side(taken).mT
        belief = belief.unsqueeze(0)
    else:
        belief = taken.mT @ after if side == 0 else after @ taken.mT
    belief = belief * matrices
    return belief.reshape(len(belief), *last.shapes[1 - side])


def _side_by_side(x: Tensor) -> Tensor:
    """``(cycles, n, a, b)`` as ``(n, a, cycles * b)``."""
    return x.permute(1, 2, 0, 3).flatten(2)


def _all(shift: Tensor, cycles: int) -> Tensor:
    """The sum over all cycles."""
    return shift.sum(0) if len(shift) > 1 else shift[0] * cycles


def _as_both(
    carried: Tensor, shape: Shape, matrix: tuple[int, ...]
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """What goes into each cycle, in ``taken``, and that and what comes of the last one as batches of matrices."""
    results = carried.view(len(carried), *matrix).unbind(0)
    if carried.shape[1:] == matrix and shape.to_taken == tuple(range(len(matrix))):
        return results[:-1], results
    return carried.permute(0, *[1 + each for each in shape.to_taken]).unbind(0)[:-1], results


def _each(tables: Tensor, cycles: int) -> Sequence[Tensor]:
    """One table for each cycle."""
    each = tables.unbind(0)
    return each if len(each) == cycles else each * cycles
