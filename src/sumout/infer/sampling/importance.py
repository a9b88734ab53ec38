"""Importance sampling, with the discrete sites of the model summed out in the weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Message, Messenger, Trace
from sumout.effects.handlers import BlockMessenger, ReplayMessenger, trace
from sumout.effects.handlers.named import unused_names_allowed
from sumout.effects.handlers.sequential import is_sequential
from sumout.effects.random_state import kept_rng_state
from sumout.effects.steps import is_lookback, names_in_loop
from sumout.effects.trace import sample_sites, site_is_subsample
from sumout.errors import EnumerationError, ModelError
from sumout.factors import Factor, FactorGraph
from sumout.infer.collapsing.marked import with_marked_sites_collapsed
from sumout.infer.programs.graphs import graph_of_run, refuse_powers
from sumout.infer.programs.program import EnumeratedProgram, Rehearsal, check_declared, plate_nesting
from sumout.infer.programs.sequential import sequential_runs
from sumout.infer.rows.batched import BatchedGraph
from sumout.infer.rows.weights import weight_factors
from sumout.infer.sampling.given import GivenMarked, refuse_extra, refuse_given
from sumout.infer.sampling.influence import runs_along_values
from sumout.infer.sampling.plates import SAMPLES, SamplePlate, decisions_told, samples_first
from sumout.infer.sampling.posterior import check_program
from sumout.infer.sampling.weighted import WeightedSamples
from sumout.infer.solving.solve import plan_for, solve

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


class Importance:
    """Draws from a guide and weights the draws so that they stand for the posterior.

    Discrete sites of finite support that the guide does not draw are summed out exactly in the weights, but for those
    marked ``infer={"enumerate": None}``. Summing out never raises the variance of the weights (Rao-Blackwell).
    Other latent sites that the guide lacks are drawn from the prior.

    Log-probabilities of both programs are scaled and masked as in an ELBO: a drawn site in a subsampled plate has the
    weight ``(p / q)**(size / subsample_size)``, for all the elements that it stands for. The logarithm of a weight is
    then right on average over subsamples, and the mean weight no unbiased estimate of the evidence.

    Args:
        model: a program.
        guide: a program with the same arguments; the model itself, without its observations, if ``None``.
        num_samples: how many draws.
        parallel: whether all are taken in one run, along a dimension left of the plates; see ``Predictive``.
        max_plate_nesting: tensor dimensions that the plates of model and guide take up; found if ``None``.
        enumeration: how sites without a mark are enumerated, as in ``log_evidence``.

    Raises:
        ModelError: if ``model`` or ``guide`` is no function, or ``num_samples`` no positive number.

    >>> import sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     loc = sumout.sample("loc", dist.Normal(0.0, 1.0))
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Normal(loc + z, 1.0), obs=x)
    >>> def guide(x):
    ...     sumout.sample("loc", dist.Normal((x - 0.5) / 2, 1.0))
    >>> drawn = Importance(model, guide, num_samples=1000).run(torch.tensor(1.0))
    >>> each = dist.Normal(torch.tensor([0.0, 1.0]), 2**0.5).log_prob(torch.tensor(1.0))
    >>> bool((drawn.log_evidence - each.exp().mean().log()).abs() < 0.1), bool(drawn.ess > 500), drawn.psis.reliable
    (True, True, True)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any] | None = None,
        num_samples: int = 1000,
        *,
        parallel: bool = True,
        max_plate_nesting: int | None = None,
        enumeration: str = "parallel",
    ) -> None:
        check_program(model, "Importance")
        if guide is not None:
            check_program(guide, "Importance")
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
            raise ModelError(f"num_samples is {num_samples!r}: it is a whole number of at least 1.")
        self.model = model
        self._collapsed = with_marked_sites_collapsed(model)
        self.guide = guide
        self.num_samples = num_samples
        self.parallel = parallel
        self._replay = ReplayMessenger(trace=Trace())
        self._replay.reports_unused = False  # refuse_extra tells more
        self.enumeration = enumeration
        self._around: Messenger | None = None
        self.max_plate_nesting = max_plate_nesting

    def run(self, *args: Any, **kwargs: Any) -> WeightedSamples:
        """Draws and weights, for the arguments of model and guide.

        Raises:
            EnumerationError: if a latent site that neither the guide draws nor is summed out depends on one that is
                summed out; and as ``log_evidence``.
            ModelError: if a handler gives a latent site a value (``replay``), which is no draw; if the guide draws a
                site that the model lacks, other than an auxiliary one; if a weight is NaN.
            PlanError, MemoryLimitError: as ``log_evidence``.
        """
        single = self._single(args, kwargs)
        if self.max_plate_nesting is None:
            self.max_plate_nesting = max(plate_nesting(each) for each in single)
        if self.parallel:
            with decisions_told():
                return self._weighted(self.num_samples, single[0], args, kwargs)
        runs = [self._weighted(None, single[0], args, kwargs) for _ in range(self.num_samples)]
        values = {name: torch.cat([run.samples[name] for run in runs]) for name in runs[0].samples}
        return WeightedSamples(values, torch.cat([run.log_weights for run in runs]), runs[0].auxiliary)

    def _single(self, args: Args, kwargs: Kwargs) -> tuple[Trace, Trace]:
        """A trial run of the guide and one of the model."""
        with kept_rng_state(), BlockMessenger(), Rehearsal(), unused_names_allowed(), torch.no_grad():
            guide = trace(self.guide or self._collapsed).get_trace(*args, **kwargs)
            model = trace(ReplayMessenger(trace=_latent(guide))(self._collapsed)).get_trace(*args, **kwargs)
        for each in (guide, model):
            check_declared(each)
        return guide, model

    def _weighted(self, count: int | None, single: Trace, args: Args, kwargs: Kwargs) -> WeightedSamples:
        """Draws and weights from one run: of all samples at once, or (``None``) of a single one."""
        assert self.max_plate_nesting is not None
        nesting = self.max_plate_nesting + (count is not None)
        dim = None if count is None else -nesting
        if self._around is None:
            self._around = Messenger() if count is None else SamplePlate(count, -nesting)
            # One object, by which checks are remembered.
            self._program = self._around(GivenMarked()(self._replay(self._collapsed)))
            self._guide = self._around(GivenMarked()(self.guide or self._collapsed))
        guide = _latent(trace(self._guide).get_trace(*args, **kwargs))
        if self.guide is None:  # The prior draws what cannot be summed out.
            for name in [name for name, site in guide.nodes.items() if _is_finite(site)]:
                guide.remove_node(name)
        for site in sample_sites(guide):
            refuse_given(site)
        self._replay.trace = guide
        program = EnumeratedProgram(self._program, nesting, self.enumeration)
        runs = sequential_runs(lambda: graph_of_run(program, args, kwargs, refuse=False))
        if len(runs) > 1:
            refuse_powers([(run.result[0], run.sites) for run in runs], "importance sampling")
        of_runs = []
        for run in runs:
            graph, model = run.result
            refuse_extra(guide, model)
            touched = {
                factor.name
                for factor in graph.factors
                if not graph.variables.keys().isdisjoint(factor.inputs)
            }
            touched.update(factor.name for factor in weight_factors(graph))
            logs: list[Tensor] = []
            for site in sample_sites(model):
                if is_lookback(site):
                    continue
                depends = runs_along_values(site) or not touched.isdisjoint(names_in_loop(site))
                if _is_from_prior(site, guide):
                    refuse_given(site)
                    if depends or len(runs) > 1:
                        raise _undrawn(site)
                elif not depends:
                    logs.append(_of_samples(site, dim))
            if graph.variables:
                logs.append(_log_sums(graph, touched, count))
            of_runs.append(_sum(logs))
        logs = [torch.logsumexp(_stacked(of_runs), 0)]
        logs += [-_of_samples(site, dim) for site in sample_sites(guide)]
        total = _sum(logs)
        if total.isnan().any():
            raise ModelError(
                "A weight is NaN: a log-probability of the model or the guide is not a number, or both are infinite. "
                "Look for parameters that are not numbers, and for values at the edge of a support."
            )
        samples = {}
        for name, site in guide.nodes.items():
            if not site.infer.get("_deterministic") and not site_is_subsample(site):
                shape = torch.as_tensor(single.nodes[name].value).shape
                samples[name] = samples_first(name, site.value, 1 if count is None else count, shape)
        auxiliary = [name for name in samples if guide.nodes[name].infer.get("is_auxiliary")]
        return WeightedSamples(samples, total.reshape(1) if count is None else total.expand(count), auxiliary)


