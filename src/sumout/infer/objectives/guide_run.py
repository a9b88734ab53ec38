"""What a bound needs of a guide's run: its terms, the probabilities of its enumerated sites, and its scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.effects import Message, Trace
from sumout.effects.handlers.sequential import is_sequential
from sumout.effects.scoring import derive
from sumout.effects.steps import is_lookback, names_in_loop, unrolled_step
from sumout.effects.trace import sample_sites
from sumout.errors import EnumerationError
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.infer.objectives.baselines import Baseline, baseline_of
from sumout.infer.objectives.terms import Table, Term, factor_term
from sumout.infer.objectives.weights import Weights
from sumout.lower import lower, lower_tensor


class Score(NamedTuple):
    """A site that was drawn without a derivative of the value: the derivative of its log-probability stands for it.

    ``site`` is its number in the guide's run, or in the model's; ``baseline`` is what its costs are expected to be.
    """

    name: str
    table: Table
    plates: frozenset[str]
    site: int
    of_model: bool = False
    baseline: Baseline | None = None


class GuideRun(NamedTuple):
    """A guide's run, by names.

    Attributes:
        graph: of the enumerated sites alone; without variables if there are none.
        terms: the negative log-probabilities of all its sites.
        scores: of the sites whose values have no derivative.
        weights: the probabilities of the enumerated sites.
        plates: all plates.
        places: where each site stands in the run, by the names that sites have in a loop.
        comparable: whether the graph's tables are those of a plain run at the same values: without samples that
            stand for values, and without scales of single elements.
    """

    graph: FactorGraph
    terms: list[Term]
    scores: list[Score]
    weights: Weights
    plates: Mapping[str, Plate]
    places: Mapping[str, int]
    comparable: bool

    @property
    def variables(self) -> Mapping[str, Variable]:
        """Those that are enumerated."""
        return self.graph.variables


class _WithGradientOf(torch.autograd.Function):
    """The first argument, with the gradients of both: nothing is added to the value, not even ``inf - inf``."""

    @staticmethod
    def forward(ctx: object, value: Tensor, other: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], grads[0]


def with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    """``value``, whose gradient is that of the sum of both."""
    if torch._C._get_tracing_state() is not None:  # which does not take functions with gradients of their own
        return value + (other - other.detach())
    return _WithGradientOf.apply(value, other)  # type: ignore[no-untyped-call, no-any-return]


def run_of_guide(trace: Trace) -> GuideRun:
    """Reads a guide's run, recorded under ``enum`` or without it.

    Raises:
        EnumerationError: if a site is replaced by samples in a way that leaves its distribution unknown; what ``lower``
            raises.
    """
    sites = sample_sites(trace)
    if not sites:
        return _NOTHING
    places = places_of(trace)
    enumerated = Trace()
    for site in sites:
        if site.enum_dim is not None:
            enumerated.nodes[site.name or ""] = site
    powers: dict[str, Factor] = {}
    graph = lower(enumerated, sampled=True, powers=powers) if enumerated.nodes else FactorGraph((), {})
    # Masks and scales change a site's cost, and leave its probabilities alone.
    plain = not powers and all(site.mask is None for site in enumerated.nodes.values())
    costs = graph if plain else lower(enumerated, graph.variables, sampled=True)
    terms = [factor_term(factor, costs, -1.0, places[factor.name], of_guide=True) for factor in costs.factors]
    scores: list[Score] = []
    tables: dict[str, Table] = {}
    by_name = {}
    chosen: dict[str, Table] = {}
    for site in sites:
        if is_lookback(site):
            continue
        if is_sequential(site):
            chosen[site.name or ""] = _weight_of_value(site, graph.variables)
            terms.append(_term(site, site["log_prob"], places[site.name or ""]))
        elif site.enum_dim is None:
            parts = _parts(site)
            terms.append(_drawn_term(site, parts, places[site.name or ""]))
            scores += _scores(site, parts, places)
        else:
            by_name.update(dict.fromkeys(names_in_loop(site), site))
            if is_sampled(site):
                scores += _scores(site, _parts(site), places)
    for factor in graph.factors:
        tables[factor.name] = _weight(by_name[factor.name], factor, graph.variables)
    plates = {**_plates(sites), **graph.plates}
    _check_names(terms, plates, graph.variables)
    sizes = {name: plate.size for name, plate in plates.items()}
    sizes.update({name: variable.size for name, variable in graph.variables.items()})
    sizes.update(dict.fromkeys(chosen, 1))
    weights = Weights({**tables, **chosen}, sizes, chosen)
    comparable = not powers and not any(map(is_sampled, by_name.values()))
    return GuideRun(graph, terms, scores, weights, plates, places, comparable)


_NOTHING = GuideRun(FactorGraph((), {}), [], [], Weights({}, {}), {}, {}, True)


def run_of_draws(trace: Trace) -> GuideRun:
    """A guide's run as if it had only those sites that were drawn, once each."""
    drawn = Trace()
    for site in sample_sites(trace):
        if site.enum_dim is None:
            drawn.nodes[site.name or ""] = site
    places = places_of(trace)
    sites = sample_sites(drawn)
    parts = list(map(_parts, sites))
    terms = [
        _drawn_term(site, each, places[site.name or ""]) for site, each in zip(sites, parts, strict=True)
    ]
    scores = [score for site, each in zip(sites, parts, strict=True) for score in _scores(site, each, places)]
    return GuideRun(FactorGraph((), {}), terms, scores, Weights({}, {}), _plates(sites), places, True)


