"""Which format a network file has: its suffix says, else its first words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from sumout.errors import ParseError
from sumout.factors import FactorGraph
from sumout.io.bif import parse_bif
from sumout.io.genie import parse_dsl
from sumout.io.hugin import parse_hugin
from sumout.io.network import Network
from sumout.io.source import read_text
from sumout.io.uai import parse_uai
from sumout.io.xdsl import parse_xdsl
from sumout.io.xmlbif import parse_xmlbif

Parser = Callable[[str | os.PathLike[str], str], Network]

PARSERS: dict[str, Parser] = {
    ".bif": parse_bif,
    ".bifxml": parse_xmlbif,
    ".dsl": parse_dsl,
    ".net": parse_hugin,
    ".uai": parse_uai,
    ".xdsl": parse_xdsl,
    ".xml": parse_xmlbif,
    ".xmlbif": parse_xmlbif,
}
"""The reader for each suffix."""

_ROOT = re.compile(r"<(BIF|smile)[\s>]")
_FIRST_WORDS: tuple[tuple[str, Parser], ...] = (
    (r"(MARKOV|BAYES)(\s|$)", parse_uai),
    (r"network[\s{]|//|/\*", parse_bif),
    (r"net\s*\{|%", parse_hugin),
    (r"net\s", parse_dsl),
)


def read_network(path: str | os.PathLike[str]) -> FactorGraph:
    """Reads a network in any format known here.

    Args:
        path: the file; ``.bif``, ``.xml``, ``.xmlbif``, ``.bifxml``, ``.uai``, ``.net``, ``.dsl`` and ``.xdsl`` name
            their format, of others the first words decide.

    Returns:
        The graph, as from :func:`read_bif` or :func:`read_uai`.

    Raises:
        ParseError: the file is malformed, or of no known format.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "net.txt"
    >>> _ = path.write_text("MARKOV 1 2  1 1 0  2 0.5 1.5")
    >>> read_network(path).states
    {'0': ('0', '1')}
    """
    return parse_network(path, read_text(path)).to_graph()


def parse_network(path: str | os.PathLike[str], text: str) -> Network:
    """The network that a text describes; ``path`` tells its format and is named in errors."""
    parse = PARSERS.get(Path(path).suffix.lower()) or _by_content(text.lstrip())
    if parse is None:
        words = text.split(maxsplit=1)
        found = repr(words[0][:40]) if words else "nothing"
        raise ParseError(
            path,
            1,
            "expected a file in BIF ('network'), UAI ('MARKOV', 'BAYES'), XMLBIF ('<BIF>'), Hugin's ('net {'), "
            f"or GeNIe's format ('net NAME', '<smile>'), found {found}",
        )
    return parse(path, text)


def _by_content(text: str) -> Parser | None:
    if text.startswith("<"):
        root = _ROOT.search(text)
        return None if root is None else parse_xmlbif if root[1] == "BIF" else parse_xdsl
    return next((parser for words, parser in _FIRST_WORDS if re.match(words, text)), None)