def _latent(run: Trace) -> Trace:
    """The latent sites of a guide's run."""
    found = run.copy()
    for name, site in run.nodes.items():
        if site.type != "sample" or site.is_observed:
            found.remove_node(name)
    return found


def _is_finite(site: Message) -> bool:
    left_out = "enumerate" in site.infer and site.infer["enumerate"] is None
    listed = getattr(site.plain_fn, "has_enumerate_support", False) or "truncate" in site.infer
    return bool(listed) and not left_out


def _is_from_prior(site: Message, guide: Trace) -> bool:
    """Whether the model drew the value."""
    if site.is_observed or site.enum_dim is not None or is_sequential(site):
        return False
    return not any(name in guide.nodes for name in (site.name, *names_in_loop(site)))


def _undrawn(site: Message) -> EnumerationError:
    return EnumerationError(
        f"Site {site.name!r} is drawn from the prior, as the guide lacks it and it has no finite support, and depends "
        "on sites that are summed out. Draw it in the guide."
    )


def _of_samples(site: Message, dim: int | None) -> Tensor:
    """A site's log-probability in each sample."""
    logs: Tensor = site["log_prob"]
    if dim is None or logs.dim() < -dim:
        return logs.sum()
    return logs.movedim(dim, 0).flatten(1).sum(1) if logs.dim() > 1 else logs


