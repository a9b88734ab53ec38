"""Brute force: the answers that everything else is measured against, in the plainest possible way.

Nothing of sumout is imported. A problem is plain data. With all scales 1 every copy of every variable is
written out and every joint assignment is visited (`log_z`, `marginals`, `max_assignment`). Scales are no
property of assignments, so `log_z` then follows their recursive definition. All is float64 and can be
differentiated by autograd.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

Copy = tuple[str, tuple[int, ...]]
"""One copy of a variable: its name, and an element of each of its plates in sorted order."""


@dataclass(frozen=True, eq=False)
class Table:
    """Log-values over ``inputs`` (variables and plates), in effect once per element of ``plates``."""

    inputs: tuple[str, ...]
    data: torch.Tensor
    plates: frozenset[str] = frozenset()
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Problem:
    """A plated factor graph: sizes and plates of the variables, (size, scale) of the plates, the tables."""

    sizes: Mapping[str, int]
    ordinals: Mapping[str, frozenset[str]]
    plates: Mapping[str, tuple[int, float]]
    tables: Sequence[Table] = field(default_factory=tuple)

    def elements(self, plates: frozenset[str]) -> list[dict[str, int]]:
        """All index combinations of some plates."""
        names = sorted(plates)
        ranges = [range(self.plates[name][0]) for name in names]
        return [dict(zip(names, each, strict=True)) for each in itertools.product(*ranges)]

    def copies(self) -> list[Copy]:
        """All copies of all variables."""
        return [
            (name, tuple(element[plate] for plate in sorted(self.ordinals[name])))
            for name in self.sizes
            for element in self.elements(self.ordinals[name])
        ]

    def assignments(self) -> int:
        """How many joint assignments brute force visits."""
        return math.prod(self.sizes[name] for name, _ in self.copies())

    def scaled(self) -> bool:
        return any(scale != 1 for _, scale in self.plates.values()) or any(
            table.scale != 1 for table in self.tables
        )


def assignment_table(problem: Problem) -> torch.Tensor:
    """All joint assignments, shape (assignments, copies)."""
    ranges = [torch.arange(problem.sizes[name]) for name, _ in problem.copies()]
    if not ranges:
        return torch.zeros(1, 0, dtype=torch.long)
    return torch.cartesian_prod(*ranges).reshape(-1, len(ranges))


def log_joint(problem: Problem, assignments: torch.Tensor) -> torch.Tensor:
    """The log of the product of all factors, for each row of ``assignments``."""
    columns = {copy: index for index, copy in enumerate(problem.copies())}
    total = torch.zeros(len(assignments), dtype=torch.float64)
    for table in problem.tables:
        for element in problem.elements(table.plates):
            index = []
            for name in table.inputs:
                if name in problem.sizes:
                    copy = (name, tuple(element[plate] for plate in sorted(problem.ordinals[name])))
                    index.append(assignments[:, columns[copy]])
                else:
                    index.append(torch.full((len(assignments),), element[name]))
            total = total + (table.data[tuple(index)] if index else table.data)
    return total


def log_z(problem: Problem) -> torch.Tensor:
    """The log of the sum over all assignments of the product of all factors."""
    if problem.scaled():
        return scaled_log_z(problem)
    return torch.logsumexp(log_joint(problem, assignment_table(problem)), 0)


def marginals(problem: Problem) -> dict[str, torch.Tensor]:
    """Each variable's posterior probabilities, shape (sizes of its plates in sorted order..., states)."""
    assert not problem.scaled(), "a scaled joint has no assignments to count"
    assignments = assignment_table(problem)
    weights = torch.softmax(log_joint(problem, assignments), 0)
    found = {
        name: torch.zeros(
            *(problem.plates[plate][0] for plate in sorted(problem.ordinals[name])), size
        ).double()
        for name, size in problem.sizes.items()
    }
    for column, (name, element) in enumerate(problem.copies()):
        for state in range(problem.sizes[name]):
            found[name][(*element, state)] = weights[assignments[:, column] == state].sum()
    return found


def max_assignment(problem: Problem) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A best joint assignment, each variable's of its plates' sizes in sorted order; its log-probability."""
    assert not problem.scaled(), "a scaled joint has no assignments to compare"
    assignments = assignment_table(problem)
    scores = log_joint(problem, assignments)
    best = assignments[scores.argmax()]
    found = {
        name: torch.zeros(
            [problem.plates[plate][0] for plate in sorted(problem.ordinals[name])], dtype=torch.long
        )
        for name in problem.sizes
    }
    for column, (name, element) in enumerate(problem.copies()):
        found[name][element] = best[column]
    return found, scores.max()


def score_assignment(problem: Problem, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The log of the joint at one assignment, given as `max_assignment` gives it: there may be ties."""
    row = torch.tensor([[int(values[name][element]) for name, element in problem.copies()]], dtype=torch.long)
    return log_joint(problem, row.reshape(1, -1))[0]


