"""GeNIe's format (``.xdsl``), as far as it says discrete Bayesian networks.

Elements::

    smile         = nodes extensions?
    nodes         = (cpt | deterministic)*
    cpt           = state+ parents? probabilities               p(id | parents)
    deterministic = state+ parents? resultingstates             the one possible state, for each row

A node's name is its ``id``, and a state's too. Entries stand in the order of the parents, then the node, the last
varying fastest. Other kinds of node (noisy gates, equations, decisions, utilities) are refused. So are files of
aGrUM with more than one parent a node: it writes its parents in the reverse of this order (pyAgrum 3.3).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sumout.factors import FactorGraph
from sumout.io.conditionals import Conditionals
from sumout.io.elements import parse_elements
from sumout.io.network import Network, Table
from sumout.io.source import read_text


def read_xdsl(path: str | os.PathLike[str]) -> FactorGraph:
    """Reads a discrete Bayesian network in GeNIe's format ``.xdsl``.

    Args:
        path: the file.

    Returns:
        A graph as from :func:`read_bif`.

    Raises:
        ParseError: the file is malformed or says more than a discrete Bayesian network, a row is off 1 by more
            than 1e-3, or the parents form a cycle.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "coin.xdsl"
    >>> _ = path.write_text('''<smile version="1.0"><nodes><cpt id="side">
    ... <state id="heads"/><state id="tails"/><probabilities>0.25 0.75</probabilities>
    ... </cpt></nodes></smile>''')
    >>> graph = read_xdsl(path)
    >>> graph.states["side"], graph.factors[0].data.exp().tolist()
    (('heads', 'tails'), [0.25, 0.75])
    """
    return parse_xdsl(path, read_text(path)).to_graph()


def parse_xdsl(path: str | os.PathLike[str], text: str) -> Network:
    """The network that an XDSL text describes; ``path`` is named in errors."""
    root = parse_elements(path, text, ["smile"])
    nodes = root.one("nodes").children
    by_agrum = any(
        genie.attributes.get("app", "").lower().startswith("agrum")
        for extensions in root.all("extensions")
        for genie in extensions.all("genie")
    )
    found = Conditionals()
    for node in nodes:
        if node.tag not in ("cpt", "deterministic"):
            raise node.error(f"expected <cpt> or <deterministic>, found <{node.tag[:40]}>")
        labels = [state.attribute("id") for state in node.all("state")]
        found.declare(node.attribute("id"), labels, node.error)
    for node in nodes:
        name = node.attribute("id")
        parents = node.one("parents").text.split() if node.all("parents") else []
        if len(parents) > 1 and by_agrum:
            raise node.error(
                "expected entries in GeNIe's order, found a file written by aGrUM, which orders parents the "
                "other way round: save it as BIF there"
            )
        found.scope(name, parents, node.one("parents").error if parents else node.error)
        if node.tag == "cpt":
            table = node.one("probabilities")
            values: Sequence[float] | Table = table.numbers(f"a probability of {name!r}")
        else:
            table = node.one("resultingstates")
            values = found.certain(name, table.text.split(), table.at)
        found.define(name, parents, values, table.error, table.at)
    return found.network(root.error)
