"""The expectation of a bound's terms over a guide: exact for enumerated sites, one draw for the others.

For a guide ``q`` with parameters ``φ`` the gradient of ``E[cost]`` has unbiased forms, site by site: *exact*, where the
site is enumerated, through its probabilities; *pathwise*, where its value is a differentiable function of ``φ``; and
the *score function*, ``E[cost · ∇ log q(site)]``, where it is not (Ranganath, Gerrish and Blei, 2014, eq. 2). A cost
may leave out every term that does not depend on the site (eq. 5): what comes before it, and what belongs to other
elements of its plates. Where sites are enumerated as well, cost and score are weighted with the joint
probability of the enumerated sites that either depends on, as in DiCE (Foerster and others, 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from sumout.errors import EnumerationError
from sumout.factors import Plate
from sumout.infer.objectives.guide_run import GuideRun, Score, with_gradient_of
from sumout.infer.objectives.terms import Table, Term, union


def expectation(
    terms: Sequence[Term], guide: GuideRun, plates: Mapping[str, Plate], places: Mapping[str, int]
) -> Tensor:
    """The sum of the terms' expectations, a scalar whose gradient is an unbiased estimate of the bound's.

    Args:
        terms: those of the model and of the guide.
        guide: the run.
        plates: those of the model.
        places: where sites stand in the model's run, by the names that they have in a loop.
    """
    sizes = {name: plate.size for name, plate in (*plates.items(), *guide.plates.items())}
    parts = [_expected(term, guide, sizes) for term in terms]
    value: Tensor = torch.stack(parts).sum() if len(parts) > 1 else parts[0] if parts else torch.zeros(())
    if not guide.scores or not torch.is_grad_enabled():
        return value
    surrogates = [_surrogate(score, terms, guide, sizes, places) for score in guide.scores]
    return with_gradient_of(value, torch.stack(surrogates).sum())


def _expected(term: Term, guide: GuideRun, sizes: Mapping[str, int]) -> Tensor:
    names, data = term.table
    if guide.weights.tables:
        weights = guide.weights.joint(guide.weights.among(names))
        if weights.names:
            names = union(names, weights.names)
            data = weighted(term.table.along(names), weights.along(names))
    missing = term.plates.difference(names)
    return _times(data.sum() if names else data, term.weight * _elements(missing, sizes))


def weighted(data: Tensor, weights: Tensor) -> Tensor:
    """The product, zero where the weight is zero, though the other may be infinite there."""
    return weights * torch.where(weights > 0, data, data.new_zeros(()))


def _surrogate(
    score: Score, terms: Iterable[Term], guide: GuideRun, sizes: Mapping[str, int], places: Mapping[str, int]
) -> Tensor:
    """The score times what comes of it, element by element, summed."""
    own = guide.weights.among(score.table.names)
    kept, plates = union(score.table.names, sorted(score.plates)), score.plates
    table = score.table
    steers = any(guide.places[name] >= score.site for name in guide.weights.always)
    if steers:
        # It decides how probable this whole run is: all that is in the run comes of it.
        if own:
            raise EnumerationError(
                f"Site {score.name!r} of the guide is drawn for each value of {sorted(own)[0]!r}, and sites after "
                "it are "
                "enumerated sequentially. Enumerate all of them in parallel."
            )
        table, kept, plates = Table((), table.data.sum()), (), frozenset()
    of_guide, of_model = _begins(score, guide, places)
    costs: Tensor | None = None
    for term in terms:
        begin = of_guide if term.of_guide else of_model
        if steers or term.site > begin or (term.site == begin and not term.before):
            seen = _seen_from(term, own, kept, plates, guide, sizes)
            costs = seen if costs is None else costs + seen
    if costs is None:
        return table.data.new_zeros(())
    if score.baseline is None or steers:
        return (table.along(kept) * costs).sum()
    if own:
        raise EnumerationError(
            f"Site {score.name!r} of the guide has a baseline and is drawn for each value of {sorted(own)[0]!r}. Leave "
            "the baseline out, or draw that site too."
        )
    left, loss = score.baseline.around(costs, kept)
    surrogate = (table.along(kept) * left).sum()
    return surrogate if loss is None else surrogate - loss


def _begins(score: Score, guide: GuideRun, places: Mapping[str, int]) -> tuple[float, float]:
    """The numbers of the sites, of guide and model, from which on they may depend on a draw."""
    if score.of_model:
        return math.inf, score.site
    later = [name for name, place in guide.places.items() if place >= score.site]
    return score.site, min([places[name] for name in later if name in places], default=math.inf)


def _seen_from(
    term: Term,
    own: frozenset[str],
    kept: Sequence[str],
    plates: frozenset[str],
    guide: GuideRun,
    sizes: Mapping[str, int],
) -> Tensor:
    """A term, weighted with the probability of the variables, summed over all dimensions but those that are kept."""
    scope = guide.weights.among(term.table.names)
    weights = guide.weights.joint(scope | own)
    names = union(term.table.names, weights.names)
    data = term.table.along(names).detach()
    if weights.names:
        data = weighted(data, weights.along(names).detach())
    summed = [place for place, name in enumerate(names) if name not in kept]
    if summed:
        data = data.sum(summed)
    left = Table(tuple([name for name in names if name in kept]), data)
    missing = term.plates.difference(names, plates)
    return left.along(kept) * (term.weight * _elements(missing, sizes))


def _elements(plates: Iterable[str], sizes: Mapping[str, int]) -> int:
    return math.prod([sizes[plate] for plate in plates])


def _times(data: Tensor, weight: float) -> Tensor:
    return data if weight == 1 else -data if weight == -1 else data * weight
