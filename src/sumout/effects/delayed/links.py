"""What a delayed value is made of: for each site, which of its elements, times which coefficients.

A value ``v`` that is affine in a site ``x`` is kept element by element,

    v[i] = const[i] + sum over t of  coef[t, i] * x[where[t, i]],

``x`` being flattened. Data movement (indexing, reshaping, stacking) then does to ``where`` and ``coef`` exactly what it
does to ``v``; sums over a dimension turn its elements into terms. Neither plates nor events are told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Link(NamedTuple):
    """A site's part in a value.

    Attributes:
        site: its name.
        where: positions in the flattened value of the site, shape ``(terms, *value.shape)``; ``-1`` for no part.
        coef: what they are multiplied by, of the same shape; zero where there is no part.
        simplex: for a site whose event is a point of a simplex, the number of its entries, which sum to one; else 0.
        positive: whether the site's entries are positive.
    """

    site: str
    where: Tensor
    coef: Tensor
    simplex: int = 0
    positive: bool = False

    @property
    def terms(self) -> int:
        return self.where.shape[0]


def whole(site: str, like: Tensor, simplex: int = 0, positive: bool = False) -> Link:
    """The link of a site's own value."""
    every = torch.arange(like.numel(), device=like.device)
    every.are_positions = True  # type: ignore[attr-defined]
    where = every.reshape(1, *like.shape)
    return Link(site, where, like.new_ones(()).expand(where.shape), simplex, positive)


def compact(x: Tensor, dims: Iterable[int] | None = None) -> Tensor:
    """The tensor with size one along dimensions in which it only repeats itself, by its strides.

    >>> compact(torch.ones(3).expand(1000, 3)).shape
    torch.Size([1, 3])
    """
    strides = x.stride()
    repeated = [
        each for each in (range(x.ndim) if dims is None else dims) if not strides[each] and x.shape[each] > 1
    ]
    if not repeated:
        return x
    base = x._base
    if base is not None and x.requires_grad and base.requires_grad:
        # A slice would have derivatives of the size of all repetitions.
        shape = [1 if place in repeated else size for place, size in enumerate(x.shape)]
        return base.as_strided(shape, strides, x.storage_offset())
    return x[tuple([slice(0, 1) if place in repeated else slice(None) for place in range(x.ndim)])]


def on_few(change: Callable[..., Tensor], lhs: Any, rhs: Any) -> Tensor:
    """An elementwise function of tensors or numbers, which is not called for what only repeats itself.

    >>> on_few(torch.add, torch.ones(3).expand(1000, 3), 1.0).stride()
    (0, 1)
    """
    few = [compact(each) if isinstance(each, Tensor) else each for each in (lhs, rhs)]
    if few[0] is lhs and few[1] is rhs:
        return change(lhs, rhs)
    return change(*few).expand(joint_shape(*[each.shape for each in (lhs, rhs) if isinstance(each, Tensor)]))


def by_strides(where: Tensor, sizes: Sequence[int]) -> list[Tensor] | None:
    """Positions in a tensor of some shape as indices, one along each of its dimensions, without a look at them.

    Views of the positions ``0, 1, 2, ...`` have strides that tell how positions change along each dimension.

    Args:
        where: positions.
        sizes: the shape.

    Returns:
        What broadcasts with ``where``, of size one where an index only repeats itself; ``None`` for positions that are
        no such view, and where a step along one dimension changes several indices.

    >>> by_strides(whole("x", torch.zeros(2, 3)).where[0].mT, (2, 3))
    [tensor([[0, 1]]), tensor([[0],
            [1],
            [2]])]
    """
    base = where if where._base is None else where._base
    if not getattr(base, "are_positions", False):
        return None
    weights = [math.prod(sizes[place + 1 :]) for place in range(len(sizes))]
    rest = int(where.storage_offset())
    found, largest = [], []
    for weight in weights:
        start, rest = divmod(rest, weight)
        found.append(where.new_full([1] * where.ndim, start))
        largest.append(start)
    for dim, (extent, stride) in enumerate(zip(where.shape, where.stride(), strict=True)):
        if extent == 1 or stride == 0:
            continue
        place = next(place for place, weight in enumerate(weights) if weight <= stride)
        step, more = divmod(stride, weights[place])
        largest[place] += step * (extent - 1)
        if more or largest[place] >= sizes[place]:
            return None
        along = torch.arange(0, step * extent, step, device=where.device)
        found[place] = found[place] + along.reshape([-1 if each == dim else 1 for each in range(where.ndim)])
    return found


def moved(link: Link, move: Callable[[Tensor], Tensor], fills: bool = False) -> Link:
    """The link after data movement, which may fill zeros in: these are no part of the site."""
    if fills:
        return link._replace(where=_each(link.where + 1, move) - 1, coef=_each(link.coef, move))
    return Link(link.site, _each(link.where, move), _each(link.coef, move), link.simplex, link.positive)


