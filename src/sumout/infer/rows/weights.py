"""Plates whose elements count as often as weights say: scales that differ from element to element.

What is summed out inside an element of such a plate is raised to the element's weight, as a case would be that was
observed so often: ``Σ_g p(g) Π_i (Σ_z p(z, x_i | g)) ** w_i``. A factor graph has no place for such powers. But the
sum inside is a table over the elements and what stands outside, ``g``, and its logarithm times ``w - 1`` is one more
factor, which makes an ordinary graph of the whole: the distribution of ``z`` in each element, given ``g``, stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.errors import PlateError
from sumout.execute import LOG_SUM_EXP, MAX_SUM, Semiring
from sumout.factors import Factor, FactorGraph, Variable
from sumout.infer.rows.batched import BatchedGraph, solve_elements


@dataclass(frozen=True, eq=False, repr=False)
class WeightedGraph(FactorGraph):
    """The ordinary graph whose sums are those of ``plain`` with ``powers``; its last factors make up for the weights.

    Its maxima are not: ``for_maxima`` gives the graph that has them.
    """

    plain: FactorGraph = field(default_factory=lambda: FactorGraph((), {}))
    powers: Mapping[str, Factor] = field(default_factory=dict)


def weighted(
    graph: FactorGraph,
    powers: Mapping[str, Factor],
    semiring: Semiring = LOG_SUM_EXP,
    given: Mapping[str, Variable] = MappingProxyType({}),
) -> FactorGraph:
    """The graph with the weights of elements taken in, for sums or for maxima; itself, if there are none.

    Args:
        graph: as ``lower`` gives it.
        powers: weights by the names of factors, over plates.
        semiring: what will be asked of the graph.
        given: variables of another graph that its factors may depend on.

    Raises:
        PlateError: if what is summed out together does not have the same weights.
        MemoryLimitError: as ``solve``.

    >>> table = ["i", "x"], [[0.5, 0.25], [0.1, 0.2]]
    >>> graph = FactorGraph.from_tables({"f": table}, plates={"i": 2}, ordinals={"x": ["i"]})
    >>> from sumout.infer.solving.solve import solve
    >>> twice_and_once = {"f": Factor("f", ("i",), torch.tensor([2.0, 1.0]), frozenset({"i"}))}
    >>> float(solve(weighted(graph, twice_and_once)).value.exp())  # 0.75 ** 2 * 0.3
    0.16875...
    """
    if not powers:
        return graph
    extra = []
    for part in weighted_parts(graph, powers):
        logs = part.log_sums(graph, semiring, given)
        # Where the sum is zero, the graph's own factors make zero of the whole.
        possible = replace(logs, data=torch.where(logs.data == -torch.inf, 0.0, logs.data))
        extra.append(replace(_times(possible, part.weights, less=1.0), name=f"weights of {logs.name}"))
    return WeightedGraph(
        (*graph.factors, *extra), graph.variables, graph.plates, graph.states, plain=graph, powers=powers
    )


def for_maxima(graph: FactorGraph) -> FactorGraph:
    """The graph to take maxima of, where ``graph`` is one to take sums of."""
    return weighted(graph.plain, graph.powers, MAX_SUM) if isinstance(graph, WeightedGraph) else graph


def plain(graph: FactorGraph) -> FactorGraph:
    """The graph with the factors of sites alone."""
    return graph.plain if isinstance(graph, WeightedGraph) else graph


def weight_factors(graph: FactorGraph) -> Sequence[Factor]:
    """The factors that make up for weights."""
    return graph.factors[len(plain(graph).factors) :]


def without_factors(graph: FactorGraph, names: Collection[str]) -> FactorGraph:
    """The graph without some sites' factors."""
    if not names:
        return graph
    if isinstance(graph, WeightedGraph):
        powers = {name: each for name, each in graph.powers.items() if name not in names}
        return weighted(without_factors(graph.plain, names), powers)
    return replace(graph, factors=tuple([each for each in graph.factors if each.name not in names]))


def absorbed(graph: FactorGraph, part: WeightedPart, given: Mapping[str, Variable]) -> FactorGraph:
    """The graph with a part replaced by the power of its sum: a factor in the place of the part's last site.

    Args:
        graph: what the part is of.
        part: one of its ``weighted_parts``.
        given: variables of another graph that its factors may depend on.
    """
    power = _times(part.log_sums(graph, given=given), part.weights)
    factors = [
        power if each is part.factors[-1] else each
        for each in graph.factors
        if each is part.factors[-1] or each.name not in part.names
    ]
    return replace(without_part(graph, part), factors=tuple(factors))


def without_part(graph: FactorGraph, part: WeightedPart) -> FactorGraph:
    """The graph without a part's factors, and without the variables inside it."""
    factors = tuple([each for each in graph.factors if each.name not in part.names])
    variables = {name: each for name, each in graph.variables.items() if name not in part.inner}
    return replace(graph, factors=factors, variables=variables)


