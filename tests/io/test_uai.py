"""UAI files, on small ones written here and on those of a competition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sumout.errors import ParseError
from sumout.infer import log_evidence
from sumout.io import parse_uai, read_uai

DATA = Path(__file__).parents[1] / "data" / "uai"

MARKOV = """MARKOV
3
2 2 3
2
2 0 1
2 1 2
4
 1.0 2.0
 3.0 4.0
6
 0.5 0 1e-3
 4 5 6
"""

BAYES = """BAYES
2
2 3
2
1 0
2 0 1
2
 0.25 0.75
6
 0.5 0.25 0.25
 0.2 0.3 0.5
"""


def test_a_markov_network() -> None:
    network = parse_uai("m.uai", MARKOV)
    assert not network.directed
    assert network.states == {"0": ("0", "1"), "1": ("0", "1"), "2": ("0", "1", "2")}
    (first, second) = network.tables.values()
    assert (first[0], second[0]) == (("0", "1"), ("1", "2"))
    np.testing.assert_array_equal(first[1], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(second[1], [[0.5, 0, 1e-3], [4, 5, 6]])


def test_the_graph_holds_logarithms_in_double_precision(tmp_path: Path) -> None:
    path = tmp_path / "m.uai"
    path.write_text(MARKOV)
    graph = read_uai(path)
    assert [factor.inputs for factor in graph.factors] == [("0", "1"), ("1", "2")]
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(graph.factors[1].data.numpy(), np.log([[0.5, 0, 1e-3], [4, 5, 6]]))


def test_functions_of_one_scope_are_kept_apart() -> None:
    network = parse_uai("m.uai", "MARKOV 1 2 3  1 0 1 0 0  2 1 2 2 3 4 1 7")
    assert [scope for scope, _ in network.tables.values()] == [("0",), ("0",), ()]
    assert [float(table.sum()) for _, table in network.tables.values()] == [3, 7, 7]


def test_a_variable_without_a_function_counts() -> None:
    network = parse_uai("m.uai", "MARKOV 2 2 3  1 1 0  2 1 2")
    assert set(network.states) == {"0", "1"}
    (scope, table) = list(network.tables.values())[1]
    assert scope == ("1",)
    np.testing.assert_array_equal(table, np.ones(3))


def test_a_bayesian_network() -> None:
    network = parse_uai("b.uai", BAYES)
    assert network.directed
    assert list(network.tables) == ["0", "1 | 0"]
    np.testing.assert_array_equal(network.tables["1 | 0"][1], [[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    rounded = parse_uai("b.uai", BAYES.replace("0.2 0.3 0.5", "0.333 0.333 0.333"))
    np.testing.assert_allclose(rounded.tables["1 | 0"][1][1], 1 / 3, rtol=0, atol=1e-16)


MISTAKES = {
    "empty": ("", MARKOV, 1, "expected 'MARKOV' or 'BAYES', found the end of the file"),
    "other": ("LIMID", "MARKOV", 1, "expected 'MARKOV' or 'BAYES', found 'LIMID'"),
    "no variables": ("\n0\n", "\n3\n", 2, "the number of variables (a whole number, 1 or more), found '0'"),
    "many variables": ("\n999999999\n", "\n3\n", 5, "the number of states of variable 5 ("),
    "no states": (
        "2 0 3",
        "2 2 3",
        3,
        "the number of states of variable 1 (a whole number, 1 or more), found '0'",
    ),
    "fraction": ("2 2.0 3", "2 2 3", 3, "found '2.0'"),
    "unknown variable": ("2 1 3", "2 1 2", 6, "a variable of function 1 (0 to 2), found '3'"),
    "variable twice": ("2 0 0", "2 0 1", 5, "each variable of function 0 once"),
    "long scope": ("33 0 1", "2 0 1", 5, "at most 32 variables of function 0, found '33'"),
    "entries": ("\n5\n", "\n4\n", 7, "expected 4 entries of function 0 (2 x 2), found '5'"),
    "few entries": ("\n", " 3.0 4.0\n", 11, "expected 6 entries of function 1 (2 x 3), found '0'"),
    "entries cut": ("", " 4 5 6\n", 11, "expected 6 entries of function 1, found the end of the file"),
    "too many entries": ("5 6 7", "5 6", 12, "expected the end of the file, found '7'"),
    "not a number": ("2,0", "2.0", 8, "an entry of function 0, found '2,0'"),
    "negative": ("-2.0", "2.0", 8, "an entry of function 0 that is finite and not negative, found '-2.0'"),
    "nan": ("nan", "2.0", 8, "found 'nan'"),
    "infinite": ("inf", "2.0", 8, "found 'inf'"),
}
BAYES_MISTAKES = {
    "sum": ("0.2 0.3 0.6", "0.2 0.3 0.5", 11, "entries of variable '1' given 0=1 that sum to 1, found 1.1"),
    "sum of a root": ("0.25 0.7", "0.25 0.75", 8, "entries of variable '0' that sum to 1, found 0.95"),
    "zero row": ("0 0 0", "0.2 0.3 0.5", 11, "found 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line(mistake: tuple[str, str, int, str]) -> None:
    new, old, line, words = mistake
    assert old in MARKOV
    with pytest.raises(ParseError) as caught:
        parse_uai("some/m.uai", MARKOV.replace(old, new, 1))
    assert str(caught.value).startswith(f"some/m.uai:{line}: expected ")
    assert words in str(caught.value)


@pytest.mark.parametrize("mistake", BAYES_MISTAKES.values(), ids=BAYES_MISTAKES.keys())
def test_a_row_that_is_off_is_named(mistake: tuple[str, str, int, str]) -> None:
    new, old, line, words = mistake
    with pytest.raises(ParseError) as caught:
        parse_uai("b.uai", BAYES.replace(old, new, 1))
    assert str(caught.value).startswith(f"b.uai:{line}: expected ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            "BAYES\n1 2\n2\n1 0\n1 0\n2 1 0\n2 1 0",
            5,
            "expected one function per variable, found another with last '0'",
        ),
        ("BAYES\n2 1 1\n1\n1 0\n1 1", 5, "expected a function of variable '1' given its parents, found none"),
        ("BAYES\n1 1\n1\n0\n1 1", 4, "expected a child variable, the scope's last"),
        ("BAYES\n2 1 1\n2\n2 0 1\n2 1 0\n1 1\n1 1", 4, "expected no cycle, found 1 -> 0 -> 1"),
        (
            "MARKOV\n1\n99999999\n0\n",
            3,
            "at most 10000 states of variables without a function, found '99999999'",
        ),
    ],
)
def test_networks_that_are_none(text: str, line: int, words: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_uai("b.uai", text)
    assert str(caught.value).startswith(f"b.uai:{line}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("path", sorted(DATA.glob("*.uai")), ids=lambda path: path.stem)
def test_competition_networks_have_the_variables_of_their_answers(path: Path) -> None:
    network = parse_uai(path, path.read_text())
    answer = path.with_suffix(".uai.MAR").read_text().split()
    assert len(network.states) == int(answer[1])
    at = 2
    for states in network.states.values():
        assert len(states) == int(answer[at])
        at += 1 + len(states)


@pytest.mark.parametrize("text", [MARKOV, BAYES], ids=["markov", "bayes"])
def test_a_file_cut_between_numbers_is_an_error(text: str) -> None:
    words = text.split()
    for kept in range(len(words)):
        with pytest.raises(ParseError):
            parse_uai("cut.uai", " ".join(words[:kept]))


def test_a_function_of_no_variables_is_a_constant(tmp_path: Path) -> None:
    path = tmp_path / "constant.uai"
    path.write_text("MARKOV 1 3  2  0  1 0   1 0.5  3 1 2 3")
    graph = read_uai(path)
    assert graph.factors[0].inputs == ()
    assert log_evidence(graph)().exp() == pytest.approx(0.5 * (1 + 2 + 3), rel=1e-12)
