"""XMLBIF files: what is read, every complaint with its line, and that no file can make the parser run away."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from sumout.errors import ParseError
from sumout.io import parse_network, parse_xmlbif, read_xmlbif

RAIN = """<?xml version="1.0" encoding="US-ASCII"?>
<!-- a comment -->
<!DOCTYPE BIF [
  <!ELEMENT BIF ( NETWORK )*>
  <!ATTLIST BIF VERSION CDATA #REQUIRED>
  <!ELEMENT VARIABLE ( NAME, ( OUTCOME | PROPERTY )* ) >
  <!ATTLIST VARIABLE TYPE (nature|decision|utility) "nature">
]>
<BIF VERSION="0.3">
<NETWORK>
<NAME>rain</NAME>
<VARIABLE TYPE="nature">
  <NAME>rain</NAME>
  <OUTCOME>no</OUTCOME>
  <OUTCOME>yes</OUTCOME>
  <PROPERTY>position = (7, 3)</PROPERTY>
</VARIABLE>
<VARIABLE>
  <NAME> wet &amp; cold </NAME><OUTCOME>dry</OUTCOME><OUTCOME>damp</OUTCOME><OUTCOME>soaked</OUTCOME>
</VARIABLE>
<DEFINITION>
  <FOR>wet &amp; cold</FOR><GIVEN>rain</GIVEN>
  <TABLE>
    0.9 0.1 0.0 <!-- rain = no -->
    0.0 2.5e-1 0.75
  </TABLE>
</DEFINITION>
<DEFINITION>
  <FOR>rain</FOR>
  <TABLE>0.8 0.2</TABLE>
