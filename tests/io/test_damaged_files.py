"""Whatever is done to a file, reading it ends in a network or in a ParseError, and soon."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumout.errors import ParseError
from sumout.io import (
    Network,
    network_of,
    parse_bif,
    parse_dsl,
    parse_evidence,
    parse_evidence_csv,
    parse_evidence_samples,
    parse_hugin,
    parse_network,
    parse_query,
    parse_uai,
    parse_xdsl,
    parse_xmlbif,
    read_bif,
)
from sumout.io.source import read_text
from sumout.io.write import format_uai, format_xmlbif

DATA = Path(__file__).parents[1] / "data"
BIF = (DATA / "networks" / "asia.bif").read_text()
LONG_BIF = (DATA / "networks" / "insurance.bif").read_text()
ASIA = network_of(read_bif(DATA / "networks" / "asia.bif"))
UAI = """BAYES 3 2 3 2  3  1 0  2 0 1  3 0 1 2
2 0.25 0.75  6 0.5 0.25 0.25 0.2 0.3 0.5
12 0.5 0.5 1 0 0.1 0.9  0.25 0.75 0 1 0.125 0.875
"""
MARKOV = "MARKOV\n3\n2 3 2\n3\n1 0\n2 0 1\n2 1 2\n\n2\n1 2\n\n6\n1 0 3 4 5 6\n\n6\n1 2 3 4e5 5 0.6\n"


def nested(values: object) -> str:
    return f"({' '.join(map(nested, values))})" if isinstance(values, list) else repr(values)


def as_hugin(network: Network) -> str:
    """The network in Hugin's format."""
    lines = ["net\n{\n  node_size = (80 40);\n}"]
    lines += [f"node {name}\n{{\n  states = ({' '.join(each)});\n}}" for name, each in network.states.items()]
    for (*parents, child), entries in network.tables.values():
        lines.append(
            f"potential ({child} | {' '.join(parents)})\n{{\n  data = {nested(entries.tolist())};\n}}"
        )
    return "\n".join(lines) + "\n"


def as_dsl(network: Network) -> str:
    """The network in GeNIe's older format."""
    lines = ["net x\n{"]
    for (*parents, child), entries in network.tables.values():
        states = ", ".join(network.states[child])
        listed = ", ".join(map(repr, entries.ravel().tolist()))
        lines.append(
            f"  node {child}\n  {{\n    TYPE = CPT;\n    PARENTS = ({', '.join(parents)});\n    DEFINITION = {{\n"
            f"      NAMESTATES = ({states});\n      PROBABILITIES = ({listed});\n    }};\n  }};"
        )
    return "\n".join([*lines, "};"]) + "\n"


def as_xdsl(network: Network) -> str:
    """The network in GeNIe's format."""
    lines = ['<?xml version="1.0"?>\n<smile version="1.0">\n<nodes>']
    for (*parents, child), entries in network.tables.values():
        lines.append(f'<cpt id="{child}">')
        lines += [f'<state id="{state}"/>' for state in network.states[child]]
        lines += [f"<parents>{' '.join(parents)}</parents>"] if parents else []
        lines.append(
            f"<probabilities>{' '.join(map(repr, entries.ravel().tolist()))}</probabilities>\n</cpt>"
        )
    return "\n".join([*lines, "</nodes>\n</smile>"]) + "\n"


Parser = Callable[[str, str], Network]
FORMATS: dict[str, tuple[Parser, str]] = {
    "bif": (parse_bif, BIF),
    "uai": (parse_uai, UAI),
    "markov": (parse_uai, MARKOV),
    "asia.uai": (parse_uai, format_uai(ASIA)),
    "xmlbif": (parse_xmlbif, format_xmlbif(ASIA)),
    "hugin": (parse_hugin, as_hugin(ASIA)),
    "dsl": (parse_dsl, as_dsl(ASIA)),
    "xdsl": (parse_xdsl, as_xdsl(ASIA)),
}
# Those in which every piece of a file lacks something: of UAI's last number, digits can be cut off.
CLOSED = [name for name in FORMATS if name not in ("uai", "markov", "asia.uai")]
PIECES = [
    *"{}()[]|;,\"'/*\\-.e09 \n\t_<>&=%#",
    *[
        "//",
        "/*",
        "*/",
        "property",
        "variable",
        "table",
        "default",
        "node",
        "net",
        "potential",
        "<!--",
        "-->",
    ],
    *[
        "1e999",
        "1e-999",
        "nan",
        "-1",
        "999999999999",
        "99999999999999999999999",
        "1" * 5000,
        "-0.0",
        "0x1",
        "1_0",
    ],
    *["<![CDATA[", "]]>", "<!ENTITY x 'y'>", "&x;", "<b>", "\x00", "\ud800", "\u0661"],
]


