"""Evidence files: which variable was seen in which state."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable

from sumout.errors import ParseError
from sumout.io.source import Source, read_text

State = str | int
"""A state's label, or its position from 0."""


def read_evidence(path: str | os.PathLike[str]) -> dict[str, State]:
    """Reads evidence; the file's contents tell its form.

    - UAI: ``count variable state variable state ...``, whole numbers; also with the number of samples before
      it, which must be 1. An empty file, or ``0``, is no evidence.
    - JSON: one object, ``{"name": "label"}`` or ``{"name": position}``.
    - Text: a line ``NAME=STATE`` (or ``NAME STATE``) per variable; blank lines and those that start with
      ``#`` are skipped.

    Args:
        path: the file.

    Returns:
        Name -> state: a position (``int``) from UAI and JSON numbers, a label (``str``) otherwise.

    Raises:
        ParseError: the file is malformed, or gives one variable two states.
        OSError: it cannot be opened.

    >>> path = getfixture("tmp_path") / "seen.evid"
    >>> _ = path.write_text("2 7 0 11 1")
    >>> read_evidence(path)
    {'7': 0, '11': 1}
    """
    return parse_evidence(path, read_text(path))


def parse_evidence(path: str | os.PathLike[str], text: str) -> dict[str, State]:
    """The evidence that a text states; ``path`` is named in errors."""
    if text.lstrip().startswith("{"):
        return _json(path, text)
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if all(re.fullmatch(r"[-+0-9.\s]*", line) for _, line in lines):
        return _uai(Source(path, text, re.compile(r"#[^\n]*|\S+"), comments=("#",)))
    return _lines(path, lines)


def _uai(source: Source) -> dict[str, State]:
    tokens = source.tokens
    if not tokens:
        return {}
    at = 0
    # "n pairs" has an odd number of numbers, "1 n pairs" an even one; no other sign tells them apart.
    if len(tokens) % 2 == 0:
        if tokens[0] != "1":
            pairs = source.integer(0, "the number of observed variables")
            raise source.error(
                0,
                f"expected {pairs} pairs of a variable and a state, or one sample, "
                f"found {len(tokens) - 1} numbers",
            )
        at = 1
    count = source.integer(at, "the number of observed variables")
    if len(tokens) != at + 1 + 2 * count:
        found = f"{(len(tokens) - at - 1) / 2:g}"
        raise source.error(at, f"expected {count} pairs of a variable and a state, found {found}")
    evidence: dict[str, State] = {}
    for place in range(at + 1, len(tokens), 2):
        name = str(source.integer(place, "an observed variable"))
        state = source.integer(place + 1, f"the state of variable {name}")
        _add(evidence, name, state, source.path, place, source)
    return evidence


def _lines(path: str | os.PathLike[str], lines: Iterable[tuple[int, str]]) -> dict[str, State]:
    evidence: dict[str, State] = {}
    for number, line in lines:
        name, equals, state = line.partition("=")
        if not equals:
            name, state = [*line.split(maxsplit=1), ""][:2]
        name, state = unquoted(name), unquoted(state)
        if not name or not state or (not equals and len(state.split()) > 1):
            shown = line if len(line) <= 40 else line[:40] + "..."
            raise ParseError(path, number, f"expected NAME=STATE, found {shown!r}")
        _add(evidence, name, state, path, number)
    return evidence


def _json(path: str | os.PathLike[str], text: str) -> dict[str, State]:
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except json.JSONDecodeError as error:
        raise ParseError(path, error.lineno, f"expected JSON, found a mistake: {error.msg}") from None
    except (RecursionError, ValueError):  # nested a thousand deep; a number of thousands of digits
        raise ParseError(
            path, 1, "expected one JSON object of names and states, found something else"
        ) from None
    evidence: dict[str, State] = {}
    for name, state in pairs:
        line = text.count("\n", 0, max(text.find(json.dumps(name)), 0)) + 1
        if isinstance(state, bool) or not isinstance(state, (str, int)):
            raise ParseError(
                path, line, f"expected a state's label or position for {name!r}, found {state!r:.40}"
            )
        _add(evidence, name, state, path, line)
    return evidence


def unquoted(word: str) -> str:
    """A name or label without blanks and a pair of double quotes around it.

    >>> unquoted(' "left ventricle" ')
    'left ventricle'
    """
    word = word.strip()
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] == '"' else word


def _add(
    evidence: dict[str, State],
    name: str,
    state: State,
    path: str | os.PathLike[str],
    place: int,
    source: Source | None = None,
) -> None:
    if evidence.setdefault(name, state) != state:
        line = place if source is None else source.line(place)
        raise ParseError(
            path, line, f"expected one state of {name!r}, found {evidence[name]!r} and {state!r}"
        )
