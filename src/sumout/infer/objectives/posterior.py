"""What the model's summed-out sites are, given the observations and a run of the guide: marginals and samples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Message, Messenger
from sumout.effects.handlers import ReplayMessenger
from sumout.effects.handlers.sequential import is_sequential
from sumout.effects.steps import assembled, names_in_loop
from sumout.effects.trace import sample_sites
from sumout.errors import EnumerationError, ImpossibleEvidenceError
from sumout.execute import Marginal
from sumout.infer.answers.readout import latent_sites, site_distribution, site_value, table_of
from sumout.infer.objectives.components import Component, component_of, groups, model_terms, totals_of_runs
from sumout.infer.objectives.expectation import weighted as weighted_by
from sumout.infer.objectives.guide_run import GuideRun
from sumout.infer.objectives.pair import Args, Kwargs, Program
from sumout.infer.objectives.runs import ModelRun, PairRun
from sumout.infer.objectives.terms import Table, union
from sumout.infer.programs.graphs import scale_of_runs
from sumout.infer.queries.gathered import check_alike
from sumout.infer.queries.runs import certain
from sumout.infer.rows.batched import element_of, elements_of
from sumout.infer.rows.weights import weighted
from sumout.infer.solving.solve import plan_for, sample, solve


def check_known(runs: Sequence[PairRun]) -> None:
    """Raises ``EnumerationError`` if the model draws a site from its prior, of which nothing is known then."""
    for run in runs:
        of_guide = {name for site in sample_sites(run.trace) for name in (site.name, *names_in_loop(site))}
        for site in [site for model in run.models for site in sample_sites(model.trace)]:
            drawn = site.enum_dim is None and not site.is_observed and not is_sequential(site)
            if drawn and of_guide.isdisjoint((site.name, *names_in_loop(site))):
                raise EnumerationError(
                    f"Site {site.name!r} of the model is latent and has no guide: it was drawn from its prior, and a "
                    "posterior given that draw says nothing. Give it a guide, observe it, or enumerate it if it is "
                    "discrete."
                )


class _Mixture:
    """Tables of probabilities of sites, each a sum over the runs that have the site."""

    def __init__(self) -> None:
        self.sites: dict[str, Message] = {}
        self._tables: dict[str, Tensor] = {}
        self._presence: dict[str, Tensor | float] = {}

    def add(self, name: str, site: Message, table: Tensor, presence: Tensor | float) -> None:
        """Adds a table of the shape that the site has; ``presence`` is what it sums to."""
        before = self._tables.get(name)
        if before is not None:
            check_alike(name, before.shape, table.shape)
        self.sites.setdefault(name, site)
        self._tables[name] = table if before is None else before + table
        self._presence[name] = self._presence.get(name, 0.0) + presence

    def distributions(self, order: Iterable[str]) -> dict[str, Any]:
        """A distribution for each site that some possible run has, given that it is there."""
        return {
            name: site_distribution(self.sites[name], self._tables[name] / self._presence[name])
            for name in order
            if name in self._tables and float(self._presence[name]) > 0
        }


def marginals_of(runs: Sequence[PairRun]) -> dict[str, Any]:
    """A distribution for each site that the model sums out, and for each that the guide enumerates.

    Those of the model are means over what the guide enumerates.

    Raises:
        ImpossibleEvidenceError: if the observations have probability zero where the guide goes.
    """
    check_known(runs)
    found, order = _Mixture(), dict[str, None]()
    for run in runs:
        of_run = run.guide.weights.joint(frozenset())  # of the guide's sites that have one of their values
        _add_guide(found, run, of_run.data.sum())
        shares = _shares(run)
        for number, model in enumerate(run.models):
            share = None if shares is None else Table(shares.names[1:], shares.data[number])
            _add_model(found, run.guide, model, share)
            latent = latent_sites(model.trace)
            order.update(
                dict.fromkeys([name for name in (*model.trace.nodes, *latent) if name in found.sites])
            )
    return found.distributions(order)


def _add_guide(found: _Mixture, run: PairRun, weight: Tensor) -> None:
    """The guide's own probabilities of what it enumerates and the model has."""
    guide, trace = run.guide, run.models[0].trace
    latent = latent_sites(trace)
    for name in guide.variables.keys() & latent.keys():
        joint = guide.weights.joint(frozenset({name}))
        marginal = _as_marginal(_summed(joint, [each for each in guide.weights.always if each != name]), name)
        found.add(name, latent[name], table_of(latent, name, marginal), weight)
    for site in sample_sites(run.trace):
        name = site.name or ""
        if is_sequential(site) and name in trace.nodes:
            found.add(name, site, certain(site) * weight, weight)