def check(network: Network) -> None:
    """What holds for every network that was accepted."""
    mentioned = {name for scope, _ in network.tables.values() for name in scope}
    assert mentioned == set(network.states)
    for scope, table in network.tables.values():
        assert table.shape == tuple(len(network.states[name]) for name in scope)
        assert np.isfinite(table).all()
        assert (table >= 0).all()
        if network.directed:
            np.testing.assert_allclose(table.sum(-1), 1, rtol=0, atol=1e-12)
    if network.directed:
        assert sorted(scope[-1] for scope, _ in network.tables.values()) == sorted(network.states)


def outcome(parse: Callable[[str, str], Any], text: str) -> Any:
    """What is read, or the ParseError, which names a line and what was expected there."""
    try:
        return parse("damaged", text)
    except ParseError as caught:
        error = caught
    assert 1 <= error.line <= text.replace("\r", "\n").count("\n") + 1
    assert error.problem.startswith("expected ")
    return error


@pytest.mark.parametrize("name", FORMATS)
def test_the_whole_files_are_read(name: str) -> None:
    parse, text = FORMATS[name]
    network = parse("whole", text)
    check(network)
    assert parse_network("whole", text).states == network.states
    if text not in (UAI, MARKOV):
        numbers = {each: str(place) for place, each in enumerate(ASIA.states)}
        for scope, entries in ASIA.tables.values():
            same = [scope, tuple(numbers[each] for each in scope)]
            (found,) = [table for of_table, table in network.tables.values() if of_table in same]
            np.testing.assert_allclose(found, entries, rtol=1e-15)


@pytest.mark.parametrize("name", CLOSED)
def test_every_truncation_is_an_error(name: str) -> None:
    parse, text = FORMATS[name]
    for kept in range(len(text.rstrip().rstrip(";"))):
        with pytest.raises(ParseError) as caught:
            parse("cut", text[:kept])
        assert 1 <= caught.value.line <= text.count("\n") + 1
        assert caught.value.problem.startswith("expected ")


@given(kept=st.integers(0, len(LONG_BIF.rstrip()) - 1))
def test_truncations_of_a_long_bif_file_are_errors(kept: int) -> None:
    with pytest.raises(ParseError):
        parse_bif("cut.bif", LONG_BIF[:kept])


def mutations(text: str) -> st.SearchStrategy[str]:
    """The text with one to three places replaced, deleted, doubled, or inserted, or two of its lines swapped."""
    place = st.tuples(
        st.integers(0, len(text)),
        st.integers(0, 12),
        st.one_of(st.sampled_from(PIECES), st.text(max_size=3), st.just(None)),
    )
    lines = text.split("\n")
    swap = st.tuples(st.integers(0, len(lines) - 1), st.integers(0, len(lines) - 1), st.just("swap"))

    def change(changes: list[tuple[int, int, str | None]]) -> str:
        changed = text
        for start, length, piece in changes:
            if piece == "swap":
                swapped = changed.split("\n")
                if max(start, length) < len(swapped):
                    swapped[start], swapped[length] = swapped[length], swapped[start]
                changed = "\n".join(swapped)
                continue
            doubled = changed[start : start + length] * 2
            changed = changed[:start] + (doubled if piece is None else piece) + changed[start + length :]
        return changed

    return st.lists(place | swap, min_size=1, max_size=3).map(change)


