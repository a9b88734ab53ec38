"""Evidence files in their three forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from sumout.errors import ParseError
from sumout.io import parse_evidence, read_evidence

DATA = Path(__file__).parents[1] / "data" / "uai"


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("", {}),
        ("\n \n", {}),
        ("0", {}),
        ("1 0\n", {}),
        ("1\n0\n", {}),
        ("1 5 0", {"5": 0}),
        ("2 5 0 7 1\n", {"5": 0, "7": 1}),
        ("2\n5 0\n7 1\n", {"5": 0, "7": 1}),
        ("1\n2 5 0 7 1\n", {"5": 0, "7": 1}),
        ("1\n1 1 1\n", {"1": 1}),
        ("2 5 0 5 0", {"5": 0}),
        ("# seen\nasia=yes\n\n smoke = no \n", {"asia": "yes", "smoke": "no"}),
        ("asia yes\nsmoke\tno\n", {"asia": "yes", "smoke": "no"}),
        ("7=1", {"7": "1"}),
        ("x=>=5\ny=a=b", {"x": ">=5", "y": "a=b"}),
        ('"left ventricle" = "very large"', {"left ventricle": "very large"}),
        ("a=x\r\nb=y\r\n", {"a": "x", "b": "y"}),
        ('{"asia": "yes",\n "smoke": 1}', {"asia": "yes", "smoke": 1}),
        (" {}", {}),
    ],
)
def test_evidence_is_read(text: str, evidence: dict[str, str | int], tmp_path: Path) -> None:
    path = tmp_path / "evidence"
    path.write_bytes(text.encode())
    found = read_evidence(path)
    assert found == evidence
    assert [type(state) for state in found.values()] == [type(state) for state in evidence.values()]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("2 5 0", 1, "expected 2 pairs of a variable and a state, found 1"),
        ("\n2\n5 0 7\n", 2, "expected 2 pairs of a variable and a state, or 2 samples, found 3 numbers"),
        ("1\n2 5 0", 2, "expected 2 pairs of a variable and a state, found 1"),
        ("2\n1 5 0\n1 5 1\n", 3, "expected one sample, found 2: read them with read_evidence_samples"),
        ("4\n1 5 0\n1 5 1\n", 1, "expected 4 pairs of a variable and a state, found 3"),
        (
            "1 5 -1",
            1,
            "expected an observed variable, state or count (a whole number, 0 or more), found '-1'",
        ),
        ("1 5 0.5", 1, "found '0.5'"),
        ("2 5 0\n5 1", 2, "expected one state of '5', found 0 and 1"),
        ("a=x\nb", 2, "expected NAME=STATE, found 'b'"),
        ("a=x\nb c d", 2, "expected NAME=STATE, found 'b c d'"),
        ("a=x\n=b", 2, "expected NAME=STATE, found '=b'"),
        ("a=x\nb=", 2, "expected NAME=STATE, found 'b='"),
        ("a=x\nb=y\na=y", 3, "expected one state of 'a', found 'x' and 'y'"),
        ('{"a": "x",\n "b" "y"}', 2, "expected JSON, found a mistake"),
        ('{"a": "x"} tail', 1, "expected JSON, found a mistake"),
        ('{"a": "x",\n "b": 0.5}', 2, "expected a state's label or position for 'b', found 0.5"),
        ('{"a": true}', 1, "found True"),
        ('{"a": {"b": "c"}}', 1, "expected a state's label or position for 'a'"),
        ('{"a": "x",\n "a": "y"}', 1, "expected one state of 'a', found 'x' and 'y'"),
        ('{"a": ' + "[" * 100_000, 1, "expected "),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_evidence("some/evidence", text)
    assert str(caught.value).startswith(f"some/evidence:{line}: expected ")
    assert words in str(caught.value)


def test_competition_evidence() -> None:
    assert read_evidence(DATA / "Promedus_24.uai.evid") == {"63": 1, "25": 1, "66": 1, "44": 1}
    assert read_evidence(DATA / "relational_3.uai.evid") == {
        "756": 1, "646": 1, "1": 1, "219": 1, "929": 1, "932": 1, "971": 1,
    }  # fmt: skip
    assert read_evidence(DATA / "Alchemy_11.uai.evid") == {}
    assert len(read_evidence(DATA / "Pedigree_11.uai.evid")) == 37
