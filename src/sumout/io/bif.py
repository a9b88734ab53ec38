"""The Bayesian Interchange Format, as the files in circulation write it.

Grammar (blanks, commas and comments separate tokens and mean nothing else)::

    file        = "network" [name] "{" property* "}" (variable | probability)*
    variable    = "variable" name "{" (type | property)* "}"           exactly one type
    type        = "type" "discrete" "[" count "]" "{" state* "}" ";"
    probability = "probability" "(" child ["|"] parent* ")" "{" (row | table | default | property)* "}"
    row         = "(" state* ")" number* ";"                           one state per parent
    table       = "table" number* ";"                                  every entry; the child varies slowest
    default     = "default" number* ";"                                the rows that are not written
    property    = "property" text ";"

Names may be quoted, and may hold any character but blanks and ``{}()[]|,;"`` (quoted: any but the quote). The
order of ``table`` with parents is that of the format's definition (F. G. Cozman, "The Interchange Format for
Bayesian Networks", 1998).
"""

from __future__ import annotations

import os
import re

from sumout.errors import nearest
from sumout.factors import FactorGraph
from sumout.io.bif_rows import ConditionalRows
from sumout.io.network import MOST_DIMS, Network, Room, Table, conditional_name, cycle
from sumout.io.source import Source, read_text

_WORD = r'[^\s{}()\[\]|,;"/]'
_TOKEN = re.compile(
    r'property(?=[\s"])(?:[^;"]|"[^"\n]*"|")*;?'  # its text is free, so it is one token
    rf"|{_WORD}+(?:/(?![/*]){_WORD}*)*|(?:/(?![/*]){_WORD}*)+"
    r'|[{}()\[\]|;]|"[^"\n]*"'
    r"|//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)"
    r"|[^\s,]"  # a lone quote: a token nobody expects
)
_PUNCTUATION = frozenset('{}()[]|;"')


def read_bif(path: str | os.PathLike[str]) -> FactorGraph:
    """Reads a discrete Bayesian network in the Bayesian Interchange Format.

    Args:
        path: the file.

    Returns:
        A graph with one float64 log-space factor per node, named ``"child | parent, parent"``, its inputs the
        parents in the file's order, then the child; ``graph.states[node]`` are the state labels. Each row is
        normalised.

    Raises:
        ParseError: the file is malformed, a row is off 1 by more than 1e-3, or the parents form a cycle.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "coin.bif"
    >>> _ = path.write_text('''network coin { }
    ... variable side { type discrete [ 2 ] { heads, tails }; }
    ... probability ( side ) { table 0.25, 0.75; }''')
    >>> graph = read_bif(path)
    >>> graph.states["side"], graph.factors[0].data.exp().tolist()
    (('heads', 'tails'), [0.25, 0.75])
    """
    return parse_bif(path, read_text(path)).to_graph()


def parse_bif(path: str | os.PathLike[str], text: str) -> Network:
    """The network that a BIF text describes; ``path`` is named in errors."""
    return _Bif(Source(path, text, _TOKEN, ("//", "/*"))).parse()


