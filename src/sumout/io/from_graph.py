"""A factor graph as a network again: what a file can hold of it, or an error."""

from __future__ import annotations

import numpy as np

from sumout.errors import GraphError
from sumout.factors import Factor
from sumout.factors.parts import GraphData
from sumout.io.network import Network, Table, cycle


def network_of(graph: GraphData) -> Network:
    """The names, states and tables of a graph.

    It is directed, a Bayesian network, if every variable is the last input of just one factor, and this factor
    sums to 1 over it for each state of the others, which form no cycle. So are the graphs that are read from
    files of Bayesian networks. Variables without labels get those of a UAI file, "0", "1" and so on.

    Raises:
        GraphError: the graph has plates or scales, or a factor an entry that is no float: e^-800, say.

    >>> from sumout.factors import FactorGraph
    >>> network_of(FactorGraph.from_tables({"coin": (["side"], [0.25, 0.75])})).directed
    True
    """
    for name in graph.plates:
        raise GraphError(
            f"The graph has the plate {name!r}, which network files cannot hold. Build it without plates: "
            "one variable for each element."
        )
    for factor in graph.factors:
        if factor.scale != 1:
            raise GraphError(
                f"The factor {factor.name!r} has the scale {factor.scale}, which network files cannot hold."
            )
    order = [*(name for name in graph.states if name in graph.variables)]
    order += [name for name in graph.variables if name not in graph.states]
    states = {
        name: graph.states.get(name) or tuple(map(str, range(graph.variables[name].size))) for name in order
    }
    tables: dict[str, tuple[tuple[str, ...], Table]] = {}
    for factor in graph.factors:
        name = factor.name
        while name in tables:
            name += "'"
        tables[name] = factor.inputs, _entries(factor)
    return Network(states, tables, directed=_directed(graph, tables))


def _entries(factor: Factor) -> Table:
    """The factor's entries, not their logarithms."""
    logarithms = factor.data.detach().cpu().numpy()
    if logarithms.dtype not in (np.float32, np.float64):
        logarithms = factor.data.detach().cpu().double().numpy()
    with np.errstate(under="ignore", over="ignore"):
        entries: Table = np.asarray(np.exp(logarithms.astype(np.float64)))
    tiny = np.finfo(np.float64).tiny  # below it, entries lose digits before they vanish
    lost = (np.isfinite(logarithms) & (entries < tiny)) | np.isinf(entries)
    if lost.any():
        raise GraphError(
            f"The factor {factor.name!r} has the entry e^{logarithms[lost].flat[0]:.6g}, which is no float. "
            "Multiply it by a constant first: add one to its logarithms."
        )
    # Of the numbers with this logarithm, as closely as it is kept, the one that a person would have written: 0.1,
    # not 0.10000000000000002.
    digits = 15 if logarithms.dtype == np.float64 else 6
    short = np.array([float(f"{entry:.{digits}g}") for entry in entries.ravel().tolist()])
    short = short.reshape(entries.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        alike = np.abs(np.log(short) - logarithms) <= np.spacing(np.abs(logarithms))
    return np.where(alike, short, entries)


def _directed(graph: GraphData, tables: dict[str, tuple[tuple[str, ...], Table]]) -> bool:
    parents: dict[str, tuple[str, ...]] = {}
    for factor, (scope, entries) in zip(graph.factors, tables.values(), strict=True):
        rounding = 1e-9 if factor.data.element_size() > 4 else 1e-5
        if not scope or scope[-1] in parents or np.abs(entries.sum(-1) - 1).max() > rounding:
            return False
        parents[scope[-1]] = scope[:-1]
    return set(parents) == set(graph.variables) and not cycle(parents)
