"""Hugin's format (``.net``), as far as it says discrete Bayesian networks.

Grammar (blanks, commas and comments from ``%`` to the end of the line separate tokens)::

    file      = ["net" block] (node | potential)*
    node      = ["discrete"] "node" name "{" attribute* "}"            with the attribute states
    potential = "potential" "(" child ["|"] parent* ")" "{" attribute* "}"   with the attribute data
    attribute = name "=" value ";"
    states    = "(" state* ")"
    data      = nested lists: one level a parent, in the order written, then the child; or one flat list

Other attributes mean nothing here. Continuous, utility and decision nodes, functions and tables given as
expressions (``model_nodes``) are refused. See the Hugin API reference manual, chapter "The NET language".
"""

from __future__ import annotations

import math
import os
import re
from functools import partial

from sumout.factors import FactorGraph
from sumout.io.conditionals import Conditionals
from sumout.io.network import Complaint, Network
from sumout.io.source import Source, read_text

_TOKEN = re.compile(r'%[^\n]*|"[^"]*"|[(){}=;|]|[^\s,(){}=;|"%]+|"')
_PUNCTUATION = frozenset('(){}=;|"')
_OTHER = ("class", "continuous", "decision", "utility", "function", "temporal")


def read_hugin(path: str | os.PathLike[str]) -> FactorGraph:
    """Reads a discrete Bayesian network in Hugin's format, ``.net``.

    Args:
        path: the file.

    Returns:
        A graph as from :func:`read_bif`.

    Raises:
        ParseError: the file is malformed or says more than a discrete Bayesian network, a row is off 1 by more
            than 1e-3, or the parents form a cycle.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "coin.net"
    >>> _ = path.write_text('''net { node_size = (80 40); }
    ... node side { states = ("heads" "tails"); }
    ... potential (side) { data = (0.25 0.75); }''')
    >>> graph = read_hugin(path)
    >>> graph.states["side"], graph.factors[0].data.exp().tolist()
    (('heads', 'tails'), [0.25, 0.75])
    """
    return parse_hugin(path, read_text(path)).to_graph()


def parse_hugin(path: str | os.PathLike[str], text: str) -> Network:
    """The network that a text in Hugin's format describes; ``path`` is named in errors."""
    return _Hugin(Source(path, text, _TOKEN, ("%",))).parse()


