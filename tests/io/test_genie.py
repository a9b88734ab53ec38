"""GeNIe's `.dsl` and `.xdsl` files: what is read, and every complaint with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sumout.errors import MemoryLimitError, ParseError
from sumout.io import Network, parse_dsl, parse_network, parse_xdsl, read_dsl, read_xdsl
from sumout.settings import settings

DSL = """net rain
{
  HEADER = { ID = rain; NAME = "the; {rain}"; };
  // a comment }
  node wet
  {
    TYPE = CPT;
    HEADER = { ID = wet; };
    SCREEN = { POSITION = { CENTER_X = 1; }; COLOR = 16250597; };
    PARENTS = (rain);
    DEFINITION =
    {
      NAMESTATES = (dry, "damp", soaked);
      PROBABILITIES = (0.9, 0.1, 0.0,
        0.0, 2.5e-1, 0.75);
    };
  };
  node rain
  {
    TYPE = CPT;
    PARENTS = ();
    DEFINITION = { NAMESTATES = (no, yes); PROBABILITIES = (0.8, 0.2); };
    EXTRA_DEFINITION = { };
  };
  node boots
  {
    TYPE = TRUTHTABLE;
    PARENTS = (rain, wet);
    DEFINITION = { NAMESTATES = (off, on); RESULTINGSTATES = (off, off, on, on, on, on); };
  };
  OBSERVATION_COST = { };
};
"""
XDSL = """<?xml version="1.0" encoding="UTF-8"?>
<smile version="1.0" id="rain" numsamples="1000">
 <nodes>
  <cpt id="rain">
   <state id="no" />
   <state id="yes" />
   <probabilities>0.8 0.2</probabilities>
  </cpt>
  <cpt id="wet">
   <state id="dry" /> <state id="damp" /> <state id="soaked" />
   <parents>rain</parents>
   <probabilities>0.9 0.1 0.0
     0.0 2.5e-1 0.75</probabilities>
  </cpt>
  <deterministic id="boots">
   <state id="off" /> <state id="on" />
   <parents>rain wet</parents>
   <resultingstates>off off on on on on</resultingstates>
  </deterministic>
 </nodes>
 <extensions><genie version="1.0" app="GeNIe 2.0"><node id="rain"><name>Rain</name></node></genie></extensions>
