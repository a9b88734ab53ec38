"""Evidence files: which variable was seen in which state."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence

from sumout.errors import ParseError
from sumout.io.source import Source, read_text

_WORD = re.compile(r"#[^\n]*|[^\s#]+")

State = str | int
"""A state's label, or its position from 0."""


def read_evidence(path: str | os.PathLike[str]) -> dict[str, State]:
    """Reads evidence; the file's contents tell its form.

    - UAI: ``count variable state variable state ...``, whole numbers; also with the number of samples before
      it, which must be 1 (:func:`read_evidence_samples` reads more). An empty file, or ``0``, is no evidence.
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
    if is_uai(text):
        samples = parse_samples(path, text)
        if len(samples) != 1:
            raise ParseError(
                path,
                samples[1][1],
                f"expected one sample, found {len(samples)}: read them with read_evidence_samples",
            )
        return samples[0][0]
    return _lines(path, lines)


def is_uai(text: str) -> bool:
    """Whether an evidence text has UAI's form: nothing but numbers and comments."""
    lines = (line.strip() for line in text.split("\n"))
    return all(re.fullmatch(r"[-+0-9.\s]*(#.*)?", line) for line in lines)


def parse_samples(path: str | os.PathLike[str], text: str) -> list[tuple[dict[str, State], int]]:
    """The samples of a UAI evidence text, each with its line: one sample unless the file counts several."""
    source = Source(path, text, _WORD, comments=("#",))
    if not source.tokens:
        return [({}, 1)]
    lines = [
        number for number, line in enumerate(text.split("\n"), 1) for _ in line.partition("#")[0].split()
    ]
    return [(_sample(source, at), lines[at]) for at in _starts(source, lines)]


def _starts(source: Source, lines: Sequence[int]) -> list[int]:
    """The tokens at which the samples begin.

    "n pairs" is one sample; "k" and then k times "n pairs" are k. Numbers that can be read both ways are k
    samples where each has a line of its own.
    """
    numbers = [source.integer(at, _what(at)) for at in range(len(source.tokens))]
    alone = len(numbers) == 1 + 2 * numbers[0]
    starts: list[int] = []
    at = 1
    while len(starts) < numbers[0] and at < len(numbers):
        starts.append(at)
        at += 1 + 2 * numbers[at]
    counted = len(starts) == numbers[0] > 0 and at == len(numbers)
    if alone and counted:
        begins = [at for at in range(len(lines)) if at == 0 or lines[at] > lines[at - 1]]
        return starts if begins == [0, *starts] else [0]
    if alone or counted:
        return starts if counted else [0]
    if len(numbers) % 2:
        raise source.error(0, _found(numbers, 0))
    if numbers[0] == 1:
        raise source.error(1, _found(numbers, 1))
    raise source.error(
        0,
        f"expected {numbers[0]} pairs of a variable and a state, or {numbers[0]} samples, "
        f"found {len(numbers) - 1} numbers",
    )


def _what(at: int) -> str:
    return (
        "the number of observed variables or of samples"
        if at == 0
        else "an observed variable, state or count"
    )


def _found(numbers: list[int], at: int) -> str:
    return f"expected {numbers[at]} pairs of a variable and a state, found {(len(numbers) - at - 1) / 2:g}"


def _sample(source: Source, at: int) -> dict[str, State]:
    evidence: dict[str, State] = {}
    for place in range(at + 1, at + 1 + 2 * int(source.tokens[at]), 2):
        name, state = str(int(source.tokens[place])), int(source.tokens[place + 1])
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
