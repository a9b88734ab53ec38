"""Which negative batch dimension belongs to which active plate."""

from __future__ import annotations

from sumout.errors import PlateError


class DimAllocator:
    """Hands out batch dimensions, counted from the right, to the plates of one thread.

    >>> dims = DimAllocator()
    >>> dims.allocate("docs", None), dims.allocate("words", None)
    (-1, -2)
    >>> dims.free("docs", -1)
    >>> dims.allocate("topics", None)
    -1
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def allocate(self, name: str, dim: int | None) -> int:
        """Takes a dimension for the plate ``name``: the given one, or the rightmost that is free.

        Raises:
            PlateError: if the plate is active already, the dimension is not negative, or another plate has
                it.
        """
        if name in self._names.values():
            raise PlateError(
                f"Plate {name!r} is already active here; a plate cannot be nested in itself. "
                "Give the inner one another name, or leave it out."
            )
        if dim is None:
            dim = self._rightmost_free()
        elif dim >= 0:
            raise PlateError(
                f"Plate {name!r} asks for dim={dim}; batch dimensions are counted from the right. "
                f"Give a negative one, e.g. plate({name!r}, ..., dim=-1)."
            )
        elif dim in self._names:
            raise PlateError(
                f"Plates {self._names[dim]!r} and {name!r} both use dim {dim}. "
                f"Give one of them another, e.g. plate({name!r}, ..., dim={self._rightmost_free()})."
            )
        self._names[dim] = name
        return dim

    def free(self, name: str, dim: int) -> None:
        """Gives the dimension back; one that the plate does not hold is left as it is."""
        if self._names.get(dim) == name:
            del self._names[dim]

    def _rightmost_free(self) -> int:
        dim = -1
        while dim in self._names:
            dim -= 1
        return dim