def _sum(logs: list[Tensor]) -> Tensor:
    return _stacked(logs).sum(0) if logs else torch.zeros(())


def _stacked(logs: list[Tensor]) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*logs))  # type: ignore[no-untyped-call]


def _log_sums(graph: FactorGraph, names: Collection[str], count: int | None) -> Tensor:
    """The logarithm of the sum over all variables of the product of the named factors, for each sample."""
    factors = [factor for factor in graph.factors if factor.name in names]
    if count is None:
        return solve(FactorGraph(tuple(factors), graph.variables, graph.plates, graph.states)).value
    within = [replace(factor, plates=factor.plates - {SAMPLES}) for factor in factors]
    variables = {
        name: replace(variable, plates=variable.plates - {SAMPLES})
        for name, variable in graph.variables.items()
    }
    plates = {name: plate for name, plate in graph.plates.items() if name != SAMPLES}
    batched = BatchedGraph(tuple(within), variables, plates, graph.states, {SAMPLES: count})
    plan = plan_for(batched, backward=True)
    if not plan.unrolled and not plan.sliced:
        return solve(batched, plan=plan).value.expand(count)
    one_by_one = []
    for number in range(count):
        own = tuple([_at(factor, number) for factor in within])
        one_by_one.append(solve(FactorGraph(own, variables, plates, graph.states)).value)
    return torch.stack(one_by_one)


def _at(factor: Factor, number: int) -> Factor:
    if SAMPLES not in factor.inputs:
        return factor
    place = factor.inputs.index(SAMPLES)
    inputs = tuple([name for name in factor.inputs if name != SAMPLES])
    return replace(factor, inputs=inputs, data=factor.data.select(place, number))
