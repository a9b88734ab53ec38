"""Which format a network file has: its suffix says, else its first word."""

from __future__ import annotations

import os
from pathlib import Path

from sumout.errors import ParseError
from sumout.factors import FactorGraph
from sumout.io.bif import parse_bif
from sumout.io.network import Network
from sumout.io.source import read_text
from sumout.io.uai import parse_uai

_PARSERS = {".bif": parse_bif, ".uai": parse_uai}


def read_network(path: str | os.PathLike[str]) -> FactorGraph:
    """Reads a network in any format known here.

    Args:
        path: the file; ``.bif`` and ``.uai`` name their format, of others the first word decides.

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
    parse = _PARSERS.get(Path(path).suffix.lower())
    if parse is None:
        words = text.split(maxsplit=1)
        start = words[0] if words else ""
        if start in ("MARKOV", "BAYES"):
            parse = parse_uai
        elif start.startswith(("network", "//", "/*")):
            parse = parse_bif
        else:
            found = repr(start[:40]) if start else "nothing"
            raise ParseError(
                path, 1, f"expected a BIF file ('network') or a UAI file ('MARKOV', 'BAYES'), found {found}"
            )
    return parse(path, text)
