"""The record that a plate leaves on every site inside it."""

from __future__ import annotations

from typing import NamedTuple


class CondIndepStackFrame(NamedTuple):
    """One enclosing plate, as seen by a site.

    ``dim`` is the negative batch dimension of a vectorized plate, ``None`` for a plate that is iterated;
    ``counter`` then tells its elements apart. ``size`` is the number of elements that are present,
    ``full_size`` the number they stand for under subsampling.

    >>> CondIndepStackFrame("data", -1, 10, 0, full_size=100).scale
    10.0
    """

    name: str
    dim: int | None
    size: int
    counter: int = 0
    full_size: int | None = None

    @property
    def vectorized(self) -> bool:
        """Whether the plate is a tensor dimension rather than a loop."""
        return self.dim is not None

    @property
    def scale(self) -> float:
        """How many elements of the full plate each present one stands for."""
        return 1.0 if self.full_size is None or self.full_size == self.size else self.full_size / self.size
