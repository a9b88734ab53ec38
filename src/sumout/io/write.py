"""Networks to files: BIF, XMLBIF and UAI, with every digit of a float."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from sumout.errors import GraphError
from sumout.factors import FactorGraph
from sumout.io.from_graph import network_of
from sumout.io.network import MOST_DIMS, Network

_PLAIN = re.compile(r'(?!property$)(?:[^\s{}()\[\]|,;"/]|/(?![/*]))+')
_NOT_XML = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def write_network(graph: FactorGraph, path: str | os.PathLike[str]) -> None:
    """Writes a graph to a file.

    - ``.uai``: any graph without plates; ``BAYES`` for a Bayesian network (see :func:`network_of`), else
      ``MARKOV``. Names and labels are lost: variables are numbered in the order of ``network_of(graph).states``.
    - ``.bif``; ``.xml``, ``.xmlbif``, ``.bifxml``: a Bayesian network.

    Numbers are written so that they are read back as they are; a reader divides rows by their sums.

    Args:
        graph: from a file, from ``FactorGraph.from_tables``, or from a program without plates.
        path: the file, replaced if it exists; its suffix tells the format.

    Raises:
        GraphError: the graph does not fit the format, or the suffix is of no format that can be written.
        OSError: the file cannot be written.

    >>> path = getfixture("tmp_path") / "coin.uai"
    >>> write_network(FactorGraph.from_tables({"coin": (["side"], [0.5, 0.5])}), path)
    >>> print(path.read_text(), end="")
    BAYES
    1
    2
    1
    1 0
    <BLANKLINE>
    2
     0.5 0.5
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        raise GraphError(
            f"The file {os.fspath(path)!r} has the suffix {suffix!r}, but networks are written to "
            f"{', '.join(WRITERS)}."
        )
    text = WRITERS[suffix](network_of(graph))
    Path(path).write_text(text, encoding="utf-8", newline="\n")


def format_uai(network: Network) -> str:
    """The network in UAI format; see `write_network`."""
    number = {name: place for place, name in enumerate(network.states)}
    lines = ["BAYES" if network.directed else "MARKOV", str(len(number))]
    lines.append(" ".join(str(len(states)) for states in network.states.values()))
    lines.append(str(len(network.tables)))
    for name, (scope, _) in network.tables.items():
        if len(scope) > MOST_DIMS:
            raise GraphError(f"The factor {name!r} has {len(scope)} variables; {MOST_DIMS} are the most.")
        lines.append(" ".join(map(str, [len(scope), *(number[each] for each in scope)])))
    for _, entries in network.tables.values():
        lines += ["", str(entries.size), *(f" {row}" for row in _rows(entries, " "))]
    return "\n".join(lines) + "\n"


def format_bif(network: Network) -> str:
    """The network in the Bayesian Interchange Format; see `write_network`."""
    lines = ["network unknown {", "}"]
    for name, states in network.states.items():
        listed = ", ".join(_bif_word(state) for state in states)
        lines += [
            f"variable {_bif_word(name)} {{",
            f"  type discrete [ {len(states)} ] {{ {listed} }};",
            "}",
        ]
    for child, parents, entries in _conditionals(network, "BIF"):
        given = f" | {', '.join(map(_bif_word, parents))}" if parents else ""
        lines.append(f"probability ( {_bif_word(child)}{given} ) {{")
        rows = _rows(entries, ", ")
        if parents:
            labels = ([_bif_word(state) for state in network.states[parent]] for parent in parents)
            lines += [
                f"  ({', '.join(of_row)}) {row};"
                for of_row, row in zip(itertools.product(*labels), rows, strict=True)
            ]
        else:
            lines += [f"  table {row};" for row in rows]
        lines.append("}")
    return "\n".join(lines) + "\n"


def format_xmlbif(network: Network) -> str:
    """The network in XMLBIF, version 0.3; see `write_network`."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<BIF VERSION="0.3">',
        "<NETWORK>",
        "<NAME>unknown</NAME>",
    ]
    for name, states in network.states.items():
        lines += ['<VARIABLE TYPE="nature">', f"  <NAME>{_xml_word(name)}</NAME>"]
        lines += [f"  <OUTCOME>{_xml_word(state)}</OUTCOME>" for state in states]
        lines.append("</VARIABLE>")
    for child, parents, entries in _conditionals(network, "XMLBIF"):
        lines += ["<DEFINITION>", f"  <FOR>{_xml_word(child)}</FOR>"]
        lines += [f"  <GIVEN>{_xml_word(parent)}</GIVEN>" for parent in parents]
        lines += ["  <TABLE>", *(f"    {row}" for row in _rows(entries, " ")), "  </TABLE>", "</DEFINITION>"]
    return "\n".join([*lines, "</NETWORK>", "</BIF>"]) + "\n"


WRITERS: dict[str, Callable[[Network], str]] = {
    ".bif": format_bif,
    ".bifxml": format_xmlbif,
    ".uai": format_uai,
    ".xml": format_xmlbif,
    ".xmlbif": format_xmlbif,
}
"""The writer for each suffix."""


def _rows(entries: np.ndarray, between: str) -> Iterable[str]:
    """The table's rows, the last variable's states in each; numbers in the fewest digits that give them back."""
    width = entries.shape[-1] if entries.ndim else 1
    return (between.join(map(repr, row)) for row in entries.reshape(-1, width).tolist())


def _conditionals(network: Network, form: str) -> Iterator[tuple[str, tuple[str, ...], np.ndarray]]:
    if not network.directed:
        raise GraphError(
            f"The graph is no Bayesian network, which {form} holds: every variable must be the last input of just "
            "one factor, whose sums over it are 1. Write it as UAI."
        )
    for scope, entries in network.tables.values():
        if len(scope) > MOST_DIMS:
            raise GraphError(f"{scope[-1]!r} has {len(scope) - 1} parents; {MOST_DIMS - 1} are the most.")
        yield scope[-1], scope[:-1], entries


def _bif_word(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    if '"' in word or "\n" in word or "\r" in word or not word:
        raise GraphError(f"BIF cannot hold the name {word!r}: quotes and line breaks have no place in it.")
    return f'"{word}"'


def _xml_word(word: str) -> str:
    if not word or word != word.strip() or _NOT_XML.search(word):
        raise GraphError(
            f"XMLBIF cannot hold the name {word!r}: it may not begin or end with a blank, nor have control characters."
        )
    return escape(word)
