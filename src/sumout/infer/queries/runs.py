"""Answers for programs that are run many times, once for each joint value of their sequential sites, put together.

The evidence is the sum of the runs' evidences, which are the runs' weights. What a run may lack, because a decision
went another way, is answered given that it is there: a marginal is a mixture over the runs that have the site, and
``presence`` is the probability of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Message
from sumout.effects.steps import without_steps
from sumout.errors import EnumerationError, EvidenceError
from sumout.execute import MAX_SUM
from sumout.infer.answers.readout import distribution_of, latent_sites, site_value, site_values, table_of
from sumout.infer.answers.result import Assignment, Marginals, PosteriorSamples
from sumout.infer.collapsing.results import best_values, draws_of, groups_of, maximised
from sumout.infer.programs.graphs import ProgramGraph
from sumout.infer.queries.question import (
    check_names,
    group_of,
    refuse_continuous,
    refuse_impossible,
    refuse_nan,
)
from sumout.infer.solving.solve import plan_for, sample, solve
from sumout.lower import lower
from sumout.plan.structure import Readout

Runs = Sequence[ProgramGraph]


class MixedMarginals(Marginals):
    """``Marginals`` of which some may be those of sites that only some runs have.

    ``presence`` has for each name, or group of names, the posterior probability that the program has it; the marginal
    is that given that it does.
    """

    presence: Mapping[Readout, Tensor]


class MixedSamples(PosteriorSamples):
    """``PosteriorSamples`` of which some may lack sites.

    ``present`` has for each name which samples have it, shape ``(samples,)``. Where they do not, the value is NaN, or
    -1 for integers.
    """

    present: Mapping[str, Tensor]


def log_evidence_of_runs(runs: Runs) -> Tensor:
    """The logarithm of the sum of the runs' evidences."""
    return torch.logsumexp(_values(runs), 0)


def marginals_of_runs(runs: Runs, wanted: tuple[Readout, ...] | None) -> Marginals:
    """Mixtures of the runs' marginals."""
    with torch.no_grad():
        values = _values(runs)
    total = torch.logsumexp(values, 0)
    refuse_impossible(runs[0].graph, total)
    weights = torch.softmax(values, 0)
    sites = _all_sites(runs)
    for run in runs:
        refuse_continuous(
            run.trace, () if wanted is None else [name for each in wanted for name in group_of(each)]
        )
    asked: tuple[Readout, ...] = tuple(sites) if wanted is None else wanted
    check_names(sites, asked, sites)
    tables: dict[Readout, Tensor] = {}
    presence: dict[Readout, Tensor] = {}
    heaviest = int(weights.argmax())
    evidences = []
    for number, run in enumerate(runs):
        if weights[number] == 0:
            continue
        here = [each for each in asked if all(_has(run, name) for name in group_of(each))]
        summed = {each: _summed_out(run, each) for each in here}
        readouts = list(dict.fromkeys([inner for inner in summed.values() if inner]))
        result = solve(run.graph, marginals=readouts)
        evidences.append(result.value)
        if number == heaviest:
            plan = result.plan
        of_run = latent_sites(run.trace) if run.trace is not None else {}
        for each in here:
            inner = summed[each]
            table = table_of(of_run, inner, result.marginal(inner)) if inner else None
            table = weights[number] * _with_sequential(run, each, inner, table, weights.dtype)
            tables[each] = table if each not in tables else _sum(each, tables[each], table)
            presence[each] = presence.get(each, 0.0) + weights[number]
    for each in asked:
        if each in tables:
            tables[each] = tables[each] / presence[each]
        elif wanted is not None:
            raise EvidenceError(
                f"{each!r} is only in runs that the observations rule out, so it has no posterior."
            )
    graph = runs[heaviest].graph
    tables = {each: tables[each] for each in asked if each in tables}
    evidence = torch.logsumexp(torch.stack(evidences), 0)
    found = MixedMarginals(tables, partial(distribution_of, graph, sites), plan, graph.states, evidence)
    found.presence = presence
    return found


def map_of_runs(runs: Runs) -> Assignment:
    """The best assignment of the best run."""
    _check_scales(runs)
    groups = [groups_of(run.trace) for run in runs]
    graphs = [
        lower(maximised(run.trace)) if of_run and run.trace is not None else run.graph
        for run, of_run in zip(runs, groups, strict=True)
    ]
    results = [solve(graph, MAX_SUM) for graph in graphs]
    values = torch.stack([result.value for result in results])
    refuse_impossible(runs[0].graph, values.amax())
    best = int(values.argmax())
    run, result = runs[best], results[best]
    sites = latent_sites(run.trace) if run.trace is not None else {}
    chosen = {name: site_value(sites[name], result.assignment[name]) for name in run.graph.variables}
    chosen |= {name: site.value for name, site in run.sites.items()}
    chosen |= best_values(groups[best].values(), result.assignment) if groups[best] else {}
    return Assignment(chosen, result.plan, run.graph.states, result.value, lambda: log_evidence_of_runs(runs))


