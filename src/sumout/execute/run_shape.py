"""How the tables of a run lie in memory."""

from __future__ import annotations

from typing import NamedTuple

from sumout.plan import Run

Order = tuple[int, ...]


class Shape(NamedTuple):
    """The layouts of a run's carried table: as the last group of a cycle takes it (``taken``) and makes it (``made``).

    Dimensions of size one stand where a scale, or a factor of the first group, has none.
    """

    taken: tuple[int, ...]
    made: tuple[int, ...]
    matrix: tuple[int, int, int]
    """``taken`` as a batch of matrices."""
    to_taken: Order
    """The order that turns ``made`` into ``taken``."""
    to_made: Order
    scaled_over: Order
    """The dimensions of ``taken`` that one scale is for: all that do not stay what they are through a whole cycle."""
    from_first: Order
    """The order that turns the operand of a cycle's first group into ``taken``."""
    weight: tuple[int, ...] | None
    """What the first group multiplies by, with the dimensions of its carried operand."""
    scale_of_matrix: tuple[int, ...]
    """The shape, in ``taken``, of what the matrices of a cycle are scaled by."""
    matrix_scaled_over: Order


def shape_of(run: Run) -> Shape:
    """The layouts of a run."""
    *_, last = run.cycle
    side = run.sides[-1]
    batch, left, summed, _ = map(len, last.blocks)
    taken, made = last.shapes[side], last.result_shape
    rank = len(taken)
    own = 1 + batch + (0 if side == 0 else summed)  # Where its own dimensions begin, in ``taken`` ...
    own_made = 1 + batch + (0 if side == 0 else left)  # ... and in ``made``.
    count = left if side == 0 else rank - 1 - batch - summed
    becomes = {place: place for place in range(1 + batch)}
    becomes.update({own + place: own_made + place for place in range(count)})
    from_first = tuple(range(rank))
    to_taken = _order(last.operands[side][0].order, rank)
    weight = None
    if len(run.cycle) == 2:
        first, of_first = run.cycle[0], run.sides[0]
        from_first = to_taken
        to_first = _order(first.operands[of_first][0].order, rank)
        to_taken = tuple([to_first[place] for place in to_taken])
        of_weight = first.shapes[1 - of_first]
        weight = (*of_weight, *[1] * (rank - len(of_weight)))
    back = {made_place: place for place, made_place in enumerate(to_taken)}
    stays = [place for place, then in becomes.items() if back[then] == place]
    in_batch = [place for place in range(1 + batch) if place in stays]
    other = len(last.shapes[1 - side])
    return Shape(
        taken,
        made,
        last.matrices[side],
        to_taken,
        tuple([back[place] for place in range(rank)]),
        tuple([place for place in range(rank) if place not in stays]),
        from_first,
        weight,
        tuple([taken[place] if place in in_batch else 1 for place in range(rank)]),
        tuple([place for place in range(other) if place not in in_batch]),
    )


def _order(order: Order | None, rank: int) -> Order:
    return tuple(range(rank)) if order is None else order


def inverse(order: Order) -> Order:
    """The order that undoes another.

    >>> inverse((2, 0, 1))
    (1, 2, 0)
    """
    return tuple(sorted(range(len(order)), key=order.__getitem__))
