"""GeNIe's older format (``.dsl``), as far as it says discrete Bayesian networks.

Grammar (blanks, commas and comments, ``//`` and ``/* */``, separate tokens)::

    file   = "net" name block [";"]
    block  = "{" (member)* "}"
    member = key "=" value ";"  |  "node" name block [";"]  |  key ";"
    value  = block  |  "(" word* ")"  |  word*

A node has ``TYPE = CPT``, ``PARENTS = (...)``, and in ``DEFINITION`` the lists ``NAMESTATES`` and ``PROBABILITIES``,
or ``TYPE = TRUTHTABLE`` and ``RESULTINGSTATES``. Entries stand in the order of the parents, then the node, the last
varying fastest. Other kinds of node are refused; other members mean nothing here.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from functools import partial

from sumout.factors import FactorGraph
from sumout.io.conditionals import Conditionals
from sumout.io.network import Complaint, Network, Table
from sumout.io.source import Source, read_text

_TOKEN = re.compile(r'//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)|"[^"]*"|[(){}=;]|(?:[^\s,(){}=;"/]|/(?![/*]))+|"')
_PUNCTUATION = frozenset('(){}=;"')
_DEEPEST = 20
_Members = dict[str, tuple[int, int]]


def read_dsl(path: str | os.PathLike[str]) -> FactorGraph:
    """Reads a discrete Bayesian network in GeNIe's format ``.dsl``.

    Args:
        path: the file.

    Returns:
        A graph as from :func:`read_bif`.

    Raises:
        ParseError: the file is malformed or says more than a discrete Bayesian network, a row is off 1 by more
            than 1e-3, or the parents form a cycle.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "coin.dsl"
    >>> _ = path.write_text('''net coin { node side { TYPE = CPT; PARENTS = (); DEFINITION = {
    ... NAMESTATES = (heads, tails); PROBABILITIES = (0.25, 0.75); }; }; };''')
    >>> graph = read_dsl(path)
    >>> graph.states["side"], graph.factors[0].data.exp().tolist()
    (('heads', 'tails'), [0.25, 0.75])
    """
    return parse_dsl(path, read_text(path)).to_graph()


def parse_dsl(path: str | os.PathLike[str], text: str) -> Network:
    """The network that a text in GeNIe's older format describes; ``path`` is named in errors."""
    return _Dsl(Source(path, text, _TOKEN, ("//", "/*"))).parse()