# ----------------------------------------------------------------------------------------- with scales


def scaled_log_z(problem: Problem) -> torch.Tensor:
    """log Z by the recursive definition of scales.

    Each component of the graph contributes its value times its scale. The value of tables that hang together:
    where all of them, and all their unassigned variables, are inside a plate whose element is not chosen, the
    scale of that plate times the sum over its elements; else the logsumexp over the states of a variable
    whose plates' elements are all chosen.
    """
    unused = [name for name in problem.sizes if not any(name in table.inputs for table in problem.tables)]
    ones = [
        Table((name,), torch.zeros(problem.sizes[name]).double(), problem.ordinals[name]) for name in unused
    ]
    total = torch.zeros((), dtype=torch.float64)
    for group in _groups([*problem.tables, *ones], set(problem.sizes)):
        assert len({table.scale for table in group}) == 1, "a component has one scale"
        total = total + group[0].scale * _value(problem, group, {}, {})
    return total


def _groups(tables: Sequence[Table], free: set[str]) -> list[list[Table]]:
    """The tables that hang together by free variables."""
    groups: list[tuple[set[str], list[Table]]] = []
    for table in tables:
        names = free & set(table.inputs)
        linked = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        members = [each for group in linked for each in group[1]]
        groups.append((names.union(*(group[0] for group in linked)), [*members, table]))
    return [members for _, members in groups]


def _value(
    problem: Problem, tables: list[Table], chosen: dict[str, int], state: dict[str, int]
) -> torch.Tensor:
    free = {name for table in tables for name in table.inputs if name in problem.sizes and name not in state}
    inside = [problem.ordinals[name] for name in free] + [table.plates for table in tables]
    common = sorted(frozenset.intersection(*inside) - set(chosen))
    if common:
        size, scale = problem.plates[common[0]]
        return scale * sum(
            (_value(problem, tables, {**chosen, common[0]: element}, state) for element in range(size)),
            torch.zeros((), dtype=torch.float64),
        )
    if not free:
        index = chosen | state
        return sum(
            (table.data[tuple(index[name] for name in table.inputs)] for table in tables),
            torch.zeros((), dtype=torch.float64),
        )
    name = min(name for name in free if problem.ordinals[name] <= set(chosen))
    values = []
    for each in range(problem.sizes[name]):
        groups = _groups(tables, free - {name})
        values.append(
            sum(
                (_value(problem, group, chosen, {**state, name: each}) for group in groups),
                torch.zeros((), dtype=torch.float64),
            )
        )
    return torch.logsumexp(torch.stack(values), 0)


# ---------------------------------------------------------------------------------------------- chains


def forward_backward(
    log_initial: torch.Tensor, log_transition: torch.Tensor, log_likelihood: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The textbook recursions of an HMM (Rabiner, 1989, equations 19 to 37), in log space.

    Args:
        log_initial: shape (states,).
        log_transition: from row to column, shape (states, states) or (steps - 1, states, states).
        log_likelihood: of each step's observation in each state, shape (steps, states).

    Returns:
        log-evidence; posteriors of the states (steps, states) and of neighbours (steps - 1, states, states).
    """
    steps, states = log_likelihood.shape
    log_transition = log_transition.expand(steps - 1, states, states)
    alpha = [log_initial + log_likelihood[0]]
    for t in range(1, steps):
        alpha.append(torch.logsumexp(alpha[-1][:, None] + log_transition[t - 1], 0) + log_likelihood[t])
    beta = [torch.zeros(states, dtype=log_likelihood.dtype)]
    for t in reversed(range(1, steps)):
        beta.append(torch.logsumexp(log_transition[t - 1] + (log_likelihood[t] + beta[-1])[None, :], 1))
    beta.reverse()
    log_evidence = torch.logsumexp(alpha[-1], 0)
    posterior = torch.stack([a + b for a, b in zip(alpha, beta, strict=True)]) - log_evidence
    pairs = [
        alpha[t][:, None] + log_transition[t] + (log_likelihood[t + 1] + beta[t + 1])[None, :] - log_evidence
        for t in range(steps - 1)
    ]
    return (
        log_evidence,
        posterior.exp(),
        torch.stack(pairs).exp() if pairs else posterior.new_zeros(0, states, states),
    )


def viterbi(
    log_initial: torch.Tensor, log_transition: torch.Tensor, log_likelihood: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """An HMM's most probable path and the log of its joint probability; arguments as `forward_backward`."""
    steps, states = log_likelihood.shape
    log_transition = log_transition.expand(steps - 1, states, states)
    score, back = log_initial + log_likelihood[0], []
    for t in range(1, steps):
        best = (score[:, None] + log_transition[t - 1]).max(0)
        score = best.values + log_likelihood[t]
        back.append(best.indices)
    path = [int(score.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return torch.tensor(path[::-1]), score.max()
