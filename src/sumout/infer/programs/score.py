"""The joint log-probability of given assignments."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sumout.execute import Choice
from sumout.factors import Factor, FactorGraph


def log_joint(graph: FactorGraph, choices: Mapping[str, Choice]) -> Tensor:
    """The logarithm of the product of all factors at some assignments.

    Args:
        graph: without scales.
        choices: for each variable its states, with the assignments along dimension 0.

    Returns:
        One number for each assignment, differentiable by the factors' tables.
    """
    count = max((len(choice.states) for choice in choices.values()), default=1)
    total: Tensor | float = 0.0
    for factor in graph.factors:
        total = total + log_factor(graph, factor, choices)
    if not isinstance(total, Tensor):
        return torch.zeros(count)
    return total.expand(count)


def log_factor(graph: FactorGraph, factor: Factor, choices: Mapping[str, Choice]) -> Tensor:
    """A factor at some assignments, multiplied over its plates: shape (assignments,), or (1,) without variables."""
    around: dict[str, None] = {}
    for name in factor.inputs:
        around.update(dict.fromkeys(choices[name].plates if name in choices else (name,)))
    axes = tuple(around)
    index = []
    for name, size in zip(factor.inputs, factor.data.shape, strict=True):
        if name in choices:
            choice = choices[name]
            index.append(_aligned(choice.states, choice.plates, axes))
        else:
            index.append(_aligned(torch.arange(size, device=factor.data.device).unsqueeze(0), (name,), axes))
    values = factor.data[tuple(index)] if index else factor.data.reshape(1)
    times = math.prod(graph.plates[plate].size for plate in factor.plates if plate not in axes)
    return values.flatten(1).sum(1) * times if axes else values * times


def _aligned(index: Tensor, names: tuple[str, ...], axes: tuple[str, ...]) -> Tensor:
    """Moves the dimensions after the first to their places among ``axes``; the other axes have size one."""
    order = sorted(range(len(names)), key=lambda place: axes.index(names[place]))
    index = index.permute([0, *(1 + place for place in order)])
    sizes = dict(zip([names[place] for place in order], index.shape[1:], strict=True))
    return index.reshape(len(index), *(sizes.get(axis, 1) for axis in axes))
