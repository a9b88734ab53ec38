"""Predictions along the discrete sites that choose among their distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sumout.execute import Marginal
from sumout.infer.collapsing.mixed import Along
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.sites import CollapsedSite


def choices_of(site: CollapsedSite, batch: Sequence[int]) -> dict[str, int]:
    """The discrete sites along which a batch shape runs, with their numbers of states."""
    return {name: batch[place] for place, name in site.enumerated(batch)}


def rank_of_plates(site: CollapsedSite, batch: Sequence[int]) -> int:
    """How many dims of a batch shape its plates take; values of enumerated sites run left of these."""
    return min(-min(site.frames, default=0), len(batch))


def chosen_first(site: CollapsedSite, batch: Sequence[int], x: Along) -> Along:
    """The tensor along its discrete sites, with those that its batch runs along in front, too."""
    names, data = list(x.names), x.data
    lead = len(names)
    rank = rank_of_plates(site, batch)
    for place, name in site.enumerated(batch):
        at = lead + place
        if name in names:
            first = names.index(name)
            data = data.diagonal(dim1=first, dim2=at).movedim(-1, first).unsqueeze(at)
        else:
            data = data.unsqueeze(0).transpose(0, at + 1)
            names.insert(0, name)
            lead += 1
    for _ in range(len(batch) - rank):
        data = data.squeeze(lead)
    return Along(tuple(names), data)


def weights_of_choices(
    site: CollapsedSite,
    marginal: Marginal,
    integrals: Sequence[Integral],
    picked: Mapping[str, Tensor],
    lead: Sequence[int],
    batch: Sequence[int],
) -> Tensor | None:
    """Probabilities of the joint states, shape ``(states, *batch)``.

    Args:
        site: a prediction.
        marginal: of the discrete sites that choose.
        integrals: of what it depends on.
        picked: for plates of the integrals the elements that are used, shape ``(*lead, numbers)``.
        lead: its batch shape, with dimensions of discrete sites.
        batch: that without these.

    Returns:
        ``None`` where an element has several: it uses elements of a plate for each of which something else was chosen.
    """
    told_apart = {name for each in integrals if each.discrete for name in each.names}
    dims = {frame.name: dim for dim, frame in site.frames.items()}
    index: list[Tensor] = []
    for plate, size in zip(marginal.plates, marginal.probs.shape, strict=False):
        own = None
        if plate in dims:
            own = torch.arange(size).reshape([-1, *[1] * (-1 - dims[plate])]).expand(*batch)
        if plate in picked and plate in told_apart:
            used = picked[plate].expand(*lead, -1).reshape(-1, *batch, picked[plate].shape[-1])
            used = used.movedim(-1, 0).flatten(0, 1)
            if not bool((used == used[0]).all()) or (own is not None and not torch.equal(used[0], own)):
                return None
            own = used[0]
        if own is None:
            return None
        index.append(own)
    count = len(index)
    probs = marginal.probs.flatten(count) if marginal.probs.dim() > count else marginal.probs.unsqueeze(-1)
    return probs[tuple(index)].movedim(-1, 0).reshape([-1, *(batch if index else [1] * len(batch))])
