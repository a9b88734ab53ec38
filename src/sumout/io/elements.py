"""An XML file as a small tree of elements that know their lines.

The parser is the standard library's expat. Entities are refused where they are declared, before any is
expanded, and nothing outside the file is ever read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from xml.parsers import expat

from sumout.errors import ParseError
from sumout.io.network import Complaint
from sumout.io.source import as_numbers, bad_number

_DEEPEST = 50
_LONGEST_DEFAULT = 100  # characters of an attribute's default, which a file could repeat at every element
_WORD = re.compile(r"[^\s,]+")


@dataclass
class Element:
    """One element: its name, attributes, children, and the pieces of its own text with their lines."""

    path: str
    tag: str
    line: int
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    pieces: list[tuple[int, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its own text, without that of its children and without blanks around it."""
        return "".join(piece for _, piece in self.pieces).strip()

    def error(self, problem: str) -> ParseError:
        """A problem at the line where the element begins."""
        return ParseError(self.path, self.line, problem)

    def all(self, tag: str) -> list[Element]:
        """Its children of this name."""
        return [child for child in self.children if child.tag == tag]

    def one(self, tag: str) -> Element:
        """Its one child of this name."""
        found = self.all(tag)
        if len(found) != 1:
            place = found[1] if found else self
            raise place.error(f"expected one <{tag}> in <{self.tag}>, found {len(found) or 'none'}")
        return found[0]

    def word(self) -> str:
        """Its text, which must not be empty."""
        if not self.text:
            raise self.error(f"expected a text in <{self.tag}>, found none")
        return self.text

    def attribute(self, name: str) -> str:
        """The value of an attribute that it must have."""
        if not self.attributes.get(name):
            raise self.error(f"expected the attribute {name!r} of <{self.tag}>, found none")
        return self.attributes[name]

    def numbers(self, what: str) -> list[float]:
        """Its text as finite numbers that are not negative, blanks or commas between them."""
        words = _WORD.findall(self.text)
        values = as_numbers(words)
        if values is None:
            at, problem = bad_number(words, what)
            raise self.at(at)(f"expected {problem}, found {words[at][:40]!r}")
        return values

    def at(self, number: int) -> Complaint:
        """The place of a word of its text, by number."""
        pieces = "".join(piece for _, piece in self.pieces)
        start = next((m.start() for i, m in enumerate(_WORD.finditer(pieces)) if i == number), 0)
        line = self.line
        for first, piece in self.pieces:
            line = first + piece.count("\n", 0, start)
            if start < len(piece):
                break
            start -= len(piece)
        return partial(ParseError, self.path, line)


def parse_elements(path: str | os.PathLike[str], text: str, expected: Sequence[str]) -> Element:
    """The root element of an XML text.

    Args:
        path: named in errors.
        text: the file's contents.
        expected: the names that the root may have.

    Raises:
        ParseError: the text is not well-formed XML, declares entities, or has another root.

    >>> root = parse_elements("x.xml", "<a>1<b c='2'/></a>", ["a"])
    >>> root.text, root.one("b").attributes
    ('1', {'c': '2'})
    """
    name = os.fspath(path)
    parser = expat.ParserCreate("utf-8")  # whatever the file declares: it has been decoded before
    roots: list[Element] = []
    open_elements: list[Element] = []

    def fail(problem: str) -> ParseError:
        return ParseError(name, parser.CurrentLineNumber, problem)

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(name, tag, parser.CurrentLineNumber, attributes)
        if not open_elements and tag not in expected:
            raise fail(f"expected {' or '.join(f'<{each}>' for each in expected)}, found <{tag[:40]}>")
        if len(open_elements) > _DEEPEST:
            raise fail(f"expected at most {_DEEPEST} elements in one another, found more")
        (open_elements[-1].children if open_elements else roots).append(element)
        open_elements.append(element)

    def data(piece: str) -> None:
        open_elements[-1].pieces.append((parser.CurrentLineNumber, piece))

    def no_entity(entity: str, *_: object) -> None:
        raise fail(f"expected a file without entities, found the declaration of {entity[:40]!r}")

    def no_long_default(_: str, attribute: str, kind: str, default: str | None, required: int) -> None:
        if len(default or "") > _LONGEST_DEFAULT:
            raise fail(f"expected a short default of the attribute {attribute[:40]!r}, found a long one")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = data
    parser.EntityDeclHandler = no_entity
    parser.AttlistDeclHandler = no_long_default
    try:
        parser.Parse(text.encode("utf-8", "surrogatepass"), True)
    except expat.ExpatError as error:
        raise ParseError(
            name, error.lineno, f"expected XML, found a mistake: {expat.ErrorString(error.code)}"
        ) from None
    return roots[0]


def unexpected(parent: Element, known: Sequence[str]) -> Iterator[Element]:
    """The children of other names than the known ones."""
    return (child for child in parent.children if child.tag not in known)
