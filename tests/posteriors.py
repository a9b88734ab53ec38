"""The posterior of a problem with every assignment written out: joint tables, entropies, orders, all by counting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch

import oracles
from oracles import Problem


class Posterior:
    """All assignments of a problem without scales, and their weights; differentiable by the problem's tables."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.assignments = oracles.assignment_table(problem)
        self.log_joint = oracles.log_joint(problem, self.assignments)
        self.columns = {copy: column for column, copy in enumerate(problem.copies())}

    @cached_property
    def weights(self) -> torch.Tensor:
        return torch.softmax(self.log_joint, 0)

    @cached_property
    def log_z(self) -> torch.Tensor:
        return torch.logsumexp(self.log_joint, 0)

    def states(self, name: str, element: Mapping[str, int]) -> torch.Tensor:
        """The state of one copy of a variable in every assignment."""
        home = sorted(self.problem.ordinals[name])
        return self.assignments[:, self.columns[name, tuple(element[plate] for plate in home)]]

    def joint(self, names: Sequence[str]) -> torch.Tensor:
        """Joint probabilities, shape (sizes of all plates in sorted order..., states of each name...)."""
        plates = frozenset().union(*(self.problem.ordinals[name] for name in names))
        sizes = [self.problem.sizes[name] for name in names]
        tables = []
        for element in self.problem.elements(plates):
            numbers = torch.zeros(len(self.assignments), dtype=torch.long)
            for name, size in zip(names, sizes, strict=True):
                numbers = numbers * size + self.states(name, element)
            table = self.weights.new_zeros(math.prod(sizes))
            tables.append(table.index_add(0, numbers, self.weights))
        extent = [self.problem.plates[plate][0] for plate in sorted(plates)]
        return torch.stack(tables).reshape(*extent, *sizes)

    def rows_of(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Which assignments (numbers of rows) are meant by states of shape (many, plates in sorted order...)."""
        numbers = torch.zeros(len(next(iter(values.values()))), dtype=torch.long)
        for name, element in self.problem.copies():
            numbers = numbers * self.problem.sizes[name] + values[name][(slice(None), *element)].long()
        return numbers


def entropy(probs: torch.Tensor, dims: int) -> torch.Tensor:
    """The entropy of each table over the last ``dims`` dimensions."""
    return torch.special.entr(probs).sum(tuple(range(-dims, 0)))
