"""What a component says of its variables, for each element of the plates that some sites live in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import reduce

import torch
from torch import Tensor

from sumout.infer.collapsing.mixed import Along
from sumout.lower.collapse.component import Moments
from sumout.lower.collapse.layout import extents, written_plates
from sumout.lower.collapse.sites import CollapsedSite


def batch_rank(sites: Sequence[CollapsedSite]) -> int:
    """The batch dimensions of several sites together."""
    return max([int(site.value.dim()) - len(site.fn.event_shape) for site in sites])


def own_moments(
    sites: Sequence[CollapsedSite], moments: Moments, written: Collection[str]
) -> tuple[Along, Along]:
    """Means and covariances of the sites' entries side by side, in each element of all their plates.

    Args:
        sites: delayed ones.
        moments: of all of them together; where plates are written out, of all of their elements together.
        written: these plates.

    Returns:
        Along the discrete variables, of shape ``(*batch, entries)`` and ``(*batch, entries, entries)``.
    """
    plates = {plate: each for site in sites for plate, each in extents(site).items()}
    inside, index = _positions(sites, written)
    mean = moments.mean[..., index]
    covariance = moments.covariance[..., index.unsqueeze(-1), index.unsqueeze(-2)]
    names = [*moments.names, *inside]
    discrete = tuple([each for each in names if each not in plates])
    ordered = sorted([each for each in names if each in plates], key=lambda each: plates[each][0])
    order = [names.index(each) for each in (*discrete, *ordered)]
    batch = [1] * batch_rank(sites)
    for each in ordered:
        dim, size = plates[each]
        batch[dim] = size
    dtype = reduce(torch.promote_types, [site.value.dtype for site in sites])

    def arranged(x: Tensor) -> Along:
        ends = range(len(names), x.dim())
        x = x.permute([*order, *ends])
        shape = [*x.shape[: len(discrete)], *batch, *x.shape[len(names) :]]
        return Along(discrete, x.reshape(shape).to(dtype))

    return arranged(mean), arranged(covariance)


def _positions(sites: Sequence[CollapsedSite], written: Collection[str]) -> tuple[list[str], Tensor]:
    """For each element of the plates that are written out the positions of its entries among all entries.

    Returns:
        The plates, and a tensor of shape ``(*sizes of the plates, entries)``.
    """
    sizes = {plate: size for site in sites for plate, size in written_plates(site, written)}
    inside = list(sizes)
    parts = []
    start = 0
    for site in sites:
        own = written_plates(site, written)
        index = torch.arange(site.event_size).expand([*sizes.values(), site.event_size])
        stride = site.event_size
        for plate, size in reversed(own):
            place = inside.index(plate)
            shape = [1] * (len(inside) + 1)
            shape[place] = size
            index = index + stride * torch.arange(size).reshape(shape)
            stride *= size
        parts.append(index + start)
        start += stride
    return inside, torch.cat(parts, -1)
