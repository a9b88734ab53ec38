"""Subsampled plates that a program loops over: each turn stands for several, whose integrals are powers of its own."""

from __future__ import annotations

from collections.abc import Sequence

from sumout.errors import ModelError
from sumout.lower.collapse.sites import CollapsedSite


def without_loops(group: Sequence[CollapsedSite]) -> tuple[list[CollapsedSite], float]:
    """Sites that depend on each other without the scales of the loops that delayed sites among them are in.

    The integral is then to be taken to the power that is returned, too: what is scaled is the integral over a turn, not
    the densities under it.

    Raises:
        ModelError: if not all sites are in the same turn of such a loop.
    """
    turns = {
        frame.name: frame
        for site in group
        if site.is_latent
        for frame in site.inner
        if frame.dim is None and frame.scale != 1.0
    }
    power = 1.0
    for frame in turns.values():
        power *= frame.scale
        for site in group:
            if (frame.name, frame.counter) not in {(each.name, each.counter) for each in site.inner}:
                raise ModelError(
                    f"Plate {frame.name!r} is a subsample that the program loops over, with a delayed site in it, and "
                    f"site {site.name!r} of another turn or outside of the loop belongs to the same integral. Use a "
                    "vectorized plate, or take the whole of it."
                )
    if power == 1.0:
        return list(group), power
    return [site._replace(scale=site.scale / power) for site in group], power
