"""The evidence lower bound by tensor Monte Carlo: all combinations of several samples of each site."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor

from sumout.effects import Message, Trace
from sumout.effects.enumerate_site import DIAGONAL
from sumout.effects.steps import is_lookback, names_in_loop
from sumout.effects.trace import sample_sites
from sumout.errors import EnumerationError
from sumout.factors import Factor, FactorGraph, Variable
from sumout.infer.objectives.components import model_terms
from sumout.infer.objectives.elbo import ELBO
from sumout.infer.objectives.expectation import expectation
from sumout.infer.objectives.guide_run import GuideRun, Score, is_sampled, places_of, run_of_draws, score_of
from sumout.infer.objectives.pair import (
    Args,
    Kwargs,
    Program,
    collisions_told,
    is_decision,
    trace_guide,
    trace_model,
)
from sumout.infer.objectives.terms import Table
from sumout.lower import lower


class TraceTMC_ELBO(ELBO):
    """``E[log Ẑ]``, where ``Ẑ`` is the mean of ``p / q`` over all combinations of the samples of each site.

    Sites of the guide (and of the model, where the guide lacks them) that are marked
    ``infer={"enumerate": "parallel", "num_samples": K}`` (see ``config_enumerate``) are drawn ``K`` times, along a
    dimension of their own; those that are marked without a number are summed out exactly; the others are drawn once.
    With ``n`` sites, ``K ** n`` combinations are added up, by elimination. ``Ẑ`` is an unbiased estimate of the
    evidence, so that its logarithm is a lower bound in the mean, and a tighter one the larger ``K`` is.

    A site that depends on others is drawn given their samples, one by one (``tmc="diagonal"``) or given ones that are
    chosen for each (``"mixture"``); what its samples are divided by is the density of the mixture that they come from.
    With ``expand=True`` it has ``K`` samples for each combination of theirs. Gradients are pathwise, and by score
    functions for sites without. The arguments are those of ``ELBO``.

    The methods raise ``EnumerationError`` for a site of the guide that is drawn several times and that the model lacks;
    what ``lower`` and ``make_plan`` raise; ``MemoryLimitError`` before anything is allocated.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     z = sumout.sample("z", dist.Normal(0.0, 1.0))
    ...     sumout.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> @sumout.infer.config_enumerate(num_samples=1000)
    ... def guide(x):
    ...     sumout.sample("z", dist.Normal(x / 2, 1.0))
    >>> loss = TraceTMC_ELBO().loss(model, guide, torch.tensor(1.0))
    >>> exact = -dist.Normal(0.0, 2**0.5).log_prob(torch.tensor(1.0))
    >>> bool(abs(loss - exact) < 0.1)
    True

    Source: Aitchison, *Tensor Monte Carlo: particle methods for the GPU era* (2019), eqs. 6 and 15.
    """

    _needs_nesting = True

    def _estimate(
        self, model: Program, guide: Program, args: Args, kwargs: Kwargs, nesting: int | None
    ) -> Tensor:
        first = -1 - (nesting or 0)
        with collisions_told(model, guide, args, kwargs, nesting or 0), _decisions_told():
            guide_trace = trace_guide(guide, args, kwargs, first)
            model_trace = trace_model(model, guide_trace, args, kwargs, first)
        drawn = run_of_draws(guide_trace.trace)
        places = places_of(model_trace)
        graph, scores = _weights_graph(model_trace, guide_trace.trace, drawn, places)
        run = drawn._replace(scores=[*drawn.scores, *scores])
        terms = model_terms(graph, run, places, apart=bool(run.scores))
        return expectation([*terms, *run.terms], run, graph.plates, places)


@contextmanager
def _decisions_told() -> Iterator[None]:
    """Raises ``EnumerationError`` for torch's error of what Python decides on."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as error:
        if not is_decision(error):
            raise
        raise EnumerationError(
            "Python decides on a value that a site has many of at once (if, while, and, or, not, bool(), item(), an "
            "index of a list). Draw the site once (infer={'enumerate': None}), use torch.where, or use TraceEnum_ELBO, "
            "with infer={'enumerate': 'auto'} for sites of finite support."
        ) from error