def _add_model(found: _Mixture, guide: GuideRun, model: ModelRun, share: Table | None) -> None:
    """What one run of the model says of the sites that it sums out; ``share`` is the run's, of all the model's."""
    latent = latent_sites(model.trace)
    graph = weighted(model.graph, model.powers, given=guide.variables)
    known: set[str] = set()
    for factors in groups(graph):
        if any(name in graph.variables for factor in factors for name in factor.inputs):
            component = component_of(factors, graph, guide, model.places)
            for name, (marginal, presence) in _marginals(component, guide, share).items():
                known.add(name)
                if name in latent:
                    found.add(name, latent[name], table_of(latent, name, marginal), presence)
    missing = [name for name in graph.variables if name not in known]
    if missing:
        raise EnumerationError(
            f"Site {missing[0]!r} depends on what the guide enumerates for all elements of a plate at once, so it "
            "is written out and has no marginal for each. Enumerate the model's global sites in the guide too."
        )
    if model.sites:
        presence = _weights(guide, (), share).data.sum()
        for name, site in model.sites.items():
            found.add(name, site, certain(site) * presence, presence)


def _shares(run: PairRun) -> Table | None:
    """The posterior probability of each run of the model, given the guide's values; ``None`` if there is one only."""
    if len(run.models) == 1:
        return None
    terms = [model_terms(each.graph, run.guide, {}, powers=each.powers) for each in run.models]
    totals = totals_of_runs(terms, run.guide, run.models[0].graph.plates)
    scale = scale_of_runs([(each.graph, each.sites) for each in run.models])
    logs = totals.data / scale
    possible = Table(totals.names[1:], logs.logsumexp(0) > -torch.inf)
    _refuse_impossible(possible, run.guide.weights.joint(run.guide.weights.among(possible.names)))
    return Table(totals.names, logs.softmax(0).nan_to_num(0.0))


def _weights(guide: GuideRun, names: Iterable[str], share: Table | None) -> Table:
    """The probabilities of the guide's variables among some names, times the share of a run of the model."""
    if share is None:
        return guide.weights.joint(guide.weights.among(names))
    weights = guide.weights.joint(guide.weights.among([*names, *share.names]))
    return Table(weights.names, weights.data * share.along(weights.names))


def _marginals(
    component: Component, guide: GuideRun, share: Table | None
) -> dict[str, tuple[Marginal, Tensor]]:
    """Tables that sum to the probability of this run, and that."""
    graph = component.graph
    names = tuple(graph.variables)
    plan = plan_for(graph, names, backward=True)
    if plan.unrolled or plan.sliced:
        parts = [solve(element_of(graph, index), marginals=names) for index in elements_of(graph)]
        sizes = list(graph.batch.values())
        values = torch.stack([part.value for part in parts]).reshape(sizes)
        tables = {}
        for name in names:
            of_parts = [part.marginal(name) for part in parts]
            stacked = torch.stack([each.probs for each in of_parts])
            tables[name] = Table(
                (*graph.batch, *of_parts[0].plates, name), stacked.reshape([*sizes, *stacked.shape[1:]])
            )
    else:
        result = solve(graph, marginals=names, plan=plan)
        values = result.value
        tables = {}
        for name in names:
            probs, plates = result.marginal(name)
            tables[name] = Table((*plates, name), probs)
    weights = _weights(guide, graph.batch, share)
    _refuse_impossible(Table(tuple(graph.batch), values > -torch.inf), weights)
    presence = _summed(weights, guide.weights.tables)
    found = {}
    for name, table in tables.items():
        together = union(table.names, weights.names)
        both = Table(together, weighted_by(table.along(together), weights.along(together)))
        marginal = _as_marginal(_summed(both, guide.weights.tables), name)
        found[name] = marginal, presence.data.flatten()[:1].sum()
    return found


