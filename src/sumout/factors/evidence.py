"""Conditioning on observed values: labels become indices, indices slice tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sumout.errors import EvidenceError, nearest
from sumout.factors.parts import Factor, GraphData

Evidence = Mapping[str, Any]
"""Variable -> state label or index; in plates, an integer tensor or nested list of the plates' sizes."""

MISSING = -1
"""In tables of evidence, the index of a state that was not observed."""


def resolve_evidence(graph: GraphData, evidence: Evidence) -> dict[str, int | torch.Tensor]:
    """Each observed variable's index: an int, or for a variable in plates a tensor, plates sorted by name.

    A label is looked up in the variable's states; without labels, a string of digits is an index. A bool is
    the label that reads like it ("true", "False"), and an index where no label does.

    Raises `EvidenceError` for an unknown variable or state, an index out of range, or a wrong shape.
    """
    if not isinstance(evidence, Mapping):
        raise EvidenceError(f"Evidence is a mapping, e.g. {{'name': 'state'}}, not {evidence!r}.")
    resolved: dict[str, int | torch.Tensor] = {}
    for name, value in evidence.items():
        variable = graph.variables.get(name)
        if variable is None:
            kind = "is a plate" if name in graph.plates else "is no variable of the graph"
            raise EvidenceError(f"Evidence for {name!r}, which {kind}.{nearest(str(name), graph.variables)}")
        value = _indices(graph, name, value)
        if isinstance(value, int):
            resolved[name] = value
            continue
        shape = tuple(graph.plates[plate].size for plate in sorted(variable.plates))
        if tuple(value.shape) != shape:
            plates = ", ".join(sorted(variable.plates))
            rule = f"the sizes of its plates ({plates})" if plates else "as it is in no plate"
            raise EvidenceError(
                f"The evidence for {name!r} has shape {tuple(value.shape)}, but needs shape {shape}, {rule}."
            )
        resolved[name] = value
    return resolved


def condition(graph: GraphData, evidence: Evidence) -> GraphData:
    """The content of ``FactorGraph.condition``."""
    indices = resolve_evidence(graph, evidence)
    factors = tuple(
        _sliced(graph, factor, indices) if any(name in indices for name in factor.inputs) else factor
        for factor in graph.factors
    )
    variables = {name: variable for name, variable in graph.variables.items() if name not in indices}
    states = {name: labels for name, labels in graph.states.items() if name not in indices}
    return GraphData(factors, variables, graph.plates, states)


def _indices(graph: GraphData, name: str, value: Any) -> int | torch.Tensor:
    """The value with labels and other integer types resolved, in range."""
    if isinstance(value, (bool, int, str)):
        return _index(graph, name, value)
    if isinstance(value, (list, tuple)):
        nested = [torch.as_tensor(_indices(graph, name, each)) for each in value]
        if not nested or any(each.shape != nested[0].shape for each in nested):
            raise EvidenceError(f"The evidence for {name!r} is a ragged or empty list.")
        return torch.stack(nested)
    if not isinstance(value, torch.Tensor):
        # Numpy's scalars and arrays come in by their own conversion: this module need not know them.
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, (bool, int, str, list)):
            return _indices(graph, name, value)
        raise EvidenceError(
            f"The evidence for {name!r} is {value!r}: give a state label or an integer index."
        )
    if value.dtype.is_floating_point or value.dtype.is_complex:
        raise EvidenceError(f"The evidence for {name!r} is of {value.dtype}: indices are integers.")
    if value.dim() == 0:
        return _index(graph, name, value.item())
    size = graph.variables[name].size
    wrong = value[(value < 0) | (value >= size)]
    if wrong.numel():
        raise EvidenceError(
            f"The evidence for {name!r} has the index {int(wrong[0])}, but its {size} states count from 0."
        )
    return value.long()


def _index(graph: GraphData, name: str, value: bool | int | float | str) -> int:
    labels, size = graph.states.get(name, ()), graph.variables[name].size
    if isinstance(value, str):
        if value in labels:
            return labels.index(value)
        if labels or not value.isdecimal():
            known = (
                f"its states are {', '.join(labels)}." if labels else "it has no state labels: give an index."
            )
            raise EvidenceError(
                f"Unknown state {value!r} of variable {name!r}; {known}{nearest(value, labels)}"
            )
        value = int(value)
    if isinstance(value, bool):
        alike = [index for index, label in enumerate(labels) if label.lower() == str(value).lower()]
        value = alike[0] if len(alike) == 1 else int(value)
    if not isinstance(value, int) or not 0 <= value < size:
        raise EvidenceError(f"The evidence for {name!r} is {value}, but its {size} states count from 0.")
    return value


def _sliced(graph: GraphData, factor: Factor, indices: Mapping[str, int | torch.Tensor]) -> Factor:
    """The factor at the observed indices; it gains the plates along which these vary."""
    kept: list[str] = []
    data = factor.data
    for name in factor.inputs:
        index = indices.get(name)
        if isinstance(index, int):
            data = data.select(len(kept), index)
        else:
            kept.append(name)
    gathered = [name for name in kept if name in indices]
    if not gathered:
        return Factor(factor.name, tuple(kept), data, factor.plates, factor.scale)
    gained = {plate for name in gathered for plate in graph.variables[name].plates} - set(kept)
    result = (*sorted(gained), *(name for name in kept if name not in indices))
    # One gather: each dim's index is laid out along the result's dims, and they broadcast.
    layout = []
    for name in kept:
        index = indices.get(name)
        along = sorted(graph.variables[name].plates) if isinstance(index, torch.Tensor) else [name]
        values = index if isinstance(index, torch.Tensor) else torch.arange(graph.size(name))
        order = sorted(range(len(along)), key=lambda dim, along=along: result.index(along[dim]))  # type: ignore[misc]
        shape = [graph.size(each) if each in along else 1 for each in result]
        layout.append(values.to(data.device).permute(order).reshape(shape))
    return Factor(factor.name, result, data[tuple(layout)], factor.plates, factor.scale)