def samples_of_runs(
    runs: Runs,
    num_samples: int,
    generator: torch.Generator | None,
    check_memory: Callable[[Any, int], None],
) -> PosteriorSamples:
    """Samples of runs, by their weights, and of what each enumerates in parallel."""
    values = _values(runs)
    total = torch.logsumexp(values, 0)
    refuse_impossible(runs[0].graph, total)
    weights = torch.softmax(values.double(), 0)
    chosen = torch.multinomial(weights, num_samples, replacement=True, generator=generator)
    drawn: dict[str, Tensor] = {}
    present = {name: torch.zeros(num_samples, dtype=torch.bool) for name in _all_sites(runs)}
    log_prob = values.new_zeros(num_samples)
    plans = []
    for number, run in enumerate(runs):
        where = (chosen == number).nonzero().squeeze(-1)
        if not len(where):
            continue
        plan = plan_for(run.graph, backward=True)
        plans.append(plan)
        check_memory(run.graph, len(where))
        found = sample(run.graph, len(where), generator, plan=plan)
        collapsed, density = draws_of(groups_of(run.trace).values(), len(where), found.choices, generator)
        log_prob[where] = found.log_prob + density + (values[number] - total)
        sites = latent_sites(run.trace) if run.trace is not None else {}
        here = {name: site_values(sites[name], found.choices[name]) for name in run.graph.variables}
        here |= {name: site.value.expand(len(where), *site.value.shape) for name, site in run.sites.items()}
        for name, each in {**here, **collapsed}.items():
            if name not in present:
                present[name] = torch.zeros(num_samples, dtype=torch.bool)
            if name not in drawn:
                absent = float("nan") if each.is_floating_point() else -1
                drawn[name] = each.new_full((num_samples, *each.shape[1:]), absent)
            _check_alike(name, drawn[name].shape[1:], each.shape[1:])
            drawn[name][where] = each
            present[name][where] = True
    answer = MixedSamples(
        {name: drawn[name] for name in present if name in drawn}, plans[0], {}, log_prob, total
    )
    answer.present = present
    return answer


def _values(runs: Runs) -> Tensor:
    """The logarithm of each run's evidence."""
    _check_scales(runs)
    values = [solve(run.graph).value for run in runs]
    for run, value in zip(runs, values, strict=True):
        refuse_nan(run.graph, value)
    return torch.stack(values)


def _check_scales(runs: Runs) -> None:
    """A power of a sum is no sum of powers."""
    for run in runs:
        scaled = [name for name, site in run.sites.items() if not _is_one(site.scale)]
        scaled += [factor.name for factor in run.graph.factors if factor.scale != 1]
        if scaled:
            raise EnumerationError(
                f"Site {scaled[0]!r} has a scale, and sites are enumerated sequentially ({', '.join(run.sites)}): "
                "powers of what each run contributes are not those of the sum. Take the scale away, or enumerate in "
                "parallel."
            )


def _is_one(scale: Any) -> bool:
    return bool((torch.as_tensor(scale) == 1).all())


def _all_sites(runs: Runs) -> dict[str, Message]:
    """All sites that are summed out, by the names of their variables, in the order in which they are met."""
    found: dict[str, Message] = {}
    for run in runs:
        of_run = {**run.sites, **(latent_sites(run.trace) if run.trace is not None else {})}
        order = [name for name in (run.trace.nodes if run.trace is not None else ()) if name in of_run]
        for name in dict.fromkeys([*order, *of_run]):
            found.setdefault(name, of_run[name])
    return found


def _has(run: ProgramGraph, name: str) -> bool:
    return name in run.graph.variables or name in run.sites


def _summed_out(run: ProgramGraph, each: Readout) -> Readout | None:
    """What is asked of the run's graph: without the sites that have one value in it."""
    if isinstance(each, str):
        return each if each in run.graph.variables else None
    names = tuple(name for name in each if name in run.graph.variables)
    return names[0] if len(names) == 1 else names or None


def _with_sequential(
    run: ProgramGraph, each: Readout, inner: Readout | None, table: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The table with a dimension of states for each name, those of sequential sites being certain."""
    if inner == each and table is not None:
        return table
    names = group_of(each)
    have = [] if inner is None else [*group_of(inner)]
    result = torch.ones((), dtype=dtype) if table is None else table
    for name in names:
        if name in run.sites:
            certain = _certain(run.sites[name]).to(result.dtype)
            batch, other = result.shape[: result.ndim - len(have)], certain.shape[:-1]
            rank = max(len(batch), len(other))
            result = result.reshape(*[1] * (rank - len(batch)), *result.shape, 1)
            certain = certain.reshape(*[1] * (rank - len(other)), *other, *[1] * len(have), certain.shape[-1])
            result = result * certain
            have.append(name)
    batch_rank = result.ndim - len(have)
    return result.permute([*range(batch_rank), *(batch_rank + have.index(name) for name in names)])


def _certain(site: Message) -> Tensor:
    """True for the state that the site has: shape ``(*batch, states)``."""
    single = without_steps(site)
    support: Tensor = single.plain_fn.enumerate_support(expand=False)
    support = support.reshape(len(support), *single.plain_fn.event_shape)
    value = site.value.unsqueeze(site.value.ndim - single.plain_fn.event_dim)
    same: Tensor = value == support
    return same.flatten(-single.plain_fn.event_dim).all(-1) if single.plain_fn.event_dim else same


def _sum(each: Readout, one: Tensor, other: Tensor) -> Tensor:
    _check_alike(each, one.shape, other.shape)
    return one + other


def _check_alike(each: Readout, one: Sequence[int], other: Sequence[int]) -> None:
    if tuple(one) != tuple(other):
        raise EnumerationError(
            f"{each!r} has shape {tuple(one)} in one run of the program and {tuple(other)} in another, so there is no "
            "one answer for it. Give sites with other values or plates other names."
        )
