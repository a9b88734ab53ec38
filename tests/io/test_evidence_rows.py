"""Rows of evidence: CSV, UAI samples, query files, and labels looked up with the place of those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumout.errors import EvidenceError, ParseError
from sumout.factors import FactorGraph
from sumout.infer import log_evidence
from sumout.io import (
    parse_evidence_csv,
    parse_evidence_samples,
    parse_query,
    read_evidence_csv,
    read_evidence_samples,
    read_query,
)

RAIN = FactorGraph.from_tables(
    {"rain": (["rain"], [0.5, 0.5]), "wet": (["rain", "wet"], [[0.9, 0.1], [0.2, 0.8]])},
    states={"rain": ["no", "yes"], "wet": ["no", "yes"]},
)
PAIR = FactorGraph.from_tables({"f": (["0", "1"], [[1.0, 2.0], [3.0, 4.0]])})


def test_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes('\ufeffwet, rain\r\nyes,no\r\n,\r\n\r\n"no",""\r\n'.encode())
    rows = read_evidence_csv(path)
    assert len(rows) == 3
    assert list(rows) == [{"wet": "yes", "rain": "no"}, {}, {"wet": "no"}]
    assert rows.lines == (2, 3, 5)
    found = rows.columns(RAIN)
    assert {name: column.tolist() for name, column in found.items()} == {
        "wet": [1, -1, 0],
        "rain": [0, -1, -1],
    }
    values = log_evidence(RAIN)(evidence=found).exp()
    assert values.tolist() == pytest.approx([0.05, 1, 0.55], rel=0, abs=1e-6)


def test_odd_cells() -> None:
    rows = parse_evidence_csv("x.csv", '"a,b","c ""d"""\n">=5\n","x"\n1,2')
    assert list(rows) == [{"a,b": ">=5", 'c "d"': "x"}, {"a,b": "1", 'c "d"': "2"}]
    assert rows.lines == (2, 4)
    assert list(parse_evidence_csv("x.csv", "a\n")) == []
    assert list(parse_evidence_csv("x.csv", 'a\n""\n\nx\n')) == [{}, {"a": "x"}]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "expected a line with the names of variables, found the end of the file"),
        ("a,b,a\n", 1, "expected one column per variable, found 'a' again"),
        ("\na,,b\n", 2, "expected the name of a variable in column 2, found nothing"),
        ("a,b\n1,2\n1\n", 3, "expected 2 cells, found 1"),
        ("a,b\n1,2,3\n", 2, "expected 2 cells, found 3"),
        ('a,b\n1,2\n"1,2\n', 3, "expected CSV, found a mistake"),
        ('a,b\n"1"x,2\n', 2, "expected CSV, found a mistake"),
    ],
)
def test_a_mistake_in_a_csv_file(text: str, line: int, words: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_evidence_csv("some/rows.csv", text)
    assert str(caught.value).startswith(f"some/rows.csv:{line}: {words}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wat,rain\nyes,no\n", "x.csv:2: .*'wat'.*Did you mean 'wet'"),
        ("wet,rain\nyes,no\n,no\n,yess\n", "x.csv:4: .*'yess'.*'rain'.*Did you mean 'yes'"),
        ("wet\n1\n", "x.csv:2: "),  # a position is a number; in a text, it is no label of this variable
    ],
)
def test_an_unknown_name_or_state(text: str, words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        parse_evidence_csv("x.csv", text).columns(RAIN)


@pytest.mark.parametrize(
    ("text", "samples", "lines"),
    [
        ("", [{}], (1,)),
        ("0", [{}], (1,)),
        ("1\n0\n", [{}], (2,)),
        ("2 0 1 1 0", [{"0": 1, "1": 0}], (1,)),
        ("1\n2 0 1 1 0", [{"0": 1, "1": 0}], (2,)),
        ("2\n1 0 1\n2 0 0 1 1\n", [{"0": 1}, {"0": 0, "1": 1}], (2, 3)),
        ("2\n\n1 0 1 # first\n\n0\n", [{"0": 1}, {}], (3, 5)),
        # Two pairs, or two samples: the lines tell.
        ("2\n1 0\n0 1\n", [{"1": 0, "0": 1}], (1,)),
        ("2 1 0 0 1", [{"1": 0, "0": 1}], (1,)),
        ("2\n1 0 0\n0\n", [{"0": 0}, {}], (2, 3)),
        ("2\n0\n1 0 0\n", [{}, {"0": 0}], (2, 3)),
        ("3\n1 0 1\n1 0 0\n1 1 0", [{"0": 1}, {"0": 0}, {"1": 0}], (2, 3, 4)),
    ],
)
def test_samples(text: str, samples: list[dict[str, int]], lines: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.evid"
    path.write_text(text)
    rows = read_evidence_samples(path)
    assert list(rows) == samples
    assert rows.lines == lines
    columns = {name: column.tolist() for name, column in rows.columns(PAIR).items()}
    assert columns == {name: [each.get(name, -1) for each in samples] for name in rows.names}


@given(st.lists(st.dictionaries(st.integers(0, 3), st.integers(0, 3), max_size=3), min_size=1, max_size=5))
def test_samples_that_were_written_with_a_line_each(samples: list[dict[int, int]]) -> None:
    lines = [" ".join(map(str, [len(each), *(n for pair in each.items() for n in pair)])) for each in samples]
    named = [{str(name): state for name, state in each.items()} for each in samples]
    found = parse_evidence_samples("x", "\n".join([str(len(samples)), *lines]))
    assert list(found) == named
    if len(samples) == 1:
        assert list(parse_evidence_samples("x", lines[0])) == named


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("2\n1 0 1\n", 1, "expected 2 pairs of a variable and a state, or 2 samples, found 3 numbers"),
        ("2\n1 0 1\n1 0 1 1\n", 1, "expected 2 pairs of a variable and a state, or 2 samples, found 7"),
        ("1\n2 0 1\n", 2, "expected 2 pairs of a variable and a state, found 1"),
        ("2\n1 0 1\n2 0 1 0 0\n", 3, "expected one state of '0', found 1 and 0"),
        ("2\n1 0 x\n0\n", 2, "expected an observed variable, state or count (a whole number"),
        ("999999999999\n1 0 1\n", 1, "expected 999999999999 pairs"),
        ("2\n999999999999\n1 0\n", 1, "expected 2 pairs"),
    ],
)
def test_a_mistake_in_samples(text: str, line: int, words: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_evidence_samples("x.evid", text)
    assert str(caught.value).startswith(f"x.evid:{line}: {words}")


def test_a_state_that_is_none() -> None:
    with pytest.raises(EvidenceError, match=r"x.evid:3: .*'0'.* 2"):
        parse_evidence_samples("x.evid", "2\n1 0 1\n1 0 2").columns(PAIR)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("0", []),
        ("2\n7 11\n", ["7", "11"]),
        ("2 7 11", ["7", "11"]),
        ("smoke\n\n# the rest\nleft ventricle\n", ["smoke", "left ventricle"]),
        ('"7"\n" x "', ["7", " x "]),
    ],
)
def test_queries(text: str, names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.query"
    path.write_text(text)
    assert read_query(path) == names


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("2 7", 1, "expected 2 variables, found 1"),
        ("2\n7 8 9\n", 1, "expected 2 variables, found 3"),
        ("1\n-7\n", 2, "expected a variable (a whole number, 0 or more), found '-7'"),
        ("2\n7\n7\n", 3, "expected each variable once, found '7' again"),
        ("a\nb\na\n", 3, "expected each variable once, found 'a' again"),
        ('a\n""\n', 2, "expected the name of a variable"),
    ],
)
def test_a_mistake_in_a_query(text: str, line: int, words: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_query("x.query", text)
    assert str(caught.value).startswith(f"x.query:{line}: {words}")