def _each(stacked: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    if len(stacked) == 1:
        return move(stacked[0]).unsqueeze(0)
    try:  # Views stay views, so that what only repeats itself is still seen to.
        return torch.vmap(move)(stacked)
    except RuntimeError:  # Indexing by a mask, for instance, cannot be mapped.
        return torch.stack([move(each) for each in stacked.unbind()])


def joint_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """``torch.broadcast_shapes``, which takes longer than a product of small tensors.

    Raises:
        RuntimeError: if the shapes do not broadcast.

    >>> joint_shape((3, 1), (2,), ())
    (3, 2)
    """
    rank = max(map(len, shapes))
    found = [1] * rank
    for shape in shapes:
        for place, size in enumerate(shape, rank - len(shape)):
            if size != 1 and size != found[place]:
                if found[place] != 1:
                    raise RuntimeError(
                        f"The shapes {', '.join(str(tuple(each)) for each in shapes)} do not broadcast."
                    )
                found[place] = size
    return tuple(found)


def scaled(link: Link, factor: Tensor) -> Link:
    """The link times a tensor, with which it broadcasts."""
    coef = _deepened(link.coef, factor.ndim) if factor.ndim >= link.coef.ndim else link.coef
    shape = joint_shape(coef.shape, factor.shape)
    own, factor = compact(coef), compact(factor)
    alone = own.numel() == 1 and not own.requires_grad and own.dtype == factor.dtype
    coef = (factor if alone and bool(own == 1) else own * factor).expand(shape)
    where = _deepened(link.where, coef.ndim - 1).expand(shape)
    return Link(link.site, where, coef, link.simplex, link.positive)


def negated(link: Link) -> Link:
    """The link times minus one."""
    few = compact(link.coef)
    coef = -few if few is link.coef else (-few).expand(link.coef.shape)
    return Link(link.site, link.where, coef, link.simplex, link.positive)


def _deepened(stacked: Tensor, rank: int) -> Tensor:
    """With dimensions of size one behind the terms, so that each term has ``rank`` dimensions."""
    missing = rank - (stacked.ndim - 1)
    return stacked.reshape(stacked.shape[0], *[1] * missing, *stacked.shape[1:]) if missing > 0 else stacked


def broadcast(link: Link, shape: Iterable[int]) -> Link:
    """The link of the value expanded to a shape."""
    shape = tuple(shape)
    if link.where.shape[1:] == shape:
        return link
    where, coef = [_deepened(each, len(shape)).expand(-1, *shape) for each in (link.where, link.coef)]
    return Link(link.site, where, coef, link.simplex, link.positive)


def summed(link: Link, dim: int) -> tuple[Link | None, Tensor | None]:
    """The link of the sum over a dimension (nonnegative): its elements become terms.

    Returns:
        The link, and a constant: the sum over all entries of a point of a simplex is known.
    """
    where, coef = link.where, link.coef
    size = where.shape[1 + dim]
    if link.simplex and size == link.simplex:
        first = where.narrow(1 + dim, 0, 1)
        shape = [1] * where.ndim
        shape[1 + dim] = size
        consecutive = torch.arange(size, device=where.device).reshape(shape)
        # Coefficients that only happen to be even have derivatives that are not.
        even = torch.tensor(not coef.requires_grad) & (coef == coef.narrow(1 + dim, 0, 1)).all()
        if bool(even & (first % size == 0).all() & (where == first + consecutive).all()):
            return None, coef.select(1 + dim, 0).sum(0)
    terms = where.shape[0] * size
    rest = [each for place, each in enumerate(where.shape) if place not in (0, 1 + dim)]
    where, coef = [each.movedim(1 + dim, 1).reshape(terms, *rest) for each in (where, coef)]
    return Link(link.site, where, coef, link.simplex, link.positive), None


def merged(link: Link) -> Link:
    """The link with one term, if all terms are of the same entries; else the link."""
    if link.terms == 1:
        return link
    first = link.where.max(0, keepdim=True).values
    if not bool(((link.where == first) | (link.where < 0)).all()):
        return link
    return link._replace(where=first, coef=link.coef.sum(0, keepdim=True))


def joined(links: Iterable[Link]) -> tuple[Link, ...]:
    """One link for each site, the terms of all its links together; all are of one shape."""
    of_site: dict[str, list[Link]] = {}
    for link in links:
        of_site.setdefault(link.site, []).append(link)
    return tuple(
        [
            each[0]
            if len(each) == 1
            else each[0]._replace(
                where=torch.cat([link.where for link in each]), coef=torch.cat([link.coef for link in each])
            )
            for each in of_site.values()
        ]
    )
