"""Models of pyAgrum to graphs and back."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from sumout.errors import GraphError, MissingExtraError
from sumout.factors import FactorGraph
from sumout.io.from_graph import network_of
from sumout.io.models import Part, bayesian_network, labels, markov_network, merged
from sumout.io.network import Network


def from_pyagrum(model: Any) -> FactorGraph:
    """The factor graph of a pyAgrum model.

    Args:
        model: a ``BayesNet`` or a ``MarkovRandomField``.

    Returns:
        A graph as from :func:`read_bif` for a ``BayesNet`` (rows are normalised), else one factor per factor. The
        states are the labels of pyAgrum's variables, whatever their kind.

    Raises:
        GraphError: the model is of another kind or not complete, a row is off 1 by more than 1e-3, or an entry is
            negative or not finite.
    """
    kind = type(model).__name__
    if kind not in ("BayesNet", "BayesNetFragment", "MarkovRandomField"):
        raise GraphError(f"A {kind} is none of pyAgrum's BayesNet and MarkovRandomField, which can be taken.")
    if kind == "MarkovRandomField":
        return markov_network(_part(model.factor(ids)) for ids in model.factors()).to_graph()
    nodes = sorted(model.nodes())
    parts = [_part(model.cpt(node)) for node in nodes]
    return bayesian_network([model.variable(node).name() for node in nodes], parts).to_graph()


def to_pyagrum(graph: FactorGraph) -> Any:
    """A pyAgrum model with the names, states and tables of a graph.

    Args:
        graph: without plates.

    Returns:
        A ``BayesNet`` where :func:`network_of` finds a Bayesian network, else a ``MarkovRandomField``. There, tables
        over the same variables become one, and a constant goes into the first.

    Raises:
        GraphError: the graph has plates or scales, or an entry that is no float.
        MissingExtraError: pyAgrum is not installed.
    """
    network = network_of(graph)
    with warnings.catch_warnings():
        # pyAgrum's import, and its classes' first use, warn; where warnings are errors, that ends the process.
        warnings.simplefilter("ignore")
        try:
            pyagrum = importlib.import_module("pyagrum")
        except ImportError as error:
            raise MissingExtraError("pyagrum", "pyagrum", "A model of pyAgrum") from error
        model = pyagrum.BayesNet() if network.directed else pyagrum.MarkovRandomField()
        for name, states in network.states.items():
            model.add(pyagrum.LabelizedVariable(name, "", list(states)))
        (_fill_directed if network.directed else _fill_undirected)(model, network)
    return model


def _fill_directed(model: Any, network: Network) -> None:
    for (*parents, child), _ in network.tables.values():
        for parent in reversed(parents):  # the last one comes first in pyAgrum's tables, which are then ours
            model.addArc(parent, child)
    for (*parents, child), entries in network.tables.values():
        table = model.cpt(child)
        scope = [*parents, child]
        table[:] = np.ascontiguousarray(entries.transpose([scope.index(name) for name in table.names[::-1]]))


def _fill_undirected(model: Any, network: Network) -> None:
    for scope, entries in merged(network):
        table = model.addFactor(list(scope))
        table[:] = np.ascontiguousarray(entries.transpose([scope.index(name) for name in table.names[::-1]]))


def _part(tensor: Any) -> Part:
    """A tensor as a table: pyAgrum's arrays have the variables in reverse, so that a child comes last."""
    variables = [tensor.variable(place) for place in range(len(tensor.names))]
    filled = type(tensor)()  # the array of a noisy gate's own tensor is memory that nobody has written to
    for variable in variables:
        filled.add(variable)
    filled.fillWith(tensor)
    variables.reverse()
    return Part(
        tuple(variable.name() for variable in variables),
        tuple(labels(variable.labels()) for variable in variables),
        np.asarray(filled.toarray()),
    )