</smile>
"""


def check(network: Network) -> None:
    assert network.directed
    assert dict(network.states) == {
        "rain": ("no", "yes"),
        "wet": ("dry", "damp", "soaked"),
        "boots": ("off", "on"),
    }
    assert network.tables["wet | rain"][0] == ("rain", "wet")
    np.testing.assert_array_equal(network.tables["wet | rain"][1], [[0.9, 0.1, 0.0], [0.0, 0.25, 0.75]])
    scope, boots = network.tables["boots | rain, wet"]
    assert scope == ("rain", "wet", "boots")
    np.testing.assert_array_equal(boots[..., 1], [[0, 0, 1], [1, 1, 1]])
    np.testing.assert_array_equal(boots.sum(-1), 1)


def test_dsl(tmp_path: Path) -> None:
    check(parse_dsl("rain.dsl", DSL))
    check(parse_network("no suffix", DSL))
    path = tmp_path / "rain.dsl"
    path.write_bytes(DSL.replace("\n", "\r\n").encode())
    assert read_dsl(path).states["wet"] == ("dry", "damp", "soaked")


def test_xdsl(tmp_path: Path) -> None:
    check(parse_xdsl("rain.xdsl", XDSL))
    check(parse_network("no suffix", XDSL))
    path = tmp_path / "rain.xdsl"
    path.write_bytes(XDSL.replace("\n", "\r\n").encode())
    assert read_xdsl(path).states["wet"] == ("dry", "damp", "soaked")


DSL_MISTAKES = {
    "empty": (DSL, "", 1, "expected 'net', found the end of the file"),
    "no name": ("net rain", "net", 2, "expected the network's name, found '{'"),
    "after the end": ("{ };\n};", "{ };\n}; net", 32, "expected the end of the file, found 'net'"),
    "not closed": ("OBSERVATION_COST = { };\n};", "", 30, "expected '}' or a key, found the end of the file"),
    "no value": ("TYPE = CPT;", "TYPE = ;", 7, "expected a value of 'TYPE' and ';', found ';'"),
    "no semicolon": ("TYPE = CPT;", "TYPE = CPT", 8, "expected a value of 'TYPE' and ';', found '='"),
    "key twice": ("PARENTS = (rain);", "TYPE = CPT;", 10, "expected each key once, found 'TYPE' again"),
    "no definition": ("DEFINITION =\n", "DEF =\n", 5, "expected the DEFINITION of node 'wet', found none"),
    "no states": ("NAMESTATES = (no, yes);", "", 18, "expected NAMESTATES of node 'rain', found none"),
    "no parents": ("PARENTS = ();", "", 18, "expected PARENTS of node 'rain', found none"),
    "states without parentheses": ("(no, yes)", "no", 22, "expected '(' before the NAMESTATES of node 'rain'"),
    "states not closed": ("(no, yes)", "(no, yes", 22, "expected ')' after the NAMESTATES, found ';'"),
    "more after the states": ("(no, yes)", "(no, yes) x", 22, "expected ';' after the NAMESTATES, found 'x'"),
    "duplicate state": ("(no, yes)", "(no, no)", 18, "expected a new state of variable 'rain', found 'no' again"),
    "duplicate node": ("node boots", "node rain", 25, "expected a new variable, found 'rain' again"),
    "unknown parent": ("(rain);", "(ran);", 10, "found unknown 'ran'. Did you mean 'rain'?"),
    "a noisy gate": ("TYPE = CPT;", "TYPE = NOISY_MAX;", 7, "TYPE CPT or TRUTHTABLE of node 'wet', found 'NOISY_MAX'"),
    "few entries": (", 0.75", "", 14, "expected 6 probabilities of 'wet' (2 x 3), found 5"),
    "not a number": ("0.75", "0.7S", 15, "expected a probability of 'wet', found '0.7S'"),
    "sum": ("0.75", "0.74", 15, "probabilities of 'wet' given rain=yes that sum to 1, found 0.99"),
    "unknown result": ("(off, off, on", "(off, of, on", 29, "expected a state of 'boots', found unknown 'of'"),
    "few results": ("(off, off, on", "(off, on", 29, "expected 6 states of 'boots', found 5"),
    "depth": ("COST = { };", "COST = " + "{ a = " * 99, 31, "at most 20 blocks in one another"),
    "open comment": ("OBSERVATION", "/* OBSERVATION", 32, "expected '*/', found the end of the file"),
    "cycle": ("PARENTS = ();", "PARENTS = (boots);", 22, "expected 4 probabilities of 'rain' (2 x 2), found 2"),
}  # fmt: skip
XDSL_MISTAKES = {
    "empty": (XDSL, "", 1, "expected XML, found a mistake: no element found"),
    "another root": ("<smile version", "<BIF version", 2, "expected <smile>, found <BIF>"),
    "no nodes": ("<nodes>", "<nodes/><nodes>", 3, "expected one <nodes> in <smile>, found 2"),
    "a noisy gate": ("  <cpt", " <noisymax/> <cpt", 4, "expected <cpt> or <deterministic>, found <noisymax>"),
    "no id": ('<cpt id="rain">', "<cpt>", 4, "expected the attribute 'id' of <cpt>, found none"),
    "no states": ('<state id="no" />\n   <state id="yes" />', "", 4, "expected states of variable 'rain', found none"),
    "no table": ("<probabilities>0.8 0.2</probabilities>", "", 4, "expected one <probabilities> in <cpt>, found none"),
    "unknown parent": ("<parents>rain<", "<parents>ran<", 11, "found unknown 'ran'. Did you mean 'rain'?"),
    "few entries": (" 0.75", "", 12, "expected 6 probabilities of 'wet' (2 x 3), found 5"),
    "sum": ("0.75", "0.74", 13, "probabilities of 'wet' given rain=yes that sum to 1, found 0.99"),
    "few results": ("off off on", "off on", 18, "expected 12 probabilities of 'boots' (2 x 3 x 2), found 10"),
    "unknown result": ("off off on", "off of on", 18, "expected a state of 'boots', found unknown 'of'"),
    "aGrUM's order": ("GeNIe 2.0", "aGrUM 3.3.1", 15, "found a file written by aGrUM, which orders parents the other"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", DSL_MISTAKES.values(), ids=DSL_MISTAKES.keys())
def test_a_mistake_in_dsl(mistake: tuple[str, str, int, str]) -> None:
    old, new, line, words = mistake
    assert old in DSL
    with pytest.raises(ParseError) as caught:
        parse_dsl("some/rain.dsl", DSL.replace(old, new, 1))
    assert f"some/rain.dsl:{line}: expected " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("mistake", XDSL_MISTAKES.values(), ids=XDSL_MISTAKES.keys())
def test_a_mistake_in_xdsl(mistake: tuple[str, str, int, str]) -> None:
    old, new, line, words = mistake
    assert old in XDSL
    with pytest.raises(ParseError) as caught:
        parse_xdsl("some/rain.xdsl", XDSL.replace(old, new, 1))
    assert f"some/rain.xdsl:{line}: expected " in str(caught.value)
    assert words in str(caught.value)


def test_a_truth_table_does_not_blow_up() -> None:
    labels = " ".join(f"s{number}" for number in range(1000))
    states = "".join(f'<state id="{label}"/>' for label in labels.split())
    text = (
        f'<smile><nodes><cpt id="a">{states}<probabilities>{"0.001 " * 1000}</probabilities></cpt>'
        f'<deterministic id="b">{states}<parents>a</parents><resultingstates>{labels}</resultingstates>'
        "</deterministic></nodes></smile>"
    )
    np.testing.assert_array_equal(parse_xdsl("x", text).tables["b | a"][1], np.eye(1000))
    with (
        settings.override(memory_limit=10**6),
        pytest.raises(
            MemoryLimitError, match=r"x:1: the table of 'b' has 1e\+06 entries, after 1e\+03 of other"
        ),
    ):
        parse_xdsl("x", text)
