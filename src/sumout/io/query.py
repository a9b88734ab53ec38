"""Query files: which variables are asked for."""

from __future__ import annotations

import os
import re

from sumout.errors import ParseError
from sumout.io.evidence import unquoted
from sumout.io.source import Source, read_text


def read_query(path: str | os.PathLike[str]) -> list[str]:
    """Reads the names of the variables that are asked for; the file's contents tell its form.

    - UAI (the query files of marginal MAP): ``count variable variable ...``, whole numbers.
    - Text: a name per line; blank lines and those that start with ``#`` are skipped.

    Args:
        path: the file.

    Raises:
        ParseError: the file is malformed, or has a variable twice.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "asked.query"
    >>> _ = path.write_text("2 7 11")
    >>> read_query(path)
    ['7', '11']
    """
    return parse_query(path, read_text(path))


def parse_query(path: str | os.PathLike[str], text: str) -> list[str]:
    """The names that a query text lists; ``path`` is named in errors."""
    source = Source(path, text, re.compile(r"[^\n]+"))
    lines = [(at, line.strip()) for at, line in enumerate(source.tokens)]
    lines = [(at, line) for at, line in lines if line and not line.startswith("#")]
    if all(re.fullmatch(r"[-+0-9.\s]+", line) for _, line in lines):
        return _uai(Source(path, text, re.compile(r"#[^\n]*|[^\s#]+"), ("#",)))
    names: dict[str, None] = {}
    for at, line in lines:
        name = unquoted(line)
        if not name:
            raise source.expected(at, "the name of a variable")
        if name in names:
            raise _again(source, at, name)
        names[name] = None
    return list(names)


def _uai(source: Source) -> list[str]:
    if not source.tokens:
        return []
    count = source.integer(0, "the number of variables")
    if len(source.tokens) != 1 + count:
        raise source.error(0, f"expected {count} variables, found {len(source.tokens) - 1}")
    names: dict[str, None] = {}
    for at in range(1, 1 + count):
        name = str(source.integer(at, "a variable"))
        if name in names:
            raise _again(source, at, name)
        names[name] = None
    return list(names)


def _again(source: Source, at: int, name: str) -> ParseError:
    return source.error(at, f"expected each variable once, found {name!r} again")
