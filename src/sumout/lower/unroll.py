"""Vectorized chains step by step: one variable and one factor for each step, as a loop would have made them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import repeat

from sumout.effects import Message
from sumout.effects.steps import is_lookback, names_in_loop, unrolled_step
from sumout.errors import EnumerationError
from sumout.factors import Factor, FactorGraph, Variable


def unroll(graph: FactorGraph, sites: Sequence[Message], given: Collection[str] = ()) -> FactorGraph:
    """The graph with the sites of vectorized chains replaced by those of the single steps.

    Args:
        graph: its factors and variables are named after the sites; the steps of a chain are a plate of it, and
            the sites that are looked back at are variables of their own.
        sites: all sample sites.
        given: variables that tables may depend on and that are none of the graph.

    Returns:
        A graph whose factors and variables have the names that they have in a loop, step after step. A factor
        that no variable of its chain touches has been multiplied out over the steps already, and stays as it is.

    Raises:
        EnumerationError: if a site is enumerated in some steps of a chain only.
    """
    steps = {site.name or "": names_in_loop(site) for site in sites if unrolled_step(site) is not None}
    chains = {step.chain for step in map(unrolled_step, sites) if step is not None}
    lookbacks = {site.name for site in sites if is_lookback(site)}

    variables: dict[str, Variable] = {}
    waiting: dict[str, list[list[tuple[str, Variable]]]] = {}
    for name, variable in graph.variables.items():
        inside = chains & variable.plates
        if not inside:
            variables[name] = variable
        elif name not in lookbacks:
            (chain,) = inside
            single = Variable(variable.size, variable.plates - inside)
            waiting.setdefault(chain, []).append([(each, single) for each in steps[name]])
    for of_variables in waiting.values():
        for of_one_step in zip(*of_variables, strict=True):
            variables.update(of_one_step)

    known = {*variables, *given}
    factors: list[Factor] = []
    pending: dict[str, list[list[Factor]]] = {}
    """By chain: the factors of each site, step by step, until all sites of the chain were met."""
    for factor in graph.factors:
        inside = chains & factor.plates
        if not inside:
            factors.append(factor)
            continue
        (chain,) = inside
        pending.setdefault(chain, []).append(_steps_of(factor, chain, steps, known))
    for of_sites in pending.values():
        for of_step in zip(*of_sites, strict=True):
            factors.extend(of_step)
    plates = {name: plate for name, plate in graph.plates.items() if name not in chains}
    return FactorGraph(tuple(factors), variables, plates, graph.states)


def _steps_of(factor: Factor, chain: str, steps: dict[str, tuple[str, ...]], known: set[str]) -> list[Factor]:
    """A factor's parts, one for each step."""
    inputs = tuple(name for name in factor.inputs if name != chain)
    names = steps[factor.name]
    if chain in factor.inputs:
        parts = factor.data.unbind(factor.inputs.index(chain))
    else:
        parts = (factor.data,) * len(names)
    for each in inputs:
        if each in steps and not known.issuperset(steps[each]):
            missing = next(step for step in steps[each] if step not in known)
            raise EnumerationError(
                f"Site {missing!r} is not enumerated, and {each!r}, which stands for it in chain {chain!r}, is. "
                "Enumerate or observe all steps alike, or loop step by step: markov(range(T)) without dim."
            )
    scopes = zip(*[steps.get(each) or repeat(each, len(names)) for each in inputs], strict=True)
    plates = factor.plates - {chain}
    return [
        Factor(name, scope, data, plates, factor.scale)
        for name, scope, data in zip(names, scopes if inputs else repeat(()), parts, strict=False)
    ]
