"""Answers for programs that are run many times, once for each joint value of their sequential sites, put together.

The evidence is the sum of the runs' evidences, which are the runs' weights. What a run may lack, because a decision
went another way, is answered given that it is there: a marginal is a mixture over the runs that have the site, and
``presence`` is the probability of these.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Message
from sumout.effects.steps import without_steps
from sumout.errors import EnumerationError, EvidenceError
from sumout.execute import MAX_SUM, Result
from sumout.factors import FactorGraph
from sumout.infer.answers.readout import distribution_of, latent_sites, site_value, site_values, table_of
from sumout.infer.answers.result import Assignment, Marginals, PosteriorSamples
from sumout.infer.collapsing.asked import InRun, posteriors, sought_of
from sumout.infer.collapsing.results import Group, best_values, groups_of, left_out, maximised
from sumout.infer.programs.graphs import ProgramGraph, graph_of_trace, scale_of_runs
from sumout.infer.queries.gathered import Gathered, check_alike
from sumout.infer.queries.question import (
    check_names,
    group_of,
    refuse_impossible,
    refuse_nan,
)
from sumout.infer.rows.weights import for_maxima
from sumout.infer.solving.solve import plan_for, sample, solve
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
    scale = _scale(runs)
    return torch.logsumexp(_values(runs, scale), 0) * scale


def marginals_of_runs(runs: Runs, wanted: tuple[Readout, ...] | None) -> Marginals:
    """Mixtures of the runs' marginals."""
    sites = all_sites(runs)
    collapsed = dict.fromkeys([name for run in runs for name in groups_of(run.trace)])
    runs = possible_runs(runs)
    groups = [groups_of(run.trace) for run in runs]
    _check_kinds(sites, collapsed)
    asked: tuple[Readout, ...] = (*sites, *collapsed) if wanted is None else wanted
    check_names([*sites, *collapsed], [name for each in asked for name in group_of(each)])
    check_names(sites, [each for each in asked if collapsed.keys().isdisjoint(group_of(each))], sites)
    results: list[Result] = []
    tables_of_runs: list[dict[Readout, Tensor]] = []
    sought_of_runs: list[dict[Readout, Any]] = []
    for run, of_run in zip(runs, groups, strict=True):
        here = [each for each in asked if all(_has(run, name) for name in group_of(each))]
        summed = {each: _summed_out(run, each) for each in here}
        of_groups = [each for each in asked if _is_there(run, of_run, each)]
        sought = {each: found for each in of_groups if (found := sought_of(of_run, each)) is not None}
        needed = [found.readout for found in sought.values() if found.readout]
        readouts = list(dict.fromkeys([*[inner for inner in summed.values() if inner], *needed]))
        result = solve(run.graph, marginals=readouts)
        latent = latent_sites(run.trace) if run.trace is not None else {}
        found_here: dict[Readout, Tensor] = {}
        for each, inner in summed.items():
            table = table_of(latent, inner, result.marginal(inner)) if inner else None
            found_here[each] = _with_sequential(run, each, inner, table, result.value.dtype)
        results.append(result)
        tables_of_runs.append(found_here)
        sought_of_runs.append(sought)
    scale = _scale(runs)
    values = torch.stack([result.value for result in results]) / scale
    weights = torch.softmax(values, 0)
    integrated: dict[Readout, list[InRun]] = {}
    tables: dict[Readout, Tensor] = {}
    presence: dict[Readout, Tensor] = {}
    for weight, result, found_here, sought in zip(
        weights, results, tables_of_runs, sought_of_runs, strict=True
    ):
        for each, one in sought.items():
            integrated.setdefault(each, []).append(InRun(one, result.marginal, weight))
            presence[each] = presence.get(each, 0.0) + weight
        for each, table in found_here.items():
            tables[each] = weight * table if each not in tables else _sum(each, tables[each], weight * table)
            presence[each] = presence.get(each, 0.0) + weight
    for each in asked:
        if each in tables:
            tables[each] = tables[each] / presence[each]
        elif wanted is not None and each not in integrated:
            raise EvidenceError(
                f"{each!r} is only in runs that the observations rule out, so it has no posterior."
            )
    heaviest = int(weights.argmax())
    graph, plan = runs[heaviest].graph, results[heaviest].plan
    tables = {each: tables[each] for each in asked if each in tables}
    evidence = torch.logsumexp(values, 0) * scale
    continuous, unknown = posteriors(integrated)
    if wanted is not None:
        for refuse in unknown.values():
            refuse()
    wrap = partial(distribution_of, graph, sites)
    answer = MixedMarginals(tables, wrap, plan, graph.states, evidence, continuous, unknown)
    answer.presence = presence
    return answer


def possible_runs(runs: Runs) -> list[ProgramGraph]:
    """The runs that the observations leave a share of the evidence.

    Raises:
        ImpossibleEvidenceError: if there is none.
    """
    with torch.no_grad():
        values = _values(runs, _scale(runs))
    refuse_impossible(runs[0].graph, torch.logsumexp(values, 0))
    return [run for run, weight in zip(runs, torch.softmax(values, 0).tolist(), strict=True) if weight > 0]


def entropy_of_runs(runs: Runs, of_graph: Callable[[FactorGraph], tuple[Tensor, Tensor]]) -> Tensor:
    """The entropy of all hidden variables: that of which run it is, and the mean of what the runs do not know.

    Args:
        runs: no two have the same values of sequential sites.
        of_graph: the entropy of a run's graph and its log-evidence.
    """
    found = [of_graph(run.graph) for run in possible_runs(runs)]
    logs = torch.log_softmax(torch.stack([value for _, value in found]), 0)
    return (logs.exp() * (torch.stack([each for each, _ in found]) - logs)).sum()