def _weights_graph(
    model: Trace, guide: Trace, drawn: GuideRun, places: Mapping[str, int]
) -> tuple[FactorGraph, list[Score]]:
    """The graph whose sum is the estimate of the evidence, and the scores of sites that are drawn without
    derivatives."""
    proposed = _enumerated(guide)
    q = lower(proposed, sampled=True)
    lacking = [name for name in q.variables if name not in places]
    if lacking:
        raise EnumerationError(
            f"Site {lacking[0]!r} of the guide has several samples and is no site of the model, so that nothing "
            "tells how "
            "probable they are. Draw it once: infer={'enumerate': None, 'is_auxiliary': True}."
        )
    p = lower(model, q.variables, sampled=True)
    masked = lower(proposed, q.variables, sampled=True) if _has_masks(proposed) else q
    sites = {
        name: site for trace in (model, guide) for site in sample_sites(trace) for name in names_in_loop(site)
    }
    variables = {**p.variables, **q.variables}
    factors: list[Factor] = list(p.factors)
    scores: list[Score] = []
    for graph, of_masked, of_model in ((q, masked, False), (p, p, True)):
        for factor, of_cost in zip(graph.factors, of_masked.factors, strict=True):
            name = factor.name
            if name not in graph.variables or not is_sampled(sites[name]):
                continue
            draws = _Draws(sites[name], variables)
            factors.append(draws.divided_by(of_cost))
            where = places if of_model else drawn.places
            scores += draws.scores(factor, where[name], of_model)
    return FactorGraph(tuple(factors), variables, {**q.plates, **p.plates}), scores


class _Draws(NamedTuple):
    """The samples of one site."""

    site: Message
    variables: Mapping[str, Variable]

    def divided_by(self, log_q: Factor) -> Factor:
        """A factor that makes a mean of the sum over the samples, each divided by how probable it was."""
        mixed = self._of_mixture(log_q)
        count = self.variables[log_q.name].size
        names, data = mixed
        if log_q.name not in names:  # All samples are as probable, as they are all masked.
            names, data = (log_q.name, *names), data.unsqueeze(0).expand(count, *data.shape)
        return Factor(f"1/{log_q.name}", names, -data - math.log(count), log_q.plates, log_q.scale)

    def scores(self, log_q: Factor, place: int, of_model: bool) -> list[Score]:
        """The log-probability of all samples together, if its derivative stands for theirs."""
        if score_of(self.site) is None:
            return []
        names, data = self._of_own(log_q)
        summed = [at for at, name in enumerate(names) if name in self.variables]
        kept = tuple([name for name in names if name not in self.variables])
        table = Table(kept, data.sum(summed) if summed else data)
        return [Score(log_q.name, table, log_q.plates, place, of_model)]

    def _parents(self, factor: Factor) -> list[str]:
        return [name for name in factor.inputs if name in self.variables and name != factor.name]

    def _of_mixture(self, factor: Factor) -> Table:
        """The log-density that samples were drawn from, over the samples and what they were drawn for each of."""
        parents = self._parents(factor)
        table = Table(factor.inputs, factor.data)
        if not parents or self.site.infer.get("expand"):
            return table
        if self.site.infer.get("tmc", DIAGONAL) == DIAGONAL:
            table, parents = _diagonal(table, parents), parents[:1]
        dims = [table.names.index(name) for name in parents]
        count = math.prod(table.data.shape[dim] for dim in dims)
        names = tuple([name for name in table.names if name not in parents])
        return Table(names, table.data.logsumexp(dims) - math.log(count))

    def _of_own(self, factor: Factor) -> Table:
        """The log-density of each sample as it was drawn: given the samples of its parents that go with it."""
        parents = self._parents(factor)
        if not parents or self.site.infer.get("expand"):
            return Table(factor.inputs, factor.data)
        if self.site.infer.get("tmc", DIAGONAL) == DIAGONAL:
            return _diagonal(Table(factor.inputs, factor.data), [factor.name, *parents])
        return self._of_mixture(factor)


def _diagonal(table: Table, names: list[str]) -> Table:
    """The entries with one index for several names, along the first of them."""
    first = names[0]
    for other in names[1:]:
        one, two = table.names.index(first), table.names.index(other)
        data = table.data.diagonal(dim1=one, dim2=two)
        table = Table((*[name for name in table.names if name not in (first, other)], first), data)
    return table


def _enumerated(trace: Trace) -> Trace:
    found = Trace()
    for site in sample_sites(trace):
        if site.enum_dim is not None:
            found.nodes[site.name or ""] = site
    return found


def _has_masks(trace: Trace) -> bool:
    return any(site.mask is not None for site in trace.nodes.values() if not is_lookback(site))
