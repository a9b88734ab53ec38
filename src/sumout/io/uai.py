"""The format of the UAI inference competitions.

Grammar (blanks and line breaks separate numbers and mean nothing else)::

    file  = ("MARKOV" | "BAYES") n cardinality*n  m scope*m table*m
    scope = k variable*k
    table = count entry*count          the scope's last variable varies fastest

Variables are numbered from 0. In a ``BAYES`` file a function is p(last variable of its scope | the others). There
are no comments: aGrUM writes some, into files with the parents in the reverse of this order, and that they are
refused saves the reader from a wrong network.
"""

from __future__ import annotations

import math
import os
import re

import numpy as np

from sumout.errors import ParseError
from sumout.factors import FactorGraph
from sumout.io.network import MOST_DIMS, Network, Table, conditional_name, cycle, normalised, row_states
from sumout.io.source import Source, read_text

_TOKEN = re.compile(r"\S+")
_MOST_STATES = 10_000
"""Of all variables that no table mentions: these alone could ask for any amount of memory."""


def read_uai(path: str | os.PathLike[str]) -> FactorGraph:
    """Reads a network in the UAI format, ``MARKOV`` or ``BAYES``.

    Args:
        path: the file.

    Returns:
        A graph with one float64 log-space factor per function, dims in the file's order. Variables are named
        ``"0"``, ``"1"``, ..., and so are their states. A variable that no function mentions gets a constant
        factor, so that it counts in the normalizer. The rows of a ``BAYES`` file are normalised.

    Raises:
        ParseError: the file is malformed, a row is off 1 by more than 1e-3, or the parents form a cycle.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "pair.uai"
    >>> _ = path.write_text("MARKOV 2 2 2  1 2 0 1  4 1.0 2.0 3.0 4.0")
    >>> graph = read_uai(path)
    >>> graph.factors[0].inputs, graph.factors[0].data.exp().round(decimals=6).tolist()
    (('0', '1'), [[1.0, 2.0], [3.0, 4.0]])
    """
    return parse_uai(path, read_text(path)).to_graph()


def parse_uai(path: str | os.PathLike[str], text: str) -> Network:
    """The network that a UAI text describes; ``path`` is named in errors."""
    source = Source(path, text, _TOKEN)
    if source.tokens[:1] not in (["MARKOV"], ["BAYES"]):
        raise source.expected(0, "'MARKOV' or 'BAYES'")
    count = source.integer(1, "the number of variables", low=1)
    sizes = _integers(source, 2, count, "the number of states of variable {}", low=1)
    at = 2 + count
    functions = source.integer(at, "the number of functions")
    at += 1
    scopes: list[list[int]] = []
    scopes_at: list[int] = []
    for function in range(functions):
        length = source.integer(at, f"the number of variables of function {function}")
        if length > MOST_DIMS:
            raise source.expected(at, f"at most {MOST_DIMS} variables of function {function}")
        scope = _integers(source, at + 1, length, f"a variable of function {function}")
        for offset, variable in enumerate(scope):
            if variable >= count:
                raise source.expected(
                    at + 1 + offset, f"a variable of function {function} (0 to {count - 1})"
                )
        if len(set(scope)) < len(scope):
            raise source.error(at, f"expected each variable of function {function} once, found one again")
        scopes.append(scope)
        scopes_at.append(at)
        at += 1 + length
    tables: list[Table] = []
    tables_at: list[int] = []
    for function, scope in enumerate(scopes):
        entries = math.prod(sizes[variable] for variable in scope)
        if source.integer(at, f"the number of entries of function {function}") != entries:
            over = " x ".join(str(sizes[variable]) for variable in scope) or "no variables"
            raise source.expected(at, f"{entries} entries of function {function} ({over})")
        at += 1
        values = source.numbers(at, at + entries, f"an entry of function {function}")
        if len(values) != entries:
            raise source.expected(at + len(values), f"{entries} entries of function {function}")
        tables.append(np.array(values).reshape([sizes[variable] for variable in scope]))
        tables_at.append(at)
        at += entries
    if at != len(source.tokens):
        raise source.expected(at, "the end of the file")
    used = {variable for scope in scopes for variable in scope}
    unused = 0
    for variable, size in enumerate(sizes):
        unused += 0 if variable in used else size
        if unused > _MOST_STATES:
            raise source.expected(
                2 + variable, f"at most {_MOST_STATES} states of variables without a function"
            )
    states = {str(variable): tuple(map(str, range(size))) for variable, size in enumerate(sizes)}
    if source.tokens[0] == "MARKOV":
        named = {
            f"function {function} ({', '.join(map(str, scope))})": (tuple(map(str, scope)), table)
            for function, (scope, table) in enumerate(zip(scopes, tables, strict=True))
        }
        for variable, size in enumerate(sizes):
            if variable not in used:
                named[f"no function ({variable})"] = (str(variable),), np.ones(size)
        return Network(states, named, directed=False)
    return Network(states, _conditionals(source, states, scopes, scopes_at, tables, tables_at), directed=True)


def _integers(source: Source, start: int, count: int, what: str, low: int = 0) -> list[int]:
    if start + count > len(source.tokens):  # before a loop as long as a wrong count
        for at in range(start, len(source.tokens)):
            source.integer(at, what.format(at - start), low)
        raise source.expected(len(source.tokens), what.format(len(source.tokens) - start))
    return [source.integer(start + offset, what.format(offset), low) for offset in range(count)]


def _conditionals(
    source: Source,
    states: dict[str, tuple[str, ...]],
    scopes: list[list[int]],
    scopes_at: list[int],
    tables: list[Table],
    tables_at: list[int],
) -> dict[str, tuple[tuple[str, ...], Table]]:
    """Checks that the functions are one conditional per variable, and normalises them."""
    named: dict[str, tuple[tuple[str, ...], Table]] = {}
    parents: dict[str, list[str]] = {}
    place: dict[str, int] = {}
    for scope, scope_at, table, table_at in zip(scopes, scopes_at, tables, tables_at, strict=True):
        names = tuple(map(str, scope))
        if not names:
            raise source.expected(scope_at, "a child variable, the scope's last")
        *given, child = names
        if child in parents:
            raise source.error(
                scope_at, f"expected one function per variable, found another with last {child!r}"
            )
        parents[child], place[child] = given, scope_at
        rows, off, total = normalised(table.reshape(-1, len(states[child])))
        if off is not None:
            raise _bad_row(source, table_at + off * rows.shape[1], child, given, states, off, total)
        named[conditional_name(child, given)] = names, rows.reshape(table.shape)
    for name in states:
        if name not in parents:
            raise source.error(
                len(source.tokens), f"expected a function of variable {name!r} given its parents, found none"
            )
    if loop := cycle(parents):
        raise source.error(place[loop[0]], f"expected no cycle, found {' -> '.join(loop)}")
    return named


def _bad_row(
    source: Source,
    at: int,
    child: str,
    given: list[str],
    states: dict[str, tuple[str, ...]],
    row: int,
    total: float,
) -> ParseError:
    where = f" given {row_states(row, [(name, states[name]) for name in given])}" if given else ""
    return source.error(at, f"expected entries of variable {child!r}{where} that sum to 1, found {total:.6g}")