class _Dsl:
    """One pass over the nodes' names and states, then one over their tables: a parent may come later."""

    def __init__(self, source: Source) -> None:
        self.source, self.tokens = source, source.tokens
        self.found = Conditionals()
        self.nodes: list[tuple[str, int, _Members, _Members]] = []

    def parse(self) -> Network:
        source, tokens = self.source, self.tokens
        if source.last.startswith("/*") and (len(source.last) < 4 or not source.last.endswith("*/")):
            raise source.error(len(tokens), "expected '*/', found the end of the file")
        at = source.expect(0, "net")
        self.word(at, "the network's name")
        at, _ = self.block(at + 1, 0)
        if at < len(tokens) and tokens[at] == ";":
            at += 1
        if at < len(tokens):
            raise source.expected(at, "the end of the file")
        for name, at, _, definition in self.nodes:
            first, last = self.list_of(definition, "NAMESTATES", name, at)
            labels = [self.word(place, f"a state of node {name!r}") for place in range(first, last)]
            self.found.declare(name, labels, self.at(at))
        for name, at, members, definition in self.nodes:
            self.table(name, at, members, definition)
        return self.found.network(partial(source.error, len(tokens)))

    def at(self, token: int) -> Complaint:
        return partial(self.source.error, token)

    def word(self, at: int, what: str) -> str:
        """A word or a quoted text."""
        token = self.tokens[at] if at < len(self.tokens) else ""
        text = token[1:-1] if len(token) > 2 and token[0] == '"' else token
        if not text or (text is token and token[0] in _PUNCTUATION):
            raise self.source.expected(at, what)
        return text

    def block(self, at: int, depth: int) -> tuple[int, _Members]:
        """The token after a block, and its members: key -> the tokens of the value, from the first to the last."""
        source, tokens = self.source, self.tokens
        if depth > _DEEPEST:
            raise source.error(at, f"expected at most {_DEEPEST} blocks in one another, found more")
        at = source.expect(at, "{")
        members: _Members = {}
        while at < len(tokens) and tokens[at] != "}":
            key_at, key = at, self.word(at, "a key, 'node' or '}'")
            if key == "node" and depth == 0:
                at = self.node(at + 1)
                continue
            if at + 1 < len(tokens) and tokens[at + 1] == ";":
                at += 2
                continue
            start = source.expect(at + 1, "=", f" after {key!r}")
            if start < len(tokens) and tokens[start] == "{":
                stop, _ = self.block(start, depth + 1)
            else:
                stop = source.find(";", start, len(tokens))
                wrong = min(source.find(each, start, stop) for each in "{}=")
                if wrong < stop or stop == start:
                    raise source.expected(wrong, f"a value of {key!r} and ';'")
            at = source.expect(stop, ";", f" after the value of {key!r}")
            if key in members:
                raise source.error(key_at, f"expected each key once, found {key!r} again")
            members[key] = start, stop
        return source.expect(at, "}", " or a key"), members

    def node(self, at: int) -> int:
        source, tokens = self.source, self.tokens
        name = self.word(at, "the node's name")
        after, members = self.block(at + 1, 1)
        if "DEFINITION" not in members:
            raise source.error(at, f"expected the DEFINITION of node {name!r}, found none")
        _, definition = self.block(members["DEFINITION"][0], 2)
        self.nodes.append((name, at, members, definition))
        return after + (after < len(tokens) and tokens[after] == ";")

    def list_of(self, members: _Members, key: str, name: str, at: int) -> tuple[int, int]:
        """The tokens between the parentheses of a member that must be there."""
        if key not in members:
            raise self.source.error(at, f"expected {key} of node {name!r}, found none")
        start, stop = members[key]
        self.source.expect(start, "(", f" before the {key} of node {name!r}")
        end = self.source.find(")", start, stop)
        if end != stop - 1:
            raise self.source.expected(end + (end < stop), f"{')' if end == stop else ';'!r} after the {key}")
        return start + 1, end

    def table(self, name: str, at: int, members: _Members, definition: _Members) -> None:
        source, tokens = self.source, self.tokens
        kind_at = members["TYPE"][0] if "TYPE" in members else at
        kind = tokens[kind_at] if "TYPE" in members else "CPT"
        parents_from, parents_to = self.list_of(members, "PARENTS", name, at)
        parents = [
            self.found.known(self.word(place, "a parent"), self.at(place))
            for place in range(parents_from, parents_to)
        ]
        shape = self.found.scope(name, parents, self.at(at))
        if kind == "CPT":
            first, last = self.list_of(definition, "PROBABILITIES", name, at)
            values: Sequence[float] | Table = source.numbers(first, last, f"a probability of {name!r}")
            self.found.define(name, parents, values, self.at(first), lambda number: self.at(first + number))
        elif kind == "TRUTHTABLE":
            first, last = self.list_of(definition, "RESULTINGSTATES", name, at)
            if last - first != math.prod(shape[:-1]):
                raise source.error(
                    first, f"expected {math.prod(shape[:-1])} states of {name!r}, found {last - first}"
                )
            states = [self.word(place, f"a state of {name!r}") for place in range(first, last)]
            values = self.found.certain(name, states, lambda number: self.at(first + number))
            self.found.define(name, parents, values, self.at(first), lambda _: self.at(first))
        else:
            raise source.error(
                kind_at, f"expected TYPE CPT or TRUTHTABLE of node {name!r}, found {kind[:40]!r}"
            )