def tokens_changed(text: str) -> st.SearchStrategy[str]:
    """The text with one word or number in it replaced by another of its own, or by a piece."""
    words = [match.span() for match in re.finditer(r"[\w.]+", text)]

    def change(place: tuple[int, int], piece: str) -> str:
        return text[: place[0]] + piece + text[place[1] :]

    pieces = st.sampled_from(sorted({text[start:stop] for start, stop in words})) | st.sampled_from(PIECES)
    return st.builds(change, st.sampled_from(words), pieces)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_damaged_networks(name: str, data: st.DataObject) -> None:
    parse, text = FORMATS[name]
    found = outcome(parse, data.draw(mutations(text) | tokens_changed(text)))
    if isinstance(found, Network):
        check(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bif", BIF.replace("yes", "property")),
        ("uai", UAI.replace("BAYES 3", "BAYES 9999999999999999")),
        ("uai", UAI.replace("BAYES 3 2", "MARKOV 3 9999999999999999")),
        ("uai", UAI.replace("3  1 0", "9999999999999999  1 0")),
        ("uai", "MARKOV 2 1000000 1000000 1 2 0 1 1000000000000 1 2 3"),
        ("uai", "MARKOV 30 " + "2000 " * 30 + "1 30 " + " ".join(map(str, range(30))) + " 99 1 2 3"),
        ("uai", f"MARKOV 3000 {'9000 ' * 3000} 0"),
        ("hugin", "node a { states = (x y); } potential (a) { data = " + "(" * 200_000 + "; }"),
        ("hugin", "node a { states = (x y); } potential (a) { data = (0.5 0.5" + ")" * 200_000 + "; }"),
        ("dsl", "net x { a = " + "{ b = " * 200_000),
        ("xmlbif", "<BIF>" + "<NETWORK>" * 200_000),
        ("uai", UAI.replace("0.25", "9" * 100_000 + ".25.")),
        ("uai", UAI.replace("0.25", "9" * 100_000 + "x")),
        ("bif", BIF.replace("0.01", "0." + "0" * 100_000 + "1")),
        ("markov", MARKOV.replace("4e5", "4e" + "5" * 100_000)),
    ],
)
def test_what_asks_for_much_is_refused_soon(name: str, text: str) -> None:
    start = time.process_time()
    with pytest.raises(ParseError, match="expected "):
        FORMATS[name][0]("huge", text)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"])
@pytest.mark.parametrize("name", FORMATS)
def test_encodings(name: str, encoding: str, tmp_path: Path) -> None:
    parse, text = FORMATS[name]
    text = text.replace("smoke", "größe")
    path = tmp_path / "x"
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    found = parse("x", read_text(path))
    assert dict(found.states) == dict(parse("x", text).states)


@pytest.mark.parametrize("name", FORMATS)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), kept=st.integers(0, 10**6))
def test_damaged_bytes(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: int, byte: int, kept: int
) -> None:
    parse, text = FORMATS[name]
    raw = bytearray(text.encode())
    raw[place % len(raw)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged bytes"
    for each in (raw, raw[: kept % len(raw)]):
        path.write_bytes(each)
        found = outcome(parse, read_text(path))
        if isinstance(found, Network):
            check(found)


EVIDENCE = ["3 1 0 2 1 0 1", "2\n1 0 1\n2 0 0 1 1\n", "a=x\nb=y\n", '{"a": "x", "b": 1}', "a,b\nx,\n,y\n"]


@given(text=st.one_of(st.text(), *map(mutations, EVIDENCE)))
def test_damaged_evidence(text: str) -> None:
    for parse in (parse_evidence, parse_evidence_samples, parse_evidence_csv, parse_query):
        found = outcome(parse, text)
        if isinstance(found, ParseError):
            continue
        for row in [found] if isinstance(found, dict) else found:
            for name, state in row.items() if isinstance(row, dict) else [(row, 0)]:
                assert isinstance(name, str)
                assert isinstance(state, (str, int))


@pytest.mark.parametrize(
    "text",
    [
        "network { " + "property " * 300_000,
        "network { " + 'property "' * 300_000,
        "network { " + "/*" * 500_000,
        "network { } " + "/* */" * 300_000,
        'network "' * 200_000,
        "network { } " + "probability ( " * 200_000,
        "/" * 1_000_000,
        "network { } variable x { type discrete [ 1 ] {" + " x" * 300_000,
    ],
    ids=["properties", "quotes", "open comments", "comments", "open quotes", "blocks", "slashes", "states"],
)
def test_long_nonsense_is_refused_soon(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ParseError):
        parse_bif("nonsense.bif", text)
    assert time.perf_counter() - start < 5