class _Bif:
    """One pass over the variables, then one over the probability blocks, which may precede them."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = source.tokens
        self.states: dict[str, tuple[str, ...]] = {}
        self.index: dict[str, dict[str, int]] = {}
        self.tables: dict[str, tuple[tuple[str, ...], Table]] = {}
        self.parents: dict[str, list[str]] = {}
        self.room = Room()
        self.declared: dict[str, int] = {}  # variable -> the token that names it, for errors
        self.blocks: dict[str, int] = {}  # the same, in its probability block

    def parse(self) -> Network:
        source, tokens = self.source, self.tokens
        if source.last.startswith("/*") and (len(source.last) < 4 or not source.last.endswith("*/")):
            raise source.error(len(tokens), "expected '*/', found the end of the file")
        at = self.network()
        blocks: list[int] = []
        while at < len(tokens):
            if tokens[at] == "variable":
                at = self.variable(at + 1)
            elif tokens[at] == "probability":
                blocks.append(at + 1)
                at = source.find("}", at, len(tokens)) + 1
            else:
                raise source.expected(at, "'variable' or 'probability'")
        if not self.states:
            raise source.expected(at, "a variable")
        for block in blocks:
            self.probability(block)
        for name in self.states:
            if name not in self.parents:
                line_of = self.declared[name]
                raise source.error(
                    line_of, f"expected a probability block for {name!r} in the file, found none"
                )
        if loop := cycle(self.parents):
            raise source.error(self.blocks[loop[0]], f"expected no cycle, found {' -> '.join(loop)}")
        return Network(self.states, self.tables, directed=True)

    def name(self, at: int, what: str) -> str:
        token = self.tokens[at] if at < len(self.tokens) else ""
        quoted = len(token) > 1 and token[0] == '"'
        name = token[1:-1] if quoted else token
        if not name or (not quoted and (name in _PUNCTUATION or _is_property(token))):
            raise self.source.expected(at, what)
        return name

    def property(self, at: int) -> int:
        if not self.tokens[at].endswith(";"):
            raise self.source.expected(at + 1, "';' after the property")
        return at + 1

    def network(self) -> int:
        at = self.source.expect(0, "network")
        if at < len(self.tokens) and self.tokens[at] != "{":
            self.name(at, "the network's name or '{'")
            at += 1
        at = self.source.expect(at, "{")
        while at < len(self.tokens) and _is_property(self.tokens[at]):
            at = self.property(at)
        return self.source.expect(at, "}", " or a property")

    def variable(self, at: int) -> int:
        source, tokens = self.source, self.tokens
        name = self.name(at, "the variable's name")
        if name in self.states:
            first = source.line(self.declared[name])
            raise source.error(at, f"expected a new variable, found {name!r} again (first in line {first})")
        self.declared[name] = at
        at = source.expect(at + 1, "{")
        states: tuple[str, ...] | None = None
        while at < len(tokens) and tokens[at] != "}":
            if _is_property(tokens[at]):
                at = self.property(at)
            elif tokens[at] == "type" and states is None:
                at, states = self.type(at + 1, name)
            else:
                raise source.expected(at, f"'type', a property or '}}' in the block of variable {name!r}")
        if states is None:
            raise source.expected(at, f"the type of variable {name!r}")
        self.states[name] = states
        self.index[name] = {state: position for position, state in enumerate(states)}
        return source.expect(at, "}")

    def type(self, at: int, name: str) -> tuple[int, tuple[str, ...]]:
        source, tokens = self.source, self.tokens
        at = source.expect(at, "discrete", f" as the type of variable {name!r}")
        at = source.expect(at, "[")
        count_at, count = at, source.integer(at, "the number of states", low=1)
        at = source.expect(at + 1, "]")
        at = source.expect(at, "{")
        states: dict[str, None] = {}
        while at < len(tokens) and tokens[at] != "}":
            state = self.name(at, f"a state of variable {name!r} or '}}'")
            if state in states:
                raise source.error(at, f"expected a new state of variable {name!r}, found {state!r} again")
            states[state] = None
            at += 1
        at = source.expect(at, "}", f" after the states of variable {name!r}")
        if len(states) != count:
            raise source.error(count_at, f"expected {count} states of variable {name!r}, found {len(states)}")
        return source.expect(at, ";"), tuple(states)

    def known(self, at: int, what: str) -> str:
        """The name of a variable that some block declares."""
        name = self.name(at, what)
        if name not in self.states:
            raise self.source.error(
                at, f"expected a variable, found unknown {name!r}.{nearest(name, self.states)}"
            )
        return name

    def probability(self, at: int) -> None:
        source, tokens = self.source, self.tokens
        at = source.expect(at, "(")
        child, block = self.known(at, "a variable"), at
        if child in self.parents:
            first = source.line(self.blocks[child])
            raise source.error(
                at, f"expected one probability block for {child!r}, found another (first: line {first})"
            )
        at += 1
        if at < len(tokens) and tokens[at] == "|":
            at += 1
        parents: dict[str, None] = {}
        while at < len(tokens) and tokens[at] != ")":
            parent = self.known(at, "a parent or ')'")
            if parent in parents or parent == child:
                raise source.error(at, f"expected each variable once, found {parent!r} again")
            parents[parent] = None
            at += 1
        if len(parents) >= MOST_DIMS:
            raise source.error(
                block, f"expected fewer than {MOST_DIMS} parents of {child!r}, found {len(parents)}"
            )
        at = source.expect(source.expect(at, ")"), "{")
        self.parents[child], self.blocks[child] = list(parents), block
        rows = ConditionalRows(source, child, list(parents), self.states, self.index, block, self.room)
        stop = source.find("}", at, len(tokens))
        while at < stop:
            at = self.property(at) if _is_property(tokens[at]) else rows.entry(at, stop)
        source.expect(stop, "}", f" after the probabilities of {child!r}")
        name = conditional_name(child, list(parents))
        while name in self.tables:  # names with " | " in them
            name += "'"
        self.tables[name] = (*parents, child), rows.table()


def _is_property(token: str) -> bool:
    return token.startswith("property") and (len(token) == 8 or token[8] == '"' or token[8].isspace())