def map_of_runs(runs: Runs) -> Assignment:
    """The best assignment of the best run."""
    _scale(runs)
    groups = [groups_of(run.trace) for run in runs]
    graphs = [
        graph_of_trace(maximised(run.trace)) if of_run and run.trace is not None else run.graph
        for run, of_run in zip(runs, groups, strict=True)
    ]
    results = [solve(for_maxima(graph), MAX_SUM) for graph in graphs]
    values = torch.stack([result.value for result in results])
    refuse_impossible(runs[0].graph, values.amax())
    best = int(values.argmax())
    run, result = runs[best], results[best]
    sites = latent_sites(run.trace) if run.trace is not None else {}
    chosen = {name: site_value(sites[name], result.assignment[name]) for name in run.graph.variables}
    chosen |= {name: site.value for name, site in run.sites.items()}
    chosen |= best_values(groups[best], result.assignment) if groups[best] else {}
    states = run.graph.states
    found = Assignment(chosen, result.plan, states, result.value, lambda: log_evidence_of_runs(runs))
    found.left_out = left_out(groups[best])
    return found


def samples_of_runs(
    runs: Runs,
    num_samples: int,
    generator: torch.Generator | None,
    check_memory: Callable[[Any, int], None],
    collapsed_draws: Callable[..., tuple[dict[str, Tensor], Tensor | float]],
) -> PosteriorSamples:
    """Samples of runs, by their weights, of what each enumerates in parallel, and of what it integrated out."""
    scale = _scale(runs)
    values = _values(runs, scale)
    total = torch.logsumexp(values, 0)
    refuse_impossible(runs[0].graph, total)
    weights = torch.softmax(values.double(), 0)
    chosen = torch.multinomial(weights, num_samples, replacement=True, generator=generator)
    together = Gathered(num_samples, all_sites(runs))
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
        sites = latent_sites(run.trace) if run.trace is not None else {}
        here = {name: site_values(sites[name], found.choices[name]) for name in run.graph.variables}
        here |= {name: site.value.expand(len(where), *site.value.shape) for name, site in run.sites.items()}
        collapsed, density = collapsed_draws(
            run=run.trace, count=len(where), discrete=here, choices=found.choices
        )
        log_prob[where] = found.log_prob + density + (values[number] - total)
        together.put(where, {**here, **collapsed})
    answer = MixedSamples(together.values, plans[0], {}, log_prob, total * scale)
    answer.present = together.present
    return answer


def _scale(runs: Runs) -> float:
    """The power that the sum over runs is raised to."""
    return scale_of_runs([(run.graph, run.sites) for run in runs])


def _values(runs: Runs, scale: float) -> Tensor:
    """The logarithm of what each run adds to the sum that is raised to a power."""
    values = [solve(run.graph).value for run in runs]
    for run, value in zip(runs, values, strict=True):
        refuse_nan(run.graph, value)
    return torch.stack(values) / scale


def all_sites(runs: Runs) -> dict[str, Message]:
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


def _is_there(run: ProgramGraph, groups: Mapping[str, Group], each: Readout) -> bool:
    """Whether a run has all of some sites, collapsed ones among them."""
    names = group_of(each)
    return all(name in groups or _has(run, name) for name in names) and not groups.keys().isdisjoint(names)


def _check_kinds(sites: Mapping[str, Message], collapsed: Collection[str]) -> None:
    """Refuses a name that is a discrete site in one run and one that is integrated out in another."""
    for name in sites:
        if name in collapsed:
            raise EnumerationError(
                f"{name!r} is a discrete site in one run of the program and integrated out in another, so there is no "
                "one answer for it. Give them different names."
            )


def _summed_out(run: ProgramGraph, each: Readout) -> Readout | None:
    """What is asked of the run's graph: without the sites that have one value in it."""
    if isinstance(each, str):
        return each if each in run.graph.variables else None
    names = tuple(name for name in each if name in run.graph.variables)
    return names[0] if len(names) == 1 else names or None


def certain(site: Message) -> Tensor:
    """True for the state that a sequential site has: shape ``(*batch, states)``."""
    single = without_steps(site)
    support: Tensor = single.plain_fn.enumerate_support(expand=False)
    support = support.reshape(len(support), *single.plain_fn.event_shape)
    value = site.value.unsqueeze(site.value.ndim - single.plain_fn.event_dim)
    same: Tensor = value == support
    return same.flatten(-single.plain_fn.event_dim).all(-1) if single.plain_fn.event_dim else same


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
            sure = certain(run.sites[name]).to(result.dtype)
            batch, other = result.shape[: result.ndim - len(have)], sure.shape[:-1]
            rank = max(len(batch), len(other))
            result = result.reshape(*[1] * (rank - len(batch)), *result.shape, 1)
            sure = sure.reshape(*[1] * (rank - len(other)), *other, *[1] * len(have), sure.shape[-1])
            result = result * sure
            have.append(name)
    batch_rank = result.ndim - len(have)
    return result.permute([*range(batch_rank), *(batch_rank + have.index(name) for name in names)])


def _sum(each: Readout, one: Tensor, other: Tensor) -> Tensor:
    check_alike(each, one.shape, other.shape)
    return one + other
