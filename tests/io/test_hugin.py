"""Hugin's `.net` files: what is read, and every complaint with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sumout.errors import ParseError
from sumout.io import parse_hugin, parse_network, read_hugin

RAIN = """net
{
  node_size = (80 40); % a comment; }
  name = "a; {b}";
}
node rain
{
  states = ("no" "yes");
  position = (7 3);
}
discrete node wet
{
  label = "";
  states = ( "dry" "damp, or so" soaked );
}
potential ( rain ) { data = (0.8 0.2); }
potential ( wet | rain )
{
  data = (( 0.9 0.1 0.0 ) % rain = no
          ( 0.0 2.5e-1 0.75 ));
}
"""
WET = [[0.9, 0.1, 0.0], [0.0, 0.25, 0.75]]


def test_a_network_is_read(tmp_path: Path) -> None:
    network = parse_hugin("rain.net", RAIN)
    assert network.directed
    assert network.states == {"rain": ("no", "yes"), "wet": ("dry", "damp, or so", "soaked")}
    assert network.tables["wet | rain"][0] == ("rain", "wet")
    np.testing.assert_array_equal(network.tables["wet | rain"][1], WET)
    path = tmp_path / "rain.net"
    path.write_bytes(RAIN.replace("\n", "\r\n").encode())
    assert dict(read_hugin(path).states) == dict(network.states)
    assert parse_network("no suffix", RAIN).states == network.states


SAME = {
    "a flat list": RAIN.replace("((", "(").replace("))", ")").replace(") % rain = no\n          (", ""),
    "potentials first": RAIN[: RAIN.index("node rain")]
    + RAIN[RAIN.index("potential") :]
    + RAIN[RAIN.index("node rain") : RAIN.index("potential")],
    "no net": RAIN[RAIN.index("node rain") :],
    "a bar without parents": RAIN.replace("( rain )", "( rain | )"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME.keys())
def test_spellings_of_one_network(text: str) -> None:
    network = parse_hugin("rain.net", text)
    assert network.states == {"rain": ("no", "yes"), "wet": ("dry", "damp, or so", "soaked")}
    np.testing.assert_array_equal(network.tables["wet | rain"][1], WET)


def nested(table: np.ndarray) -> str:
    return f"({' '.join(nested(part) if part.ndim else repr(float(part)) for part in table)})"


def test_two_parents_are_two_levels() -> None:
    table = np.random.default_rng(0).dirichlet(np.ones(2), (2, 3))
    nodes = "node a { states = (x y); } node b { states = (x y z); } node c { states = (x y); }"
    tables = "potential (a) { data = (0.5 0.5); } potential (b) { data = (0.25 0.25 0.5); }"

    def read(data: str) -> np.ndarray:
        text = f"net {{}} {nodes} {tables} potential (c | a b) {{ data = {data}; }}"
        return parse_hugin("x", text).tables["c | a, b"][1]

    np.testing.assert_allclose(read(nested(table)), table, rtol=1e-15)
    np.testing.assert_allclose(read(nested(table.ravel())), table, rtol=1e-15)
    for other in (
        table.transpose(1, 0, 2),
        table.transpose(2, 0, 1),
        table.reshape(6, 2),
        table.reshape(2, 6),
    ):
        with pytest.raises(ParseError, match="expected "):
            read(nested(other))
    for cut in (nested(table)[:-1], nested(table)[1:], nested(table) + ")", f"({nested(table)})"):
        with pytest.raises(ParseError, match="expected "):
            read(cut)


MISTAKES = {
    "empty": (RAIN, "", 1, "expected a variable, found none"),
    "another format": ("net\n", "network\n", 1, "expected 'node' or 'potential', found 'network'"),
    "objects": (RAIN, "class x { }", 1, "expected a discrete Bayesian network: 'node' or 'potential', found 'class'"),
    "continuous": ("discrete node", "continuous node", 11, "a discrete Bayesian network"),
    "utility": ("discrete node", "utility", 11, "a discrete Bayesian network"),
    "no name": ("node rain", "node", 7, "expected the node's name, found '{'"),
    "no states": ('states = ("no" "yes");', "", 6, "expected the states of node 'rain', found none"),
    "states without parentheses": ('("no" "yes")', '"no"', 8, "expected '(' before the states of node 'rain'"),
    "states in states": ('("no" "yes")', '("no" ("yes"))', 8, "found ')'"),
    "duplicate state": ('"yes"', '"no"', 6, "expected a new state of variable 'rain', found 'no' again"),
    "open quote": ('soaked );', 'soaked );"', 14, "expected an attribute or '}', found '\"'"),
    "no semicolon": ('"yes");', '"yes")', 9, "expected a value of 'states' and ';', found '='"),
    "no value": ('states = ("no" "yes")', "states = ", 8, "expected a value of 'states' and ';', found ';'"),
    "attribute twice": ("position = (7 3)", "states = (a b)", 9, "each attribute once, found 'states' again"),
    "duplicate node": ("node wet", "node rain", 11, "expected a new variable, found 'rain' again"),
    "unknown node": ("( rain )", "( rainy )", 16, "found unknown 'rainy'. Did you mean 'rain'?"),
    "unknown parent": ("| rain", "| ran", 17, "found unknown 'ran'. Did you mean 'rain'?"),
    "two children": ("wet | rain", "wet rain", 17, "expected '|' after the one child 'wet', found 'rain'"),
    "itself a parent": ("| rain", "| wet", 17, "each variable once, found 'wet' again"),
    "two potentials": ("( rain ) {", "( rain ) { data = (1 0); } potential ( rain ) {", 16, "one table of 'rain'"),
    "no data": ("data = (0.8 0.2);", "", 16, "expected the data of node 'rain', found none"),
    "an expression": ("data = (0.8", "model_nodes = (); data = (0.8", 16, "expected the data of node 'rain'"),
    "data without parentheses": ("(0.8 0.2)", "0.8 0.2", 16, "expected '(' before the data of node 'rain'"),
    "few entries": (" 0.75", "", 19, "expected 6 entries of 'wet', found 5"),
    "many entries": ("(0.8 0.2)", "(0.8 0.2 0)", 16, "expected 2 entries of 'rain', found 3"),
    "not a number": ("0.75", "0.7S", 20, "expected a probability of 'wet', found '0.7S'"),
    "negative": ("0.75", "-0.75", 20, "that is finite and not negative, found '-0.75'"),
    "sum": ("0.75", "0.74", 20, "probabilities of 'wet' given rain=yes that sum to 1, found 0.99"),
    "block unfinished": ("0.75 ));\n}", "0.75 ));", 20, "expected '}' or an attribute, found the end of the file"),
    "nesting": ("( 0.9 0.1 0.0 )", "( 0.9 0.1 ) 0.0", 19, "expected lists in one another of 2 x 3 entries"),
    "table missing": ("potential ( rain ) { data = (0.8 0.2); }", "", 6, "a table of probabilities for 'rain'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line(mistake: tuple[str, str, int, str]) -> None:
    old, new, line, words = mistake
    assert old in RAIN
    with pytest.raises(ParseError) as caught:
        parse_hugin("some/rain.net", RAIN.replace(old, new, 1))
    assert f"some/rain.net:{line}: expected " in str(caught.value)
    assert words in str(caught.value)
