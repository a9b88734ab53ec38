"""The XML Bayesian Interchange Format, version 0.3, which JavaBayes, Weka, pyAgrum and pgmpy write.

Elements (a ``PROPERTY`` may stand anywhere and means nothing)::

    BIF        = NETWORK
    NETWORK    = NAME? VARIABLE* DEFINITION*            in any order
    VARIABLE   = NAME OUTCOME+                          TYPE="nature", which is also the default
    DEFINITION = FOR GIVEN* TABLE                       p(FOR | GIVEN ...)

A table's entries stand in the order of the GIVENs, then the FOR, the last varying fastest (F. G. Cozman, "The
Interchange Format for Bayesian Networks", 1998).
"""

from __future__ import annotations

import os

from sumout.factors import FactorGraph
from sumout.io.conditionals import Conditionals
from sumout.io.elements import Element, parse_elements, unexpected
from sumout.io.network import Network
from sumout.io.source import read_text


def read_xmlbif(path: str | os.PathLike[str]) -> FactorGraph:
    """Reads a discrete Bayesian network in XMLBIF.

    Args:
        path: the file.

    Returns:
        A graph as from :func:`read_bif`.

    Raises:
        ParseError: the file is malformed or declares entities, a row is off 1 by more than 1e-3, or the parents
            form a cycle.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "coin.xml"
    >>> _ = path.write_text('''<BIF VERSION="0.3"><NETWORK>
    ... <VARIABLE><NAME>side</NAME><OUTCOME>heads</OUTCOME><OUTCOME>tails</OUTCOME></VARIABLE>
    ... <DEFINITION><FOR>side</FOR><TABLE>0.25 0.75</TABLE></DEFINITION>
    ... </NETWORK></BIF>''')
    >>> graph = read_xmlbif(path)
    >>> graph.states["side"], graph.factors[0].data.exp().tolist()
    (('heads', 'tails'), [0.25, 0.75])
    """
    return parse_xmlbif(path, read_text(path)).to_graph()


def parse_xmlbif(path: str | os.PathLike[str], text: str) -> Network:
    """The network that an XMLBIF text describes; ``path`` is named in errors."""
    root = parse_elements(path, text, ["BIF"])
    network = root.one("NETWORK")
    _only(root, "NETWORK", "PROPERTY")
    _only(network, "NAME", "PROPERTY", "VARIABLE", "DEFINITION")
    found = Conditionals()
    for variable in network.all("VARIABLE"):
        kind = variable.attributes.get("TYPE", "nature")
        if kind != "nature":
            raise variable.error(f"expected a variable of type 'nature', found {kind[:40]!r}")
        _only(variable, "NAME", "OUTCOME", "PROPERTY")
        outcomes = [outcome.word() for outcome in variable.all("OUTCOME")]
        found.declare(variable.one("NAME").word(), outcomes, variable.error)
    for definition in network.all("DEFINITION"):
        _only(definition, "FOR", "GIVEN", "TABLE", "PROPERTY")
        child = definition.one("FOR")
        found.known(child.word(), child.error)
        for parent in definition.all("GIVEN"):
            found.known(parent.word(), parent.error)
        table = definition.one("TABLE")
        found.define(
            child.word(),
            [parent.word() for parent in definition.all("GIVEN")],
            table.numbers(f"a probability of {child.word()!r}"),
            table.error,
            table.at,
        )
    return found.network(network.error)


def _only(parent: Element, *tags: str) -> None:
    """Checks that an element has no other children and, as it has some, no text of its own."""
    for child in unexpected(parent, tags):
        raise child.error(f"expected {', '.join(tags)} in <{parent.tag}>, found <{child.tag[:40]}>")
    if parent.text:
        place = parent.at(0)
        raise place(f"expected no text in <{parent.tag}> itself, found {parent.text[:40]!r}")