class _Hugin:
    """One pass over the nodes, then one over the potentials, which may precede them."""

    def __init__(self, source: Source) -> None:
        self.source, self.tokens = source, source.tokens
        self.found = Conditionals()

    def parse(self) -> Network:
        source, tokens = self.source, self.tokens
        at, potentials = 0, []
        if tokens[:1] == ["net"]:
            at, _ = self.block(1)
        while at < len(tokens):
            if tokens[at : at + 2] == ["discrete", "node"]:
                at = self.node(at + 2)
            elif tokens[at] == "node":
                at = self.node(at + 1)
            elif tokens[at] == "potential":
                potentials.append(at + 1)
                opened = source.find("{", at, len(tokens))
                at, _ = self.block(opened)
            elif tokens[at] in _OTHER:
                raise source.expected(at, "a discrete Bayesian network: 'node' or 'potential'")
            else:
                raise source.expected(at, "'node' or 'potential'")
        for potential in potentials:
            self.potential(potential)
        return self.found.network(partial(source.error, len(tokens)))

    def block(self, at: int) -> tuple[int, dict[str, tuple[int, int]]]:
        """The token after a block, and its attributes: name -> the tokens of the value, first and last but one."""
        source, tokens = self.source, self.tokens
        at = source.expect(at, "{")
        attributes: dict[str, tuple[int, int]] = {}
        while at < len(tokens) and tokens[at] != "}":
            name = self.name(at, "an attribute or '}'")
            start = source.expect(at + 1, "=")
            stop = source.find(";", start, len(tokens))
            wrong = next((each for each in "{}=" if source.find(each, start, stop) < stop), None)
            if wrong is not None or stop == start:
                where = stop if wrong is None else source.find(wrong, start, stop)
                raise source.expected(where, f"a value of {name!r} and ';'")
            source.expect(stop, ";", f" after the value of {name!r}")
            if name in attributes:
                raise source.error(at, f"expected each attribute once, found {name!r} again")
            attributes[name] = start, stop
            at = stop + 1
        return source.expect(at, "}", " or an attribute"), attributes

    def name(self, at: int, what: str) -> str:
        token = self.tokens[at] if at < len(self.tokens) else ""
        if not token or token[0] in _PUNCTUATION:
            raise self.source.expected(at, what)
        return token

    def node(self, at: int) -> int:
        source = self.source
        name = self.name(at, "the node's name")
        after, attributes = self.block(at + 1)
        if "states" not in attributes:
            raise source.error(at, f"expected the states of node {name!r}, found none")
        start, stop = attributes["states"]
        source.expect(start, "(", f" before the states of node {name!r}")
        if source.find(")", start, stop) != stop - 1:
            raise source.expected(source.find(")", start, stop) + 1, f"';' after the states of node {name!r}")
        labels = []
        for place in range(start + 1, stop - 1):
            token = self.tokens[place]
            label = token[1:-1] if len(token) > 2 and token[0] == '"' else token
            if token[0] in _PUNCTUATION and label is token:
                raise source.expected(place, f"a state of node {name!r}")
            labels.append(label)
        self.found.declare(name, labels, self.at(at))
        return after

    def potential(self, at: int) -> None:
        source, tokens = self.source, self.tokens
        at = source.expect(at, "(")
        child_at, child = at, self.name(at, "a node")
        self.found.known(child, self.at(at))
        at += 1
        bar = at < len(tokens) and tokens[at] == "|"
        at += bar
        parents = []
        while at < len(tokens) and tokens[at] != ")":
            parents.append(self.found.known(self.name(at, "a parent or ')'"), self.at(at)))
            at += 1
        if parents and not bar:
            raise source.error(child_at, f"expected '|' after the one child {child!r}, found {parents[0]!r}")
        shape = self.found.scope(child, parents, self.at(child_at))
        _, attributes = self.block(source.expect(at, ")"))
        if "model_nodes" in attributes or "data" not in attributes:
            raise source.error(child_at, f"expected the data of node {child!r}, found none")
        start, stop = attributes["data"]
        numbers = self.numbers(start, stop, child, shape)
        values = source.numbers_at(numbers, f"a probability of {child!r}")
        self.found.define(child, parents, values, self.at(child_at), lambda number: self.at(numbers[number]))

    def numbers(self, start: int, stop: int, child: str, shape: tuple[int, ...]) -> list[int]:
        """The tokens that are no parentheses, these checked to show one flat list or the table's own nesting."""
        source, tokens = self.source, self.tokens
        found = [place for place in range(start, stop) if tokens[place] not in "()"]
        source.expect(start, "(", f" before the data of node {child!r}")
        if len(found) != math.prod(shape):
            raise source.error(start, f"expected {math.prod(shape)} entries of {child!r}, found {len(found)}")
        if found == list(range(start + 1, stop - 1)) and tokens[stop - 1] == ")":
            return found
        counts = [0]  # of the lists that are open, how many parts each has had
        for place in range(start, stop):
            if tokens[place] == "(":
                counts[-1] += 1
                counts.append(0)
            elif tokens[place] != ")":
                counts[-1] += 1
            if tokens[place] == "(" and len(counts) - 1 <= len(shape):
                continue
            deep = len(counts) - 1
            if tokens[place] == ")":
                if deep < 1 or counts.pop() != shape[deep - 1]:
                    raise source.error(
                        place,
                        f"expected lists in one another of {' x '.join(map(str, shape))} entries "
                        f"of {child!r}, found others",
                    )
            elif deep != len(shape):
                raise source.expected(place, f"{len(shape)} lists in one another for the data of {child!r}")
        if counts != [1]:
            raise source.expected(stop, f"')' after the data of {child!r}")
        return found

    def at(self, token: int) -> Complaint:
        return partial(self.source.error, token)
