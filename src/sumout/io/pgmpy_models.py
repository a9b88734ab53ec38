"""Models of pgmpy to graphs and back."""

from __future__ import annotations

import importlib
from itertools import combinations
from typing import Any

import numpy as np

from sumout.errors import GraphError, MissingExtraError
from sumout.factors import FactorGraph
from sumout.io.from_graph import network_of
from sumout.io.models import Part, bayesian_network, labels, markov_network, merged


def from_pgmpy(model: Any) -> FactorGraph:
    """The factor graph of a discrete pgmpy model.

    Args:
        model: a ``DiscreteBayesianNetwork``, or a model of factors: ``DiscreteMarkovNetwork``, ``FactorGraph``,
            ``JunctionTree``.

    Returns:
        A graph as from :func:`read_bif` for a Bayesian network (rows are normalised), else one factor per factor.
        Names and states become strings.

    Raises:
        GraphError: the model is not discrete or not complete, a row is off 1 by more than 1e-3, an entry is
            negative or not finite, or two tables list a variable's states in different orders.
    """
    if hasattr(model, "get_cpds"):
        parts = [_part(table, child_first=True) for table in model.get_cpds()]
        return bayesian_network(map(str, model.nodes()), parts).to_graph()
    if hasattr(model, "get_factors"):
        return markov_network(_part(factor) for factor in model.get_factors()).to_graph()
    raise GraphError(
        f"A {type(model).__name__} is no discrete model of pgmpy: give a DiscreteBayesianNetwork, or a model of "
        "factors such as DiscreteMarkovNetwork."
    )


def to_pgmpy(graph: FactorGraph) -> Any:
    """A pgmpy model with the names, states and tables of a graph.

    Args:
        graph: without plates.

    Returns:
        A ``DiscreteBayesianNetwork`` where :func:`network_of` finds a Bayesian network, else a
        ``DiscreteMarkovNetwork``. There, tables over the same variables become one, and a constant goes into the
        first.

    Raises:
        GraphError: the graph has plates or scales, or an entry that is no float.
        MissingExtraError: pgmpy is not installed.
    """
    try:
        models = importlib.import_module("pgmpy.models")
        factors = importlib.import_module("pgmpy.factors.discrete")
    except ImportError as error:
        raise MissingExtraError("pgmpy", "pgmpy", "A model of pgmpy") from error
    network = network_of(graph)
    model = models.DiscreteBayesianNetwork() if network.directed else models.DiscreteMarkovNetwork()
    model.add_nodes_from(network.states)
    if not network.directed:
        for scope, entries in merged(network):
            model.add_edges_from(combinations(scope, 2))
            states = {name: list(network.states[name]) for name in scope}
            model.add_factors(
                factors.DiscreteFactor(list(scope), entries.shape, entries.ravel(), state_names=states)
            )
        return model
    for (*parents, child), entries in network.tables.values():
        model.add_edges_from((parent, child) for parent in parents)
        model.add_cpds(
            factors.TabularCPD(
                child,
                entries.shape[-1],
                np.moveaxis(entries, -1, 0).reshape(entries.shape[-1], -1),
                evidence=parents or None,
                evidence_card=list(entries.shape[:-1]) or None,
                state_names={name: list(network.states[name]) for name in (*parents, child)},
            )
        )
    return model


def _part(table: Any, child_first: bool = False) -> Part:
    if not all(hasattr(table, each) for each in ("variables", "values", "state_names")):
        raise GraphError(
            f"The model has a {type(table).__name__}, which is no table: only discrete models can be taken."
        )
    scope = tuple(map(str, table.variables))
    states = tuple(labels(table.state_names[variable]) for variable in table.variables)
    if not child_first:
        return Part(scope, states, table.values)
    order = [*range(1, len(scope)), 0]
    values = (
        table.values.transpose(order) if isinstance(table.values, np.ndarray) else table.values.permute(order)
    )
    return Part(tuple(scope[each] for each in order), tuple(states[each] for each in order), values)
