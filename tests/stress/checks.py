"""One check a query: its answer beside what counting over all assignments gives."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
import torch

from posteriors import Posterior
from stress.cases import Case
from sumout import infer
from sumout.errors import ImpossibleEvidenceError
from sumout.factors import FactorGraph
from sumout.settings import settings

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours.detach(), theirs.detach(), **EXACT)


def entropy_of(probs: torch.Tensor, dims: int) -> torch.Tensor:
    logs = torch.where(probs > 0, probs, 1.0).log()
    return -(probs * logs).sum(tuple(range(probs.ndim - dims, probs.ndim)))


def information_of(probs: torch.Tensor, first: int, dims: int) -> torch.Tensor:
    """Of the first dimensions of states with the others."""
    begin = probs.ndim - dims
    of_second = probs.sum(tuple(range(begin, begin + first)))
    of_first = probs.sum(tuple(range(begin + first, probs.ndim)))
    return entropy_of(of_first, first) + entropy_of(of_second, dims - first) - entropy_of(probs, dims)


def best_with_state(posterior: Posterior, name: str) -> torch.Tensor:
    """The largest log-probability with each state of each copy, shape (plates in sorted order..., states)."""
    found = []
    for element in posterior.problem.elements(posterior.problem.ordinals[name]):
        states = posterior.states(name, element)
        found += [
            posterior.log_joint[states == state].amax() for state in range(posterior.problem.sizes[name])
        ]
    extent = [posterior.problem.plates[plate][0] for plate in sorted(posterior.problem.ordinals[name])]
    return torch.stack(found).reshape(*extent, posterior.problem.sizes[name])


def sums_over_others(posterior: Posterior, names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """For each assignment the number of its states of some variables; the log of the sum for each number."""
    numbers = torch.zeros(len(posterior.assignments), dtype=torch.long)
    for name, element in posterior.problem.copies():
        if name in names:
            states = posterior.assignments[:, posterior.columns[name, element]]
            numbers = numbers * posterior.problem.sizes[name] + states
    numbers = numbers.unique(return_inverse=True)[1]
    table = torch.full((int(numbers.max()) + 1, len(numbers)), -math.inf, dtype=torch.float64)
    logs = table.scatter(0, numbers.unsqueeze(0), posterior.log_joint.unsqueeze(0))
    largest = logs.detach().amax(-1, keepdim=True)
    shift = torch.where(largest > -math.inf, largest, 0.0)
    return numbers, torch.where(
        largest.squeeze(-1) > -math.inf,
        torch.where(logs > -math.inf, logs - shift, -math.inf).exp().sum(-1).clamp(min=1e-300).log()
        + shift.squeeze(-1),
        -math.inf,
    )


# ------------------------------------------------------------------------------------------- the queries


def log_evidence(case: Case) -> None:
    same(infer.log_evidence(case.target)(), case.posterior.log_z)


def marginals(case: Case) -> None:
    answer = infer.marginals(case.target)()
    assert set(answer) == set(case.names)
    same(answer.log_evidence, case.posterior.log_z)
    for name in case.names:
        same(case.sorted_plates([name], answer.tables[name]), case.posterior.joint([name]))


def joint_marginals(case: Case) -> None:
    wanted = [group if len(group) > 1 else group[0] for group in case.groups]
    answer = infer.marginals(case.target, wanted)()
    for each, group in zip(wanted, case.groups, strict=True):
        same(case.sorted_plates(group, answer.tables[each]), case.posterior.joint(group))


def factor_beliefs(case: Case) -> None:
    answer = infer.factor_beliefs(case.target)()
    same(answer.log_evidence, case.posterior.log_z)
    for each in answer.values():
        expected = case.posterior.joint(each.names) if each.names else torch.ones(()).double()
        same(case.sorted_plates(each.names, each.probs.double()), expected)


def entropy(case: Case) -> None:
    same(infer.entropy(case.target)(), entropy_of(case.posterior.weights, 1))
    for group in case.groups[:2]:
        ours = case.sorted_plates(group, infer.entropy(case.target, group)())
        same(ours, entropy_of(case.posterior.joint(group), len(group)))


def mutual_information(case: Case) -> None:
    for group in [each for each in case.groups if len(each) > 1][:2]:
        ours = infer.mutual_information(case.target, group[0], group[1:])()
        expected = information_of(case.posterior.joint(group), 1, len(group))
        same(case.sorted_plates(group, ours), expected)


def expectation(case: Case) -> None:
    for group in case.groups[:2]:
        table = case.numbers(torch.empty(*case.sizes(group), 2))
        ours = case.sorted_plates(group, infer.expectation(case.target, group, table)())
        joint = case.posterior.joint(group).unsqueeze(-1)
        same(ours, (joint * table).sum(tuple(range(joint.ndim - 1 - len(group), joint.ndim - 1))))


def map_assignment(case: Case) -> None:
    best = infer.map_assignment(case.target)()
    same(best.log_prob, case.log_joint.max())
    same(best.log_evidence, case.posterior.log_z)
    if case.names:
        (row,) = rows_of(case, {name: best[name].unsqueeze(0) for name in case.names})
        same(case.log_joint[row], best.log_prob)


def rows_of(case: Case, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """The numbers of assignments, which come first in ``values``."""
    return case.posterior.rows_of(
        {name: case.sorted_plates([name], value, leading=1) for name, value in values.items()}
    )


def k_best(case: Case) -> None:
    k = random.Random(case.seed).choice([1, 2, 5, 17])
    best = infer.k_best(case.target, k)()
    expected = case.log_joint[case.log_joint > -math.inf].sort(descending=True).values[:k]
    same(best.log_prob, expected)
    if case.names:
        rows = rows_of(case, dict(best))
        assert len(set(rows.tolist())) == len(rows)
        same(case.log_joint[rows], best.log_prob)


def max_marginals(case: Case) -> None:
    answer = infer.max_marginals(case.target)()
    same(answer.log_prob, case.log_joint.max())
    for name in case.names:
        same(case.sorted_plates([name], answer[name]), best_with_state(case.posterior, name))


def chosen_names(case: Case) -> list[str]:
    draw = random.Random(case.seed)
    return draw.sample(case.names, draw.randint(1, len(case.names)))


def marginal_map(case: Case) -> None:
    if not case.names:
        return
    names = chosen_names(case)
    best = infer.marginal_map(case.target, names)()
    assert set(best) == set(names)
    numbers, totals = sums_over_others(case.posterior, names)
    same(best.log_prob, totals.max())
    same(best.log_evidence, case.posterior.log_z)
    agree = torch.ones(len(numbers), dtype=torch.bool)
    for name in names:
        states = case.sorted_plates([name], best[name])
        for element in case.posterior.problem.elements(case.posterior.problem.ordinals[name]):
            agree &= (
                case.posterior.states(name, element) == states[tuple(element[p] for p in sorted(element))]
            )
    same(totals[numbers[agree][0]], totals.max())


def posterior_samples(case: Case) -> None:
    count = 250 if settings.memory_limit > 2**20 else 5
    drawn = infer.posterior_samples(case.target, count, generator=case.generator())()
    same(drawn.log_evidence, case.posterior.log_z)
    if not case.names:
        return
    rows = rows_of(case, dict(drawn))
    assert (case.log_joint[rows] > -math.inf).all()
    same(drawn.log_joint, case.log_joint[rows])
    same(drawn.log_prob, case.log_joint[rows] - case.posterior.log_z)
    assert_likely(rows, case.posterior.weights.detach())


def assert_likely(rows: torch.Tensor, weights: torch.Tensor) -> None:
    """Counts of assignments beside their probabilities, by the G statistic.

    Bins expect 10 samples or more. Then it is about chi-squared, with an upper tail beyond ``d + 2 sqrt(d t) + 2 t``
    below ``exp(-t)`` (Laurent and Massart 2000, lemma 1): at t = 25, once in 10^10 runs.
    """
    order = weights.argsort(descending=True)
    expected = len(rows) * weights[order]
    ends = (expected.cumsum(0) / 10).floor()
    bins = torch.empty(len(weights), dtype=torch.long)
    bins[order] = torch.cat([ends.new_zeros(1), ends[:-1]]).unique(return_inverse=True)[1]
    found = torch.bincount(bins[rows], minlength=int(bins.max()) + 1).double()
    exact = torch.zeros_like(found).index_add_(0, bins, weights)
    keep = exact * len(rows) >= 5
    found, exact = (torch.cat([each[keep], each[~keep].sum().reshape(1)]) for each in (found, exact))
    freedom, t = len(found) - 1, 25.0
    statistic = 2 * torch.special.xlogy(found, found / (len(rows) * exact).clamp(min=1e-300)).sum()
    assert statistic <= freedom + 2 * math.sqrt(freedom * t) + 2 * t + 8, "samples have the wrong frequencies"


# ----------------------------------------------------------------------------------------- derivatives


def gradients(case: Case) -> None:
    """Of everything that is a sum over assignments, in one objective."""
    if not any(leaf.requires_grad for leaf in case.leaves):
        return
    posterior, groups = case.posterior, case.groups[:3]
    wanted = [group if len(group) > 1 else group[0] for group in groups]
    answer = infer.marginals(case.target, wanted)()
    ours, theirs = [infer.log_evidence(case.target)(), answer.log_evidence], [posterior.log_z] * 2
    for each, group in zip(wanted, groups, strict=True):
        ours.append(case.sorted_plates(group, answer.tables[each]))
        theirs.append(posterior.joint(group))
    ours.append(infer.entropy(case.target)())
    theirs.append(entropy_of(posterior.weights, 1))
    for group in groups[:1]:
        ours.append(case.sorted_plates(group, infer.entropy(case.target, group)()))
        theirs.append(entropy_of(posterior.joint(group), len(group)))
    beliefs = infer.factor_beliefs(case.target)()
    for belief in list(beliefs.values())[:2]:
        if belief.names:
            ours.append(case.sorted_plates(belief.names, belief.probs))
            theirs.append(posterior.joint(belief.names))
    same_gradients(case, ours, theirs)


def same_gradients(case: Case, ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    totals = []
    for parts in (ours, theirs):
        total = torch.zeros((), dtype=torch.float64)
        for place, part in enumerate(parts):
            total = total + (part * torch.cos(torch.arange(part.numel()) + place).reshape(part.shape)).sum()
        totals.append(total)
    found = [derivatives(case, total) for total in totals]
    for a, b in zip(*found, strict=True):
        same(a, b)


def gradients_of_maxima(case: Case) -> None:
    """Where there are no ties, for there the derivative of a maximum is anything in between."""
    if case.tied or not case.names or not any(leaf.requires_grad for leaf in case.leaves):
        return
    posterior = case.posterior
    ours, theirs = [infer.map_assignment(case.target)().log_prob], [posterior.log_joint.max()]
    top = posterior.log_joint.sort(descending=True).values[:3]
    ours.append(infer.k_best(case.target, 3)().log_prob)
    theirs.append(top[top > -math.inf])
    ours.append(infer.marginal_map(case.target, names := chosen_names(case))().log_prob)
    totals = sums_over_others(posterior, names)[1]
    theirs.append(totals.max())
    if (totals > totals.max() - 1e-6).sum() > 1:
        del ours[-1], theirs[-1]
    maxima = infer.max_marginals(case.target)()
    for name in case.names:
        mine, exact = case.sorted_plates([name], maxima[name]), best_with_state(posterior, name)
        ours.append(torch.where(exact > -math.inf, mine, 0.0))
        theirs.append(torch.where(exact > -math.inf, exact, 0.0))
    same_gradients(case, ours, theirs)


def second_derivatives(case: Case) -> None:
    """Of log Z and of a marginal, along a random direction."""
    if not any(leaf.requires_grad for leaf in case.leaves):
        return
    ours, theirs = [infer.log_evidence(case.target)()], [case.posterior.log_z]
    for name in case.names[:1]:
        ours.append(case.sorted_plates([name], infer.marginals(case.target, name)().tables[name]))
        theirs.append(case.posterior.joint([name]))
    for a, b in zip(ours, theirs, strict=True):
        found = []
        for value in (a, b):
            first = derivatives(
                case, (value * torch.cos(torch.arange(value.numel())).reshape(value.shape)).sum()
            )
            total = sum(((each * case.numbers(each)).sum() for each in first), torch.zeros(()).double())
            found.append(derivatives(case, total))
        for mine, exact in zip(*found, strict=True):
            same(mine, exact)


def derivatives(case: Case, value: torch.Tensor) -> Sequence[torch.Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in case.leaves]
    return torch.autograd.grad(
        value, case.leaves, create_graph=True, allow_unused=True, materialize_grads=True
    )


# ---------------------------------------------------------------------------------------- rows of evidence


def random_rows(case: Case, count: int = 4) -> dict[str, torch.Tensor]:
    """Columns with missing entries for some variables, drawn from assignments so that most rows are possible."""
    draw = random.Random(case.seed)
    problem, posterior = case.posterior.problem, case.posterior
    columns = {}
    weights = case.posterior.weights.detach() if case.possible else torch.ones(len(posterior.assignments))
    picked = torch.multinomial(weights, count, replacement=True, generator=case.generator())
    for name in draw.sample(case.names, draw.randint(1, len(case.names))):
        home = problem.ordinals[name]
        states = torch.stack([posterior.states(name, element)[picked] for element in problem.elements(home)])
        extent = [problem.plates[plate][0] for plate in sorted(home)]
        column = states.T.reshape(count, *extent)
        if draw.random() < 0.5:
            missing = torch.rand(column.shape, generator=case.generator()) < 0.4
            column = column.masked_fill(missing, -1)
        columns[name] = column
    return columns


def rows(case: Case) -> None:
    """A table of evidence: log-evidence, marginals, MAP and gradients of all rows."""
    if not case.names or not isinstance(case.target, FactorGraph):
        return
    columns, posterior = random_rows(case), case.posterior
    count = len(next(iter(columns.values())))
    masked = []
    for row in range(count):
        agree = torch.ones(len(posterior.assignments), dtype=torch.bool)
        for (name, element), column in posterior.columns.items():
            if name in columns and (seen := int(columns[name][(row, *element)])) >= 0:
                agree &= posterior.assignments[:, column] == seen
        masked.append(posterior.log_joint.masked_fill(~agree, -math.inf))
    expected = torch.stack([logs.logsumexp(0) for logs in masked])
    ours = infer.log_evidence(case.target)(evidence=columns)
    same(ours, expected)
    if (expected == -math.inf).any():
        with pytest.raises(ImpossibleEvidenceError, match="rows"):
            infer.marginals(case.target)(evidence=columns)
        return
    answer = infer.marginals(case.target)(evidence=columns)
    best = infer.map_assignment(case.target)(evidence=columns)
    tables, exact = [ours], [expected]
    for row, logs in enumerate(masked):
        weights = torch.softmax(logs, 0)
        same(best.log_prob[row], logs.max())
        chosen = logs > -math.inf
        for name, element in posterior.problem.copies():
            if name in answer:
                states = posterior.states(
                    name, dict(zip(sorted(posterior.problem.ordinals[name]), element, strict=True))
                )
                table = weights.new_zeros(posterior.problem.sizes[name]).index_add(0, states, weights)
                same(answer.tables[name][(row, *element)], table)
                tables.append(answer.tables[name][(row, *element)])
                exact.append(table)
                chosen &= states == best[name][(row, *element)]
        same(logs[chosen].max(), logs.max())
    if any(leaf.requires_grad for leaf in case.leaves):
        same_gradients(case, tables, exact)
    for row in range(count):
        alone = {name: column[row] for name, column in columns.items() if (column[row] >= 0).all()}
        if len(alone) == len(columns):
            single = infer.marginals(case.target)(evidence=alone)
            same(single.log_evidence, expected[row])
            for name, table in single.tables.items():
                same(table, answer.tables[name][row])


def impossible(case: Case) -> None:
    """There is no posterior, and every query says so; log-evidence says ``-inf``."""
    same(infer.log_evidence(case.target)(), torch.tensor(-math.inf).double())
    name = case.names[:1]
    queries: list[Callable[[], object]] = [
        infer.marginals(case.target),
        infer.factor_beliefs(case.target),
        infer.entropy(case.target),
        infer.map_assignment(case.target),
        infer.max_marginals(case.target),
        infer.k_best(case.target, 2),
        infer.posterior_samples(case.target, 2),
    ]
    if name:
        queries += [
            infer.marginal_map(case.target, name),
            infer.entropy(case.target, name),
            infer.expectation(case.target, name, torch.zeros(case.sizes(name))),
        ]
    for query in queries:
        with pytest.raises(ImpossibleEvidenceError):
            query()


CHECKS: tuple[Callable[[Case], None], ...] = (
    log_evidence,
    marginals,
    joint_marginals,
    factor_beliefs,
    entropy,
    mutual_information,
    expectation,
    map_assignment,
    k_best,
    max_marginals,
    marginal_map,
    posterior_samples,
    gradients,
    gradients_of_maxima,
    second_derivatives,
    rows,
)

WITHOUT_GRADIENTS = (log_evidence, marginals, joint_marginals, expectation, posterior_samples, rows)
"""Those whose queries have quicker ways where no gradient is wanted."""