def _refuse_impossible(possible: Table, weights: Table) -> None:
    """Raises ``ImpossibleEvidenceError`` where the guide goes and nothing is possible."""
    around = union(weights.names, possible.names)
    if bool(((weights.along(around) > 0) & ~possible.along(around)).any()):
        raise ImpossibleEvidenceError(
            "The observations and the guide's values have probability zero under the model, so there is no posterior."
        )


def _summed(table: Table, names: Collection[str]) -> Table:
    """The table summed over the dimensions of some names."""
    gone = [place for place, each in enumerate(table.names) if each in names]
    if not gone:
        return table
    return Table(tuple([each for each in table.names if each not in names]), table.data.sum(gone))


def _as_marginal(table: Table, name: str) -> Marginal:
    plates = tuple([each for each in table.names if each != name])
    return Marginal(table.along((*plates, name)), plates)


class _Given(Messenger):
    """Gives sites the values that were drawn for them."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Message) -> None:
        name = msg.name or ""
        if msg.is_observed or not self.values:
            return
        if name in self.values:
            msg.value, msg.done = self.values[name], True
        elif "_chain" in msg.infer:
            steps = assembled(msg, self.values)
            if steps is not None:
                msg.value, msg.done = steps[0], True


def sample_of_model(model: Program, runs: Sequence[PairRun], args: Args, kwargs: Kwargs) -> Any:
    """What the model returns with its summed-out sites drawn from their posterior, and the guide's values.

    Raises:
        EnumerationError: if the guide enumerates sites, of which none is drawn.
        ImpossibleEvidenceError: if the observations and the guide's values have probability zero.
    """
    check_known(runs)
    guide = runs[0].guide
    enumerated = next(iter((*guide.variables, *guide.weights.always)), None)
    if enumerated is not None:
        raise EnumerationError(
            f"Site {enumerated!r} is enumerated in the guide, so it has no value that a sample of the "
            "model could be given. Use sample_posterior, which draws the guide's sites."
        )
    run = _drawn_run(runs[0])
    values: dict[str, Tensor] = {name: site.value for name, site in run.sites.items()}
    if run.graph.variables:
        drawn = sample(weighted(run.graph, run.powers), 1)
        _refuse_none(bool(drawn.choices))
        latent = latent_sites(run.trace)
        for name in run.graph.variables:
            choice = drawn.choices[name]
            values[name] = site_value(latent[name], choice._replace(states=choice.states[0]))
    replayer = ReplayMessenger(trace=runs[0].trace)
    replayer.reports_unused = False
    with _Given(values), replayer:
        return model(*args, **kwargs)


def _drawn_run(run: PairRun) -> ModelRun:
    """One of the runs of the model, drawn by what they contribute to the evidence."""
    if len(run.models) == 1:
        return run.models[0]
    scale = scale_of_runs([(each.graph, each.sites) for each in run.models])
    values = torch.stack([solve(weighted(each.graph, each.powers)).value for each in run.models]) / scale
    _refuse_none(bool((values > -torch.inf).any()))
    return run.models[int(torch.multinomial(values.double().softmax(0), 1))]


def _refuse_none(possible: bool) -> None:
    if not possible:
        raise ImpossibleEvidenceError(
            "The observations and the guide's values have probability zero under the model, so there is no "
            "posterior."
        )