</DEFINITION>
</NETWORK>
</BIF>
"""


def test_a_network_is_read(tmp_path: Path) -> None:
    network = parse_xmlbif("rain.xml", RAIN)
    assert network.directed
    assert network.states == {"rain": ("no", "yes"), "wet & cold": ("dry", "damp", "soaked")}
    scope, table = network.tables["wet & cold | rain"]
    assert scope == ("rain", "wet & cold")
    np.testing.assert_array_equal(table, [[0.9, 0.1, 0.0], [0.0, 0.25, 0.75]])
    path = tmp_path / "rain.xml"
    path.write_bytes(("\ufeff" + RAIN.replace("\n", "\r\n")).encode())
    assert dict(read_xmlbif(path).states) == dict(network.states)
    assert parse_network("no suffix", RAIN).states == network.states


def test_the_declared_encoding_does_not_matter(tmp_path: Path) -> None:
    text = RAIN.replace("wet &amp; cold", "näss")
    path = tmp_path / "rain.xml"
    for declared, written in [("US-ASCII", "utf-8"), ("UTF-0", "utf-8"), ("ISO-8859-1", "latin-1")]:
        path.write_bytes(text.replace("US-ASCII", declared).encode(written))
        assert list(read_xmlbif(path).states) == ["rain", "näss"]


def test_two_parents_stand_in_their_order() -> None:
    text = "<BIF><NETWORK>"
    for name, count in (("a", 2), ("b", 3), ("c", 2)):
        outcomes = "".join(f"<OUTCOME>{state}</OUTCOME>" for state in range(count))
        text += f"<VARIABLE><NAME>{name}</NAME>{outcomes}</VARIABLE>"
    table = np.random.default_rng(0).dirichlet(np.ones(2), (2, 3))
    text += "<DEFINITION><FOR>a</FOR><TABLE>0.5,0.5</TABLE></DEFINITION>"
    text += "<DEFINITION><FOR>b</FOR><TABLE>0.25 0.25 0.5</TABLE></DEFINITION>"
    text += "<DEFINITION><FOR>c</FOR><GIVEN>a</GIVEN><GIVEN>b</GIVEN><TABLE>"
    text += " ".join(map(repr, table.ravel().tolist())) + "</TABLE></DEFINITION></NETWORK></BIF>"
    scope, found = parse_xmlbif("x", text).tables["c | a, b"]
    assert scope == ("a", "b", "c")
    np.testing.assert_allclose(found, table, rtol=1e-15)


# What is replaced by what in RAIN -> the line, and words of the message.
MISTAKES = {
    "empty": (RAIN, "", 1, "expected XML, found a mistake: no element found"),
    "another root": ("<BIF VERSION", "<SMILE VERSION", 9, "expected <BIF>, found <SMILE>"),
    "not closed": ("</OUTCOME>", "", 17, "expected XML, found a mistake: mismatched tag"),
    "no network": ("<NETWORK>", "<NETWORK/>\n<NETWORK>", 11, "expected one <NETWORK> in <BIF>, found 2"),
    "unknown element": ("<FOR>rain</FOR>", "<FOR>rain</FOR><FUR/>", 29, "in <DEFINITION>, found <FUR>"),
    "loose text": ("<DEFINITION>\n  <FOR>rain", "<DEFINITION>\n x <FOR>rain", 29, "expected no text in <DEFINITION>"),
    "a decision": ('TYPE="nature"', 'TYPE="decision"', 12, "expected a variable of type 'nature', found 'decision'"),
    "no name": ("<NAME>rain</NAME>\n  <OUT", "<OUT", 12, "expected one <NAME> in <VARIABLE>, found none"),
    "two names": ("<OUTCOME>no", "<NAME>a</NAME><OUTCOME>no", 14, "expected one <NAME> in <VARIABLE>, found 2"),
    "empty name": ("<NAME>rain</NAME>\n  <OUT", "<NAME> </NAME>\n  <OUT", 13, "expected a text in <NAME>, found none"),
    "no states": (
        "<OUTCOME>dry</OUTCOME><OUTCOME>damp</OUTCOME><OUTCOME>soaked</OUTCOME>",
        "",
        18,
        "expected states of variable 'wet & cold', found none",
    ),
    "duplicate state": (">yes<", ">no<", 12, "expected a new state of variable 'rain', found 'no' again"),
    "duplicate variable": ("wet &amp; cold </NAME>", "rain</NAME>", 18, "expected a new variable, found 'rain' again"),
    "unknown variable": ("<FOR>rain", "<FOR>rainy", 29, "found unknown 'rainy'. Did you mean 'rain'?"),
    "unknown parent": ("<GIVEN>rain", "<GIVEN>ran", 22, "found unknown 'ran'. Did you mean 'rain'?"),
    "itself a parent": ("<GIVEN>rain", "<GIVEN>wet &amp; cold", 23, "each variable once, found 'wet & cold' again"),
    "two children": ("<FOR>rain</FOR>", "<FOR>rain</FOR><FOR>rain</FOR>", 29, "one <FOR> in <DEFINITION>, found 2"),
    "no table": ("<TABLE>0.8 0.2</TABLE>", "", 28, "expected one <TABLE> in <DEFINITION>, found none"),
    "few entries": ("0.75", "", 23, "expected 6 probabilities of 'wet & cold' (2 x 3), found 5"),
    "many entries": ("0.8 0.2", "0.8 0.2 0", 30, "expected 2 probabilities of 'rain' (2), found 3"),
    "not a number": ("0.75", "0.7S", 25, "expected a probability of 'wet & cold', found '0.7S'"),
    "after a comment": ("0.0 2.5e-1", "nan 2.5e-1", 25, "expected a probability of 'wet & cold', found 'nan'"),
    "negative": ("0.75", "-0.75", 25, "that is finite and not negative, found '-0.75'"),
    "infinite": ("0.75", "1e999", 25, "that is finite and not negative, found '1e999'"),
    "vanishing": ("0.0 2.5e-1", "1e-999 2.5e-1", 25, "zero or at least 1e-323, found '1e-999'"),
    "sum": ("0.75", "0.74", 25, "probabilities of 'wet & cold' given rain=yes that sum to 1, found 0.99"),
    "sum of a root": ("0.8 0.2", "0.8 0.3", 30, "probabilities of 'rain' that sum to 1, found 1.1"),
    "one definition": ("<FOR>wet &amp; cold</FOR><GIVEN>rain</GIVEN>", "<FOR>rain</FOR>", 23, "of 'rain' (2), found 6"),
    "cycle": ("<FOR>rain</FOR>", "<FOR>rain</FOR><GIVEN>rain</GIVEN>", 30, "found 'rain' again"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line(mistake: tuple[str, str, int, str]) -> None:
    old, new, line, words = mistake
    assert old in RAIN
    with pytest.raises(ParseError) as caught:
        parse_xmlbif("some/rain.xml", RAIN.replace(old, new, 1))
    assert f"some/rain.xml:{line}: expected " in str(caught.value)
    assert words in str(caught.value)


def test_every_variable_has_one_table_and_no_cycle() -> None:
    first = RAIN.index("<DEFINITION>")
    second = RAIN.index("<DEFINITION>", first + 1)
    with pytest.raises(ParseError, match="rain.xml:12: expected a table of probabilities for 'rain'"):
        parse_xmlbif("rain.xml", RAIN[:second] + "</NETWORK></BIF>")
    with pytest.raises(ParseError, match="expected one table of 'rain', found another"):
        parse_xmlbif(
            "rain.xml", RAIN.replace("</NETWORK>", RAIN[second:].split("</NETWORK>")[0] + "</NETWORK>")
        )
    cyclic = RAIN.replace("<FOR>rain</FOR>", "<FOR>rain</FOR><GIVEN>wet &amp; cold</GIVEN>")
    with pytest.raises(
        ParseError, match="rain.xml:23: expected no cycle, found wet & cold -> rain -> wet & cold"
    ):
        parse_xmlbif("rain.xml", cyclic.replace("0.8 0.2", "0.8 0.2 0.8 0.2 0.8 0.2"))


BOMB = "".join(f'<!ENTITY a{k + 1} "{f"&a{k};" * 10}">' for k in range(10))
ATTACKS = {
    "a billion laughs": f'<!DOCTYPE BIF [<!ENTITY a0 "ha">{BOMB}]><BIF>&a10;</BIF>',
    "a file of the machine": '<!DOCTYPE BIF [<!ENTITY x SYSTEM "file:///etc/passwd">]><BIF>&x;</BIF>',
    "parameter entities": '<!DOCTYPE BIF [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><BIF/>',
    "an unparsed entity": '<!DOCTYPE BIF [<!NOTATION n SYSTEM "n"><!ENTITY x SYSTEM "y" NDATA n>]><BIF/>',
    "long defaults": f'<!DOCTYPE BIF [<!ATTLIST b c CDATA "{"x" * 1000}">]><BIF>{"<b/>" * 9}</BIF>',
    "depth": "<BIF>" + "<b>" * 100_000,
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_are_refused(text: str) -> None:
    start = time.process_time()
    with pytest.raises(ParseError, match="x.xml:1: expected "):
        parse_xmlbif("x.xml", text)
    assert time.process_time() - start < 5


def test_an_external_dtd_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.dtd").write_text("this is no DTD <!")
    text = (
        RAIN[: RAIN.index("<!DOCTYPE")]
        + f'<!DOCTYPE BIF SYSTEM "{tmp_path}/x.dtd">'
        + RAIN[RAIN.index("<BIF ") :]
    )
    assert parse_xmlbif("x.xml", text).directed