def raised(graph: FactorGraph, powers: Mapping[str, Factor]) -> FactorGraph:
    """The graph with each factor multiplied by its weights: what a plain run says of given values."""
    if not powers:
        return graph
    factors = [_times(each, powers[each.name]) if each.name in powers else each for each in graph.factors]
    return replace(graph, factors=tuple(factors))


class WeightedPart(NamedTuple):
    """Factors that are raised to one power, element by element: those around the variables ``inner``.

    ``outer`` are the other variables that they depend on, which live outside of what is weighted.
    """

    factors: Sequence[Factor]
    weights: Factor
    inner: tuple[str, ...]
    outer: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """Of its factors."""
        return frozenset([factor.name for factor in self.factors])

    def log_sums(
        self,
        graph: FactorGraph,
        semiring: Semiring = LOG_SUM_EXP,
        given: Mapping[str, Variable] = MappingProxyType({}),
    ) -> Factor:
        """The logarithm of the sum (or the largest value) in each element, for each state of what lives outside.

        The factor is named after the last of the part's sites. ``given`` are variables of another graph.

        Raises:
            PlateError: if it depends on sites of all elements of another plate.
        """
        known = {**given, **graph.variables}
        name = self.factors[-1].name
        if not self.inner:
            return self.factors[0]
        home = frozenset.intersection(*(graph.variables[each].plates for each in self.inner))
        for each in self.outer:
            if not known[each].plates <= home:
                raise PlateError(
                    f"Site {name!r} has a scale for each element of {_listed(self.weights)}, and depends on site "
                    f"{each!r}, which has several elements for each of these: the power of a sum over all of them is "
                    "no product. Put the scale around sites that lie in one plate inside the other."
                )
        batch = {plate: graph.plates[plate].size for plate in sorted(home)}
        batch |= {each: known[each].size for each in self.outer}
        within = BatchedGraph(
            tuple([replace(factor, plates=factor.plates - home) for factor in self.factors]),
            {
                each: replace(graph.variables[each], plates=graph.variables[each].plates - home)
                for each in self.inner
            },
            {plate: each for plate, each in graph.plates.items() if plate not in home},
            batch=batch,
        )
        return Factor(name, tuple(batch), solve_elements(within, semiring), home)


def weighted_parts(graph: FactorGraph, powers: Mapping[str, Factor]) -> list[WeightedPart]:
    """The parts of a graph that are raised to powers, in the order of their last sites.

    Raises:
        PlateError: if a variable is in factors with other weights, or without.
    """
    inner_of = {
        factor.name: [
            name
            for name in factor.inputs
            if name in graph.variables and graph.variables[name].plates.issuperset(powers[factor.name].inputs)
        ]
        for factor in graph.factors
        if factor.name in powers
    }
    inner = {name for names in inner_of.values() for name in names}
    groups: list[tuple[list[Factor], set[str]]] = []
    for factor in graph.factors:
        own = inner.intersection(factor.inputs)
        if factor.name not in powers and not own:
            continue
        group: tuple[list[Factor], set[str]] = ([factor], own)
        apart = []
        for other in groups:
            if own.isdisjoint(other[1]):
                apart.append(other)
            else:
                group = (other[0] + group[0], other[1] | group[1])
        groups = [*apart, group]
    return [_part(factors, names, graph, powers) for factors, names in groups]


def _part(
    factors: list[Factor], inner: Collection[str], graph: FactorGraph, powers: Mapping[str, Factor]
) -> WeightedPart:
    place = {factor.name: number for number, factor in enumerate(graph.factors)}
    factors.sort(key=lambda factor: place[factor.name])
    first = next(powers[factor.name] for factor in factors if factor.name in powers)
    for factor in factors:
        own = powers.get(factor.name)
        if own is None or own.inputs != first.inputs or not torch.equal(own.data, first.data):
            raise PlateError(
                f"Site {first.name!r} has a scale for each element of {_listed(first)}, and what is summed out with it "
                f"has not: site {factor.name!r}. A scale multiplies the logarithm of a sum, so all sites of the sum in "
                "an element take the same. Put it around all of them."
            )
    met = dict.fromkeys([name for factor in factors for name in factor.inputs])
    return WeightedPart(
        factors,
        first,
        tuple([name for name in graph.variables if name in inner]),
        tuple([name for name in met if name not in graph.plates and name not in inner]),
    )


def _times(factor: Factor, weights: Factor, less: float = 0.0) -> Factor:
    """The factor multiplied by weights, from which a number is taken."""
    names = (*factor.inputs, *[name for name in weights.inputs if name not in factor.inputs])
    data = _along(factor, names) * (_along(weights, names).to(factor.data) - less)
    return replace(factor, inputs=names, data=data)


def _along(factor: Factor, names: Sequence[str]) -> Tensor:
    """A table with its dimensions in the order of ``names``, of size one where it has none."""
    data = factor.data.permute([factor.inputs.index(name) for name in names if name in factor.inputs])
    sizes = iter(data.shape)
    return data.reshape([next(sizes) if name in factor.inputs else 1 for name in names])


def _listed(weights: Factor) -> str:
    return ", ".join(map(repr, weights.inputs))
