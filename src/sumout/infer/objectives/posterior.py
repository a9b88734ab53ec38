"""What the model's summed-out sites are, given the observations and a run of the guide: marginals and samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Message, Messenger, Trace
from sumout.effects.handlers import ReplayMessenger
from sumout.effects.handlers.sequential import is_sequential
from sumout.effects.steps import assembled, names_in_loop
from sumout.effects.trace import sample_sites
from sumout.errors import EnumerationError, ImpossibleEvidenceError
from sumout.execute import Marginal
from sumout.infer.answers.readout import latent_sites, site_marginal, site_value
from sumout.infer.objectives.components import Component, component_of, groups
from sumout.infer.objectives.expectation import weighted
from sumout.infer.objectives.guide_run import GuideRun
from sumout.infer.objectives.pair import Args, Kwargs, Program
from sumout.infer.objectives.runs import ModelRun, PairRun
from sumout.infer.objectives.terms import Table, union
from sumout.infer.solving.solve import plan_for, sample, solve


def single_run(runs: list[PairRun]) -> tuple[GuideRun, ModelRun]:
    """The one run of guide and model.

    Raises:
        EnumerationError: if there are several; if the model draws a site from its prior, of which nothing is known
            then.
    """
    first = runs[0]
    if len(runs) > 1 or len(first.models) > 1:
        raise EnumerationError(
            "Sites are enumerated sequentially, and the posterior is that of one run. Mark them "
            "infer={'enumerate': 'parallel'}, or ask sumout.infer.marginals(model)."
        )
    of_guide = {name for site in sample_sites(first.trace) for name in (site.name, *names_in_loop(site))}
    for site in sample_sites(first.models[0].trace):
        drawn = site.enum_dim is None and not site.is_observed and not is_sequential(site)
        if drawn and of_guide.isdisjoint((site.name, *names_in_loop(site))):
            raise EnumerationError(
                f"Site {site.name!r} of the model is latent and has no guide: it was drawn from its prior, and a "
                "posterior given that draw says nothing. Give it a guide, observe it, or enumerate it if it is "
                "discrete."
            )
    return first.guide, first.models[0]


def marginals_of(guide: GuideRun, model: ModelRun) -> dict[str, Any]:
    """A distribution for each site that the model sums out, and for each that the guide enumerates.

    Those of the model are means over what the guide enumerates.

    Raises:
        ImpossibleEvidenceError: if the observations have probability zero where the guide goes.
    """
    latent = latent_sites(model.trace)
    found: dict[str, Marginal] = {}
    for factors in groups(model.graph):
        if any(name in model.graph.variables for factor in factors for name in factor.inputs):
            found.update(_marginals(component_of(factors, model.graph, guide, model.places), guide))
    missing = [name for name in model.graph.variables if name not in found]
    if missing:
        raise EnumerationError(
            f"Site {missing[0]!r} depends on what the guide enumerates for all elements of a plate at once, so it "
            "is written "
            "out and has no marginal for each. Enumerate the model's global sites in the guide too."
        )
    names = [name for name in latent if name in model.graph.variables or name in guide.variables]
    for name in guide.variables.keys() & latent.keys():
        found[name] = _as_marginal(guide.weights.joint(frozenset({name})), name)
    return {name: site_marginal(latent[name], found[name]) for name in names}


def _marginals(component: Component, guide: GuideRun) -> dict[str, Marginal]:
    graph = component.graph
    names = tuple(graph.variables)
    plan = plan_for(graph, names, backward=True)
    if plan.unrolled or plan.sliced:
        parts = [solve(component.at(index), marginals=names) for index in component.elements()]
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
    weights = guide.weights.joint(guide.weights.among(graph.batch))
    possible = Table(tuple(graph.batch), values > -torch.inf)
    around = union(weights.names, possible.names)
    if bool(((weights.along(around) > 0) & ~possible.along(around)).any()):
        raise ImpossibleEvidenceError(
            "The observations and the guide's values have probability zero under the model, so there is no posterior."
        )
    found = {}
    for name, table in tables.items():
        together = union(table.names, weights.names)
        summed = [place for place, each in enumerate(together) if each in guide.weights.tables]
        probs = weighted(table.along(together), weights.along(together))
        kept = tuple([each for each in together if each not in guide.weights.tables])
        found[name] = _as_marginal(Table(kept, probs.sum(summed) if summed else probs), name)
    return found


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


def sample_of_model(
    model: Program, of_guide: Trace, guide: GuideRun, run: ModelRun, args: Args, kwargs: Kwargs
) -> Any:
    """What the model returns with its summed-out sites drawn from their posterior, and the guide's values.

    Raises:
        EnumerationError: if the guide enumerates sites, of which none is drawn.
        ImpossibleEvidenceError: if the observations and the guide's values have probability zero.
    """
    if guide.variables:
        raise EnumerationError(
            f"Site {next(iter(guide.variables))!r} is enumerated in the guide, so it has no value that a sample of the "
            "model could be given. Use sample_posterior, which draws the guide's sites."
        )
    values: dict[str, Tensor] = {}
    if run.graph.variables:
        drawn = sample(run.graph, 1)
        if not drawn.choices:
            raise ImpossibleEvidenceError(
                "The observations and the guide's values have probability zero under the model, so there is no "
                "posterior."
            )
        latent = latent_sites(run.trace)
        for name in run.graph.variables:
            choice = drawn.choices[name]
            values[name] = site_value(latent[name], choice._replace(states=choice.states[0]))
    replayer = ReplayMessenger(trace=of_guide)
    replayer.reports_unused = False
    with _Given(values), replayer:
        return model(*args, **kwargs)