def places_of(trace: Trace) -> dict[str, int]:
    """The numbers of sites in their run, by the names that they have in a loop.

    The steps that a vectorized chain takes at once stand where the chain begins: what a step depends on may come
    later in the program.
    """
    places: dict[str, int] = {}
    begins: dict[str, int] = {}
    for place, site in enumerate(sample_sites(trace)):
        step = unrolled_step(site)
        if step is not None:
            place = begins.setdefault(step.chain, place)
        if not is_lookback(site):
            places.update(dict.fromkeys((site.name or "", *names_in_loop(site)), place))
    return places


def _parts(site: Message) -> Any:
    """A site's ``score_parts``, which are asked for once: they are not kept for others."""
    return site["score_parts"] if "score_parts" in site else derive(site, "score_parts", {})["score_parts"]


def _drawn_term(site: Message, parts: Any, place: int) -> Term:
    log_q, score, entropy = parts
    if not _is_zero(score):
        # The score is what its value's derivative is made of; its own has mean zero.
        log_q = log_q.detach()
        if not _is_zero(entropy):
            log_q = with_gradient_of(log_q, entropy)
    return _term(site, log_q, place)


def _term(site: Message, log_q: Tensor, place: int) -> Term:
    factor = lower_tensor(site, log_q)
    return Term(Table(factor.inputs, factor.data), factor.plates, -1.0, place, of_guide=True)


def _weight_of_value(site: Message, variables: Mapping[str, Variable]) -> Table:
    """The probability of the value that a site has in this run; the sites that it depends on may have all of theirs."""
    factor = lower_tensor(site, site["unscaled_log_prob"])
    parents = [name for name in factor.inputs if name in variables]
    local = [name for name in parents if variables[name].plates]
    if local:
        raise EnumerationError(
            f"Site {site.name!r} of the guide is enumerated sequentially and depends on {local[0]!r}, which has all "
            "its "
            "values at once for each element of a plate. Enumerate both in one way."
        )
    summed = [place for place, name in enumerate(factor.inputs) if name not in variables]
    data = factor.data.sum(summed) if summed else factor.data
    return Table((site.name or "", *parents), data.exp().unsqueeze(0))


def _check_names(
    terms: Iterable[Term], plates: Mapping[str, Plate], variables: Mapping[str, Variable]
) -> None:
    for term in terms:
        for name in term.table.names:
            if name not in plates and name not in variables:
                raise EnumerationError(
                    f"A site of the guide is drawn for each value of {name!r}, steps of a chain that the model "
                    "takes in "
                    "another way. Loop over the chain in the same way in both programs."
                )


def score_of(site: Message, parts: Any = None) -> Tensor | None:
    """The log-probability whose derivative stands for that of a site's value; ``None`` if the value has its own.

    ``parts`` are the site's score parts, if they are known.
    """
    if site.is_observed:
        return None
    score = (parts or _parts(site)).score_function
    return None if _is_zero(score) or not score.requires_grad else score


def _scores(site: Message, parts: Any, places: Mapping[str, int]) -> list[Score]:
    score = score_of(site, parts)
    if score is None:
        return []

    def named(tensor: Tensor) -> Table:
        factor = lower_tensor(site, tensor)
        return Table(factor.inputs, factor.data)

    baseline = baseline_of(site, named)
    plates = frozenset(frame.name for frame in site.cond_indep_stack if frame.dim is not None)
    name = site.name or ""
    return [Score(name, named(score), plates, places[name], baseline=baseline)]


def _weight(site: Message, factor: Factor, variables: Mapping[str, Variable]) -> Table:
    """The probabilities of an enumerated site; samples are as probable as each other."""
    if not is_sampled(site):
        return Table(factor.inputs, factor.data.exp())
    name = factor.name
    parents = [each for each in factor.inputs if each in variables and each != name]
    if parents and not site.infer.get("expand"):
        raise EnumerationError(
            f"Site {name!r} of the guide is replaced by num_samples={site.infer['num_samples']} samples and depends on "
            f"{parents[0]!r}: that its samples go with those of {parents[0]!r} one by one makes the bound biased. "
            "Mark it infer={'expand': True} for samples of its own for each combination, or use TraceTMC_ELBO."
        )
    size = variables[name].size
    return Table((name,), factor.data.new_full([size], 1 / size))


def is_sampled(site: Message) -> bool:
    """Whether samples stand for a site's values."""
    return site.enum_dim is not None and site.infer.get("num_samples") is not None


def _plates(sites: list[Message]) -> dict[str, Plate]:
    return {
        frame.name: Plate(frame.size, frame.scale)
        for site in sites
        for frame in site.cond_indep_stack
        if frame.dim is not None
    }


def _is_zero(term: Tensor | float) -> bool:
    return isinstance(term, (int, float)) and term == 0
