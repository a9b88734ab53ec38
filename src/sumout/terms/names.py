"""The map between positional batch dims and names, checked.

A batch dim is a negative integer counted from the right of the batch shape, event dims left out: dim -1 is
the last batch dim. A dim of size 1 is nothing to depend on: it needs no name, and a name for it is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping

from sumout.errors import GraphError


def checked_dim_names(dim_to_name: Mapping[int, str]) -> None:
    """Raises `GraphError` unless all dims are negative integers and their names are strings."""
    for dim, name in dim_to_name.items():
        if not isinstance(dim, int) or isinstance(dim, bool) or dim >= 0:
            raise GraphError(f"dim_to_name has {dim!r}: {name!r}, but batch dims are negative integers.")
        if not isinstance(name, str):
            raise GraphError(f"dim_to_name has {dim}: {name!r}, but a name is a string.")


def checked_name_dims(name_to_dim: Mapping[str, int]) -> None:
    """Raises `GraphError` unless all dims are negative integers and no two names share one."""
    owners: dict[int, str] = {}
    for name, dim in name_to_dim.items():
        if not isinstance(dim, int) or isinstance(dim, bool) or dim >= 0:
            raise GraphError(f"name_to_dim has {name!r}: {dim!r}, but batch dims are negative integers.")
        if dim in owners:
            raise GraphError(f"name_to_dim puts {owners[dim]!r} and {name!r} both at dim {dim}.")
        owners[dim] = name


def named_dims(batch_shape: tuple[int, ...], dim_to_name: Mapping[int, str]) -> dict[str, int]:
    """The names of the batch dims that something depends on, in positional order, with their sizes.

    Raises `GraphError` when a dim of size above 1 has no name, or two such dims have the same one.

    >>> named_dims((2, 1, 3), {-3: "z", -2: "docs", -1: "words"})
    {'z': 2, 'words': 3}
    """
    sizes: dict[str, int] = {}
    rank = len(batch_shape)
    for position, size in enumerate(batch_shape):
        if size == 1:
            continue
        name = dim_to_name.get(position - rank)
        if name is None:
            known = ", ".join(f"{dim}: {name!r}" for dim, name in sorted(dim_to_name.items())) or "none"
            raise GraphError(
                f"Batch dim {position - rank} of batch shape {batch_shape} has size {size} but no name "
                f"(named dims: {known}). Name every batch dim above size 1, or raise event_dim."
            )
        if name in sizes:
            raise GraphError(f"Two dims of batch shape {batch_shape} are both named {name!r}.")
        sizes[name] = size
    return sizes
