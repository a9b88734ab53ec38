"""Factor graphs from plain tables of probabilities."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from sumout.errors import GraphError, nearest
from sumout.factors.parts import Factor, GraphData, Plate, Variable

TableLike = Any
"""A tensor, a numpy array, or nested lists of numbers."""


def graph_from_tables(
    tables: Mapping[str, tuple[Sequence[str], TableLike]],
    plates: Mapping[str, int | Plate],
    ordinals: Mapping[str, Collection[str]],
    states: Mapping[str, Sequence[str]],
    log: bool,
) -> GraphData:
    """The content of ``FactorGraph.from_tables``, not yet checked."""
    all_plates = {name: plate if isinstance(plate, Plate) else Plate(plate) for name, plate in plates.items()}
    sizes: dict[str, tuple[int, str]] = {}  # of each variable, and the table that showed it
    factors: list[Factor] = []
    for name, (inputs, values) in tables.items():
        if isinstance(inputs, str):
            raise GraphError(f"The inputs of table {name!r} are the string {inputs!r}: give a list of names.")
        data = _log_table(name, values, log)
        if data.dim() != len(inputs):
            raise GraphError(
                f"The table {name!r} has shape {tuple(data.shape)} but {len(inputs)} inputs, {list(inputs)}: "
                "it needs one dim per input."
            )
        lives_in = set(ordinals.get(name, ()))
        for each, size in zip(inputs, data.shape, strict=True):
            if each in all_plates:
                lives_in.add(each)
                continue
            known, source = sizes.setdefault(each, (size, name))
            if known != size:
                raise GraphError(
                    f"The variable {each!r} has size {known} in table {source!r} but {size} in {name!r}."
                )
            lives_in.update(ordinals.get(each, ()))
        factors.append(Factor(name, tuple(inputs), data, frozenset(lives_in)))
    for each in ordinals:
        if each not in sizes and each not in tables:
            raise GraphError(
                f"ordinals has {each!r}, which is no variable and no table."
                + nearest(each, [*sizes, *tables])
            )
    variables = {each: Variable(size, frozenset(ordinals.get(each, ()))) for each, (size, _) in sizes.items()}
    labels = {each: tuple(str(label) for label in of_each) for each, of_each in states.items()}
    return GraphData(tuple(factors), variables, all_plates, labels)


def _log_table(name: str, values: TableLike, log: bool) -> torch.Tensor:
    """The values as a tensor of logarithms; integers and lists become the default dtype."""
    try:
        data = values if isinstance(values, torch.Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError) as error:
        raise GraphError(f"The table {name!r} is not an array of numbers: {error}") from error
    if not data.dtype.is_floating_point:
        data = data.to(torch.get_default_dtype())
    if log:
        return data
    if (data.detach() < 0).any():
        raise GraphError(
            f"The table {name!r} has a negative entry, {data.detach().min().item():g}. Give probabilities, "
            "or their logarithms with log=True."
        )
    return data.log()
