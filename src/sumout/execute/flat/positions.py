"""Where the entries of tables lie in flat arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Names = tuple[str, ...]


def entries_of(names: Sequence[str] | Mapping[str, None], sizes: Mapping[str, int]) -> int:
    return math.prod(sizes[name] for name in names)


def strides_of(names: Names, sizes: Mapping[str, int]) -> dict[str, int]:
    """How far apart the entries of a flat table are along each dimension."""
    found: dict[str, int] = {}
    step = 1
    for name in reversed(names):
        found[name] = step
        step *= sizes[name]
    return found


def positions_of(scope: Names, apart: Mapping[str, int], sizes: Mapping[str, int]) -> Array:
    """Where the entries of a flat table are that belong to each joint state of ``scope``, in order."""
    position = np.zeros(1, dtype=np.intp)
    for name in scope:
        position = (position[:, None] + apart.get(name, 0) * np.arange(sizes[name])).reshape(-1)
    return position


def starts_of(lengths: Array) -> Array:
    """Where segments of these lengths begin."""
    return (np.cumsum(lengths) - lengths).astype(np.intp)


def by_cluster(counts: Sequence[int]) -> tuple[Array, Array]:
    """The first message of each cluster, and the cluster of each message."""
    return starts_of(np.array(counts)), np.repeat(np.arange(len(counts)), counts)
