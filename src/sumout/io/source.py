"""A file as a list of tokens that know their lines.

Tokens are found by one call of a regular expression, and a token's line is worked out only when an error
needs it: reading stays linear and quick, and every complaint still says where.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from sumout.errors import ParseError

_MARKS = (  # that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_NOT_NUMERIC = re.compile(r"[^0-9eE+\-. ]")
_TINY = re.compile(r"[eE]-|\.0{200}")  # in a number that is not zero but would be read as zero
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def read_text(path: str | os.PathLike[str]) -> str:
    """The file's text with newlines as ``\\n``.

    It is in UTF-8; in UTF-16 or UTF-32 where it begins with their mark; in Latin-1 where the bytes are not UTF-8.
    """
    raw = Path(path).read_bytes()
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8-sig")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Source:
    """The tokens of one file.

    Args:
        path: named in errors.
        text: the file's contents.
        pattern: matches one token; what it skips (blanks, separators) is no token. It has no groups.
        comments: tokens that start with one of these are left out.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        text: str,
        pattern: re.Pattern[str],
        comments: tuple[str, ...] = (),
    ) -> None:
        self.path = os.fspath(path)
        self.text = text
        self._pattern = pattern
        self._comments = tuple(each for each in comments if each in text)
        self.tokens: list[str] = pattern.findall(text)
        self.last = (
            self.tokens[-1] if self.tokens else ""
        )  # comments included: one that is not closed ends the file
        if self._comments:
            self.tokens = [token for token in self.tokens if not token.startswith(self._comments)]

    def _matches(self) -> Iterator[re.Match[str]]:
        for match in self._pattern.finditer(self.text):
            if not (self._comments and match.group().startswith(self._comments)):
                yield match

    def line(self, at: int) -> int:
        """The line, from 1, of token number ``at``; the last that is not blank if there is none."""
        match = next(islice(self._matches(), at, None), None)
        offset = len(self.text.rstrip()) if match is None else match.start()
        return self.text.count("\n", 0, offset) + 1

    def found(self, at: int) -> str:
        """Token number ``at`` as an error names it."""
        if at >= len(self.tokens):
            return "found the end of the file"
        token = self.tokens[at]
        return f"found {token if len(token) <= 40 else token[:40] + '...'!r}"

    def error(self, at: int, problem: str) -> ParseError:
        """A problem at token number ``at``."""
        return ParseError(self.path, self.line(at), problem)

    def expected(self, at: int, what: str) -> ParseError:
        """Token number ``at`` is not what the format wants there."""
        return self.error(at, f"expected {what}, {self.found(at)}")

    def expect(self, at: int, token: str, where: str = "") -> int:
        """Checks that token number ``at`` is this one; the number of the next."""
        if at >= len(self.tokens) or self.tokens[at] != token:
            raise self.expected(at, f"{token!r}{where}")
        return at + 1

    def find(self, token: str, start: int, stop: int) -> int:
        """The number of the first such token from ``start``; ``stop`` when there is none before it."""
        try:
            return self.tokens.index(token, start, stop)
        except ValueError:
            return stop

    def integer(self, at: int, what: str, low: int = 0) -> int:
        """Token number ``at`` as a whole number of at least ``low``."""
        token = self.tokens[at] if at < len(self.tokens) else ""
        if not (token.isascii() and token.isdecimal()) or len(token) > 18 or int(token) < low:
            raise self.expected(at, f"{what} (a whole number, {low} or more)")
        return int(token)

    def numbers(self, start: int, stop: int, what: str) -> list[float]:
        """Tokens ``start`` to ``stop`` as finite numbers that are not negative.

        Raises:
            ParseError: at the first that is something else.
        """
        return self.numbers_at(range(start, stop), what)

    def numbers_at(self, places: Sequence[int], what: str) -> list[float]:
        """The tokens of these numbers, the same way."""
        if isinstance(places, range):
            words = self.tokens[places.start : places.stop]
        else:
            words = [self.tokens[place] for place in places]
        values = as_numbers(words)
        if values is None:
            at, problem = bad_number(words, what)
            raise self.expected(places[at], problem)
        return values


def as_numbers(words: list[str]) -> list[float] | None:
    """Words as finite numbers that are not negative; None unless each is one.

    A number too small for a float is none: it would be read as an impossibility.

    >>> as_numbers(["0.5", "1e-3"]), as_numbers(["0.5", "nan"]), as_numbers(["1e-400"])
    ([0.5, 0.001], None, None)
    """
    try:
        values = list(map(float, words))
    except ValueError:
        return None
    if values:
        text = " ".join(words)
        least = min(values)
        if least < 0 or max(values) == float("inf") or _NOT_NUMERIC.search(text):
            return None
        if least == 0 and _TINY.search(text) and any(map(_vanished, words, values)):
            return None
    return values


def bad_number(words: list[str], what: str) -> tuple[int, str]:
    """The first word that is no such number, and what was expected in its place."""
    for at, word in enumerate(words):
        if _NUMBER.fullmatch(word) is None:
            return at, what
        value = float(word)
        if value < 0 or value == float("inf"):
            return at, f"{what} that is finite and not negative"
        if _vanished(word, value):
            return at, f"{what} that is zero or at least 1e-323"
    raise AssertionError("called without a bad number")


def _vanished(word: str, value: float) -> bool:
    return value == 0 and any(digit in "123456789" for digit in re.split("[eE]", word)[0])
