"""BIF files: the grammar as files in circulation write it, and every complaint with its line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sumout.errors import MemoryLimitError, ParseError
from sumout.io import parse_bif, read_bif
from sumout.settings import settings

DATA = Path(__file__).parents[1] / "data" / "networks"

RAIN = """network rain { }
variable rain { type discrete [ 2 ] { no, yes }; }
variable wet {
  type discrete [ 3 ] { dry, damp, soaked };
}
probability ( rain ) { table 0.8, 0.2; }
probability ( wet | rain ) {
  (no) 0.9, 0.1, 0.0;
  (yes) 0.0, 0.25, 0.75;
}
"""
WET = np.array([[0.9, 0.1, 0.0], [0.0, 0.25, 0.75]])


def test_a_network_is_read() -> None:
    network = parse_bif("rain.bif", RAIN)
    assert network.directed
    assert network.states == {"rain": ("no", "yes"), "wet": ("dry", "damp", "soaked")}
    assert list(network.tables) == ["rain", "wet | rain"]
    scope, table = network.tables["wet | rain"]
    assert scope == ("rain", "wet")
    np.testing.assert_array_equal(table, WET)


def test_the_graph_holds_logarithms_in_double_precision(tmp_path: Path) -> None:
    path = tmp_path / "rain.bif"
    path.write_text(RAIN)
    graph = read_bif(path)
    (_, wet) = graph.factors
    assert wet.name == "wet | rain"
    assert wet.inputs == ("rain", "wet")
    assert wet.data.dtype == torch.float64
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(wet.data.numpy(), np.log(WET))
    assert dict(graph.states) == {"rain": ("no", "yes"), "wet": ("dry", "damp", "soaked")}


@pytest.mark.parametrize("path", sorted(DATA.glob("*.bif")), ids=lambda path: path.stem)
def test_published_networks_have_the_nodes_of_their_answers(path: Path) -> None:
    network = parse_bif(path, path.read_text())
    answers = json.loads((DATA / "answers.json").read_text())[path.stem]
    (prior,) = [case["marginals"] for case in answers if not case["evidence"]]
    assert {name: set(states) for name, states in network.states.items()} == {
        name: set(states) for name, states in prior.items()
    }
    for scope, table in network.tables.values():
        assert table.shape == tuple(len(network.states[name]) for name in scope)
        np.testing.assert_allclose(table.sum(-1), 1, rtol=0, atol=1e-15)


SAME = {
    "comments": RAIN.replace("{", "{ // a } comment\n /* another } \n // */ "),
    "comments that touch": RAIN.replace("0.1,", "0.1//x\n,").replace("0.9", "0.9/* ** / */"),
    "blanks for commas": RAIN.replace(",", " "),
    "no blanks": RAIN.replace(", ", ",").replace(" }", "}").replace("[ 3 ]", "[3]").replace("\n  ", ""),
    "quoted names": RAIN.replace("wet", '"wet"').replace("(no)", '("no")').replace("{ no", '{ "no"'),
    "properties": RAIN.replace("{ }", '{ property author "A; B } C"; property x = (1, 2); }')
    .replace("{ table", "{ property p; table")
    .replace("{\n", '{\n property "position = (7, 3)" ;\n property url = http://x.org/{a} ;\n'),
    "rows in another order": RAIN.replace("(no)", "(?)")
    .replace("(yes)", "(no)")
    .replace("(?)", "(yes)")
    .replace("0.9, 0.1, 0.0", "0.?")
    .replace("0.0, 0.25, 0.75", "0.9, 0.1, 0.0")
    .replace("0.?", "0.0, 0.25, 0.75"),
    "scientific": RAIN.replace("0.25", "+2.5e-1").replace("0.75", "75.E-2").replace("0.2;", ".2;"),
    "a table, child slowest": RAIN.replace("(no) 0.9, 0.1, 0.0;", "table 0.9 0.0 0.1 0.25 0.0 0.75;").replace(
        "(yes) 0.0, 0.25, 0.75;", ""
    ),
    "a default": RAIN.replace("(no)", "default"),
    "no bar": RAIN.replace("wet | rain", "wet rain"),
    "probabilities first": "network { }"
    + RAIN[RAIN.index("probability") :]
    + RAIN[16 : RAIN.index("probability")],
    "windows": "\ufeff" + RAIN.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME.keys())
def test_spellings_of_one_network(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rain.bif"
    path.write_bytes(text.encode())
    found = read_bif(path)
    assert {name: set(states) for name, states in found.states.items()} == {
        "rain": {"no", "yes"},
        "wet": {"dry", "damp", "soaked"},
    }
    (wet,) = [factor for factor in found.factors if factor.name == "wet | rain"]
    np.testing.assert_allclose(wet.data.exp().numpy(), WET, rtol=0, atol=1e-16)


def test_odd_names() -> None:
    odd = ["1-a.b", "<5", ">=5", "a+b", "x/y", "c:d*e", "variable", "default", "Ä"]
    variables = "".join(f"variable {name} {{ type discrete [ 2 ] {{ <=3, 1/2 }}; }}\n" for name in odd)
    blocks = "".join(f"probability ( {name} ) {{ table 0.5 0.5; }}\n" for name in odd)
    blocks = blocks.replace("( <5 )", "( <5 | x/y )").replace("0.5 0.5", "0.5 0.5 0.5 0.5", 2)
    blocks = blocks.replace("table 0.5 0.5 0.5 0.5", "table 0.5 0.5", 1)
    network = parse_bif("odd.bif", f"network {{ }}\n{variables}{blocks}")
    assert list(network.states) == odd
    assert network.states["<5"] == ("<=3", "1/2")
    assert "<5 | x/y" in network.tables
    spaced = parse_bif(
        "q", 'network "a b" {} variable "a b" {type discrete[1]{"c d"};} probability("a b"){table 1;}'
    )
    assert dict(spaced.states) == {"a b": ("c d",)}


def test_rows_are_normalised_within_a_thousandth() -> None:
    thirds = RAIN.replace("0.9, 0.1, 0.0", "0.333, 0.333, 0.333")
    _, table = parse_bif("r", thirds).tables["wet | rain"]
    np.testing.assert_allclose(table[0], 1 / 3, rtol=0, atol=1e-16)


# What is replaced by what in RAIN -> the line, and words of the message.
MISTAKES = {
    "empty": (RAIN, "", 1, "expected 'network', found the end of the file"),
    "another format": ("network", "MARKOV", 1, "expected 'network', found 'MARKOV'"),
    "only a header": (RAIN[16:], "", 1, "expected a variable, found the end of the file"),
    "unknown block": (
        "probability ( rain",
        "probably ( rain",
        6,
        "'variable' or 'probability', found 'probably'",
    ),
    "duplicate variable": ("variable wet", "variable rain", 3, "found 'rain' again (first in line 2)"),
    "no name": ("variable wet", "variable", 3, "expected the variable's name, found '{'"),
    "continuous": ("discrete [ 3 ]", "continuous", 4, "expected 'discrete' as the type of variable 'wet'"),
    "no type": (
        "type discrete [ 3 ] { dry, damp, soaked };",
        "",
        5,
        "expected the type of variable 'wet', found '}'",
    ),
    "two types": ("soaked };", "soaked }; type discrete [ 1 ] { a };", 4, "found 'type'"),
    "bad count": (
        "[ 3 ]",
        "[ three ]",
        4,
        "expected the number of states (a whole number, 1 or more), found 'three'",
    ),
    "wrong count": ("[ 3 ]", "[ 4 ]", 4, "expected 4 states of variable 'wet', found 3"),
    "no states": ("[ 3 ] { dry, damp, soaked }", "[ 0 ] { }", 4, "1 or more), found '0'"),
    "duplicate state": ("damp", "dry", 4, "expected a new state of variable 'wet', found 'dry' again"),
    "no semicolon": ("soaked };", "soaked }", 5, "expected ';', found '}'"),
    "unknown variable": ("( wet", "( wat", 7, "found unknown 'wat'. Did you mean 'wet'?"),
    "unknown parent": ("| rain", "| rainy", 7, "found unknown 'rainy'. Did you mean 'rain'?"),
    "itself a parent": ("| rain", "| wet", 7, "expected each variable once, found 'wet' again"),
    "parent twice": ("| rain", "| rain, rain", 7, "found 'rain' again"),
    "unknown state": (
        "(yes)",
        "(yess)",
        9,
        "state of parent 'rain', found unknown 'yess'. Did you mean 'yes'?",
    ),
    "row too long": ("(yes)", "(yes, no)", 9, "expected the states of 1 parents (rain) and ')', found 2"),
    "row without states": ("(yes)", "()", 9, "expected the states of 1 parents (rain) and ')', found 0"),
    "row twice": ("(yes)", "(no)", 9, "expected one row (rain=no) of 'wet', found another (first: line 8)"),
    "row missing": (
        "(yes) 0.0, 0.25, 0.75;",
        "",
        7,
        "probabilities of 'wet' given rain=yes, found none (1 of 2 rows",
    ),
    "few entries": (
        "0.9, 0.1, 0.0",
        "0.9, 0.1",
        8,
        "expected 3 probabilities of 'wet' given rain=no, found 2",
    ),
    "many entries": ("0.9, 0.1, 0.0", "0.9, 0.1, 0, 0", 8, "found 4"),
    "few in a table": (
        "table 0.8, 0.2",
        "table 0.8",
        6,
        "expected 2 probabilities of 'rain' in its table, found 1",
    ),
    "not a number": ("0.25", "0.2S", 9, "expected a probability of 'wet' or ';', found '0.2S'"),
    "underscore": ("0.25", "0.2_5", 9, "found '0.2_5'"),
    "nan": ("0.25", "nan", 9, "found 'nan'"),
    "infinite": ("0.25", "1e999", 9, "that is finite and not negative, found '1e999'"),
    "negative": ("0.25", "-0.25", 9, "that is finite and not negative, found '-0.25'"),
    "row unfinished": ("0.0;", "0.0", 9, "expected a probability of 'wet' or ';', found '('"),
    "table unfinished": ("0.2;", "0.2", 6, "expected ';', found '}'"),
    "sum": ("0.75", "0.74", 9, "'wet' given rain=yes that sum to 1, found 0.99"),
    "sum of a root": ("0.8, 0.2", "0.8, 0.3", 6, "probabilities of 'rain' that sum to 1, found 1.1"),
    "sum in a table": ("0.8, 0.2", "0.8, 0.202", 6, "found 1.002"),
    "block missing": ("probability ( rain ) { table 0.8, 0.2; }", "", 2, "probability block for 'rain'"),
    "block twice": (
        "( wet | rain )",
        "( rain )",
        7,
        "one probability block for 'rain', found another (first: line 6)",
    ),
    "two defaults": ("(no) 0.9", "default 0 0 1; default 0.9", 8, "expected one default of 'wet'"),
    "table and rows": (
        "(no)",
        "table 1 0 0 1 0 0; (no)",
        8,
        "expected one table or row of 'wet', found another",
    ),
    "rows and table": (
        "0.75;",
        "0.75; table 1 0 0 1 0 0;",
        9,
        "expected one table or row of 'wet', found another",
    ),
    "cycle": ("( rain ) { table 0.8, 0.2;", "( rain | wet ) { default 0.8, 0.2;", 6, "rain -> wet -> rain"),
    "block unfinished": (
        "0.75;\n}\n",
        "0.75;\n",
        9,
        "expected '}' after the probabilities of 'wet', found the end",
    ),
    "unknown entry": ("(no)", "row (no)", 8, "found 'row'"),
    "open comment": ("0.75;", "/* 0.75;", 10, "expected '*/', found the end of the file"),
    "open quote": ("{ no,", '{ "no,', 2, "expected a state of variable 'rain' or '}', found '\"'"),
    "open property": (
        "0.75;\n}",
        "0.75; property a",
        9,
        "expected ';' after the property, found the end of the file",
    ),
    "two networks": (
        "variable rain",
        "network b { } variable rain",
        2,
        "'variable' or 'probability', found 'network'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line(mistake: tuple[str, str, int, str]) -> None:
    old, new, line, words = mistake
    assert old in RAIN
    with pytest.raises(ParseError) as caught:
        parse_bif("some/rain.bif", RAIN.replace(old, new, 1))
    assert f"some/rain.bif:{line}: expected " in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.line == line


def test_longer_cycles_are_found() -> None:
    names = "abc"
    text = "network { }\n" + "".join(f"variable {name} {{ type discrete [1] {{ x }}; }}\n" for name in names)
    text += "".join(f"probability ( {a} | {b} ) {{ table 1; }}\n" for a, b in ["ab", "bc", "ca"])
    with pytest.raises(ParseError, match="expected no cycle, found"):
        parse_bif("loop.bif", text)


def test_a_default_does_not_blow_up_a_table() -> None:
    names = [f"v{number}" for number in range(31)]
    text = "network { }\n" + "".join(
        f"variable {name} {{ type discrete [ 4 ] {{ a b c d }}; }}\n"
        f"probability ( {name} ) {{ default 0.25 0.25 0.25 0.25; }}\n"
        for name in names[1:]
    )
    text += "variable v0 { type discrete [ 1 ] { a }; } "
    text += f"probability ( v0 | {' '.join(names[1:])} ) {{ default 1; }}"
    with pytest.raises(MemoryLimitError, match=r"x:62: the table of 'v0' has 1.15e\+18 entries"):
        parse_bif("x", text)
    with settings.override(memory_limit=10), pytest.raises(MemoryLimitError, match="the table of 'rain'"):
        parse_bif("x", RAIN)


def test_too_many_parents() -> None:
    names = [f"v{number}" for number in range(40)]
    text = "network { }\n" + "".join(
        f"variable {name} {{ type discrete [ 1 ] {{ a }}; }}\n" for name in names
    )
    with pytest.raises(ParseError, match="expected fewer than 32 parents of 'v0', found 39"):
        parse_bif("x", text + f"probability ( v0 | {' '.join(names[1:])} ) {{ default 1; }}")


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bif(tmp_path / "nothing.bif")


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.bif"
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(ParseError):
        read_bif(path)
    path.write_bytes(RAIN.replace("wet", "näss").encode("latin-1"))
    assert "näss" in read_bif(path).states
