"""Which levels of a flat program are scaled, so that nothing underflows or overflows further up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sumout.execute.flat.clusters import Cluster
from sumout.execute.flat.positions import entries_of


class TooFar(Exception):
    """Entries are too far apart for plain probabilities."""


class Scaling(NamedTuple):
    """The levels whose results are scaled, and what these are taken to have at least."""

    levels: frozenset[int]
    least: float


def scaled_levels(
    depths: Sequence[Sequence[int]],
    clusters: Mapping[int, Cluster],
    sizes: Mapping[str, int],
    lows: Sequence[float],
    dtype: np.dtype[Any],
) -> Scaling:
    """The levels whose results have to be scaled.

    Args:
        depths: clusters by their distance from the root.
        clusters: by number.
        sizes: of all variables.
        lows: of each table the logarithm of its least positive entry.
        dtype: of the tables.

    Raises:
        TooFar: if the tables' entries are too far apart.
    """
    limits = np.finfo(dtype)
    lowest, highest = math.log(limits.tiny) - 2 * math.log(limits.eps), math.log(limits.max) - 1
    # What scaled results are taken to have at least: so much that any cluster can multiply all of its own.
    least = lowest / 6
    for cluster in clusters.values():
        below = sum(each in clusters for each in cluster.inputs)
        own = sum(lows[each] for each in cluster.inputs if each < len(lows))
        if below:
            least = max(least, (lowest - own) / below)
    if least >= 0:
        raise TooFar
    known: dict[int, tuple[float, float]] = {}

    def bounds(node: int) -> tuple[float, float]:
        cluster = clusters[node]
        low, high = 0.0, math.log(entries_of(cluster.scope, sizes) / entries_of(cluster.out, sizes))
        for each in cluster.inputs:
            if each in clusters:
                low, high = low + known[each][0], high + known[each][1]
            elif each < len(lows):
                low += lows[each]
        return low, high

    scaled = set()
    for depth in range(len(depths) - 1, -1, -1):
        known.update({node: bounds(node) for node in depths[depth]})
        if any(known[node][0] < lowest or known[node][1] > highest for node in depths[depth]):
            # All that a level reads is on the next one, or in tables.
            scaled.add(depth + 1)
            known.update(dict.fromkeys(depths[depth + 1], (least, 0.0)))
            known.update({node: bounds(node) for node in depths[depth]})
            if any(known[node][0] < lowest or known[node][1] > highest for node in depths[depth]):
                raise TooFar
    return Scaling(frozenset(scaled), math.exp(least))
