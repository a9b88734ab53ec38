"""The log-probabilities of sites as tables over the dimensions along which they really vary.

A chain of a thousand steps scores the same family a thousand times on small tensors. Sites that are alike
are therefore stacked and scored as one, which saves the launches and, in training, the autograd nodes. How is
in ``scorers``; any other site is scored by its own distribution.

All are scored by ``plain_fn``, unexpanded by plates: a table along which nothing varies is not made. And a
site is multiplied out on the spot over those of its plates in which none of its variables lives, for that is
what any plan would do first: the table over all elements, often the largest of all, need not be kept.

A mask takes a site out of the density. For an enumerated site that means that nothing is learnt from it, as
when it is drawn from its distribution and ignored: its table stays and sums to one. (Without its table, the
sum over its states would count them.) The padding of a masked chain thus leaves the evidence alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from sumout.effects import Message
from sumout.effects.scoring import apply_mask, apply_scale, unscaled_log_prob
from sumout.lower.scorers import Batch, Case, Layout, case_of, layout_of, log_prob_alone, own_mask


class Table(NamedTuple):
    """A masked but unscaled log-probability (scaled where elements have scales of their own).

    ``dims`` tells for each dimension which negative batch dimension of the site it is. Dimensions that are
    missing are ones along which the log-probability is constant. ``product_over`` names the plates over which
    it is multiplied out.
    """

    log_prob: Tensor
    dims: tuple[int, ...]
    product_over: frozenset[str] = frozenset()


def has_tensor_scale(site: Message) -> bool:
    """Whether a site's elements are scaled one by one; its table is scaled then, not its factor."""
    return isinstance(site.scale, Tensor) and site.scale.numel() > 1


def plate_weight(site: Message) -> float:
    """The part of a site's scale that comes from the subsampled plates around it."""
    weight = 1.0
    for frame in site.cond_indep_stack:
        if frame.full_size is not None and frame.dim is not None:
            weight *= frame.scale
    return weight


class _Product(NamedTuple):
    """Over which dimensions of a layout a site is multiplied out, and the power it is raised to besides.

    The power counts elements along which nothing varies, and the weight of elements of a subsample.
    """

    plates: frozenset[str] = frozenset()
    places: tuple[int, ...] = ()
    power: float = 1.0


Homes = Mapping[str, frozenset[str]]
"""The plates of each enumerated site."""


def log_probs(
    sites: Sequence[Message], homes: Homes | None = None, summed: Collection[str] = ()
) -> list[Table]:
    """One table for each site, in order.

    Args:
        sites: sample sites.
        homes: the plates of the enumerated sites; without them, sites are not multiplied out.
        summed: the sites that are summed out; scales of single elements are left to what is summed.
    """
    layouts: dict[Case, tuple[int, Layout]] = {}
    kinds: dict[Case, tuple[int, Case]] = {}
    alike: dict[tuple[int, tuple[int, ...]], list[tuple[Layout, _Product, int]]] = {}
    tables: list[Table | None] = [None] * len(sites)
    for number, site in enumerate(sites):
        case = case_of(site)
        if case is None or has_tensor_scale(site):
            tables[number] = _table_alone(unscaled_log_prob(site, site.plain_fn), site, homes, summed)
            continue
        known = layouts.get(case)
        if known is None:
            layout = layout_of(case.shapes, case.events)
            # Cases are of one kind if they differ only in where dimensions of size one stand.
            kind, _ = kinds.setdefault(case._replace(shapes=layout.shapes), (len(kinds), case))
            known = layouts[case] = kind, layout
        kind, layout = known
        product = _product(site, layout.dims, homes)
        alike.setdefault((kind, product.places), []).append((layout, product, number))
    cases = [case for _, case in kinds.values()]
    for (kind, places), members in alike.items():
        case, shapes = cases[kind], members[0][0].shapes
        if len(members) == 1:
            number = members[0][2]
            log_prob = log_prob_alone(sites[number], case, shapes)
            if log_prob is not None:
                tables[number] = _table_alone(log_prob, sites[number], homes, summed)
                continue
        # Those of one layout come one after another, to be reshaped together.
        members.sort(key=lambda member: member[0].dims)
        batch = Batch([sites[number] for _, _, number in members], case.shared, shapes, case.events, places)
        scored = case.score(batch)
        # The derivative of unbind is a copy.
        rows = scored.unbind(0) if len(members) > 1 else (scored.squeeze(0),)
        for row, (layout, product, number) in zip(rows, members, strict=True):
            tables[number] = _table(row, sites[number], layout, product)
    return [table for table in tables if table is not None]


def _table_alone(log_prob: Tensor, site: Message, homes: Homes | None, summed: Collection[str]) -> Table:
    log_prob = apply_mask(log_prob, own_mask(site))
    weighted = has_tensor_scale(site)
    if weighted and not _varies_along(site, log_prob, summed):
        # What plates weigh is counted with them.
        log_prob, weighted = log_prob * (site.scale / plate_weight(site)), False
    layout = layout_of((log_prob.shape,), 0)
    if layout.shapes[0] != log_prob.shape:
        log_prob = log_prob.reshape(layout.shapes[0])
    product = _NO_PRODUCT if weighted else _product(site, layout.dims, homes)
    if product.places:
        log_prob = log_prob.sum(product.places)
    return _table(log_prob, site, layout, product)


def _varies_along(site: Message, log_prob: Tensor, names: Collection[str]) -> bool:
    """Whether a log-probability has a dimension of one of the named sites."""
    shape, owners = log_prob.shape, site.enum_dims or {}
    return any(owner in names and len(shape) >= -dim and shape[dim] > 1 for dim, owner in owners.items()) or (
        site.enum_dim is not None and site.name in names
    )


def _table(log_prob: Tensor, site: Message, layout: Layout, product: _Product) -> Table:
    """A log-probability that is summed over the product's places already."""
    dims = tuple([dim for place, dim in enumerate(layout.dims) if place not in product.places])
    if log_prob.ndim > len(dims):  # An enumerated site's states come last.
        dims = (*dims, site.enum_dim or 0)
    return Table(apply_scale(log_prob, product.power), dims, product.plates)


_NO_PRODUCT = _Product()


def _product(site: Message, dims: tuple[int, ...], homes: Homes | None) -> _Product:
    """Which plates of a site none of its variables lives in, if it varies along ``dims``."""
    frames = site.cond_indep_stack
    if homes is None or not frames or site.enum_dim is not None:
        return _NO_PRODUCT
    owners = site.enum_dims or {}
    plates = {frame.dim for frame in frames}
    home: frozenset[str] = frozenset()
    for dim in dims:
        if dim not in plates and dim in owners:
            home |= homes[owners[dim]]
    places = []
    names = []
    power = 1.0
    for frame in frames:
        if frame.dim is None or frame.size < 0 or frame.name in home:
            continue
        names.append(frame.name)
        power *= frame.scale
        if frame.dim in dims:
            places.append(dims.index(frame.dim))
        else:
            power *= frame.size
    return _Product(frozenset(names), tuple(sorted(places)), power) if names else _NO_PRODUCT
