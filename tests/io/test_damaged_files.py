"""Whatever is done to a file, reading it ends in a network or in a ParseError, and soon."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sumout.errors import ParseError
from sumout.io import Network, parse_bif, parse_evidence, parse_uai

DATA = Path(__file__).parents[1] / "data"
BIF = (DATA / "networks" / "asia.bif").read_text()
LONG_BIF = (DATA / "networks" / "insurance.bif").read_text()
UAI = """BAYES 3 2 3 2  3  1 0  2 0 1  3 0 1 2
2 0.25 0.75  6 0.5 0.25 0.25 0.2 0.3 0.5
12 0.5 0.5 1 0 0.1 0.9  0.25 0.75 0 1 0.125 0.875
"""
PIECES = [
    *"{}()[]|;,\"'/*\\-.e09 \n\t_",
    "//",
    "/*",
    "*/",
    "property",
    "variable",
    "table",
    "default",
    "1e999",
    "nan",
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


def test_every_truncation_of_a_bif_file_is_an_error() -> None:
    check(parse_bif("whole", BIF))
    for kept in range(len(BIF.rstrip())):
        with pytest.raises(ParseError) as caught:
            parse_bif("cut.bif", BIF[:kept])
        assert 1 <= caught.value.line <= BIF.count("\n") + 1


@given(kept=st.integers(0, len(LONG_BIF.rstrip()) - 1))
def test_truncations_of_a_long_bif_file_are_errors(kept: int) -> None:
    with pytest.raises(ParseError):
        parse_bif("cut.bif", LONG_BIF[:kept])


def mutations(text: str) -> st.SearchStrategy[str]:
    """The text with one to three places replaced, deleted, doubled or inserted."""
    place = st.tuples(
        st.integers(0, len(text)),
        st.integers(0, 12),
        st.one_of(st.sampled_from(PIECES), st.text(max_size=3), st.just(None)),
    )

    def change(places: list[tuple[int, int, str | None]]) -> str:
        changed = text
        for start, length, piece in places:
            doubled = changed[start : start + length] * 2
            changed = changed[:start] + (doubled if piece is None else piece) + changed[start + length :]
        return changed

    return st.lists(place, min_size=1, max_size=3).map(change)


@given(text=mutations(BIF))
@example(text=BIF.replace("yes", "property"))
def test_mutations_of_a_bif_file(text: str) -> None:
    try:
        network = parse_bif("damaged.bif", text)
    except ParseError:
        return
    check(network)


@given(text=mutations(UAI))
@example(text=UAI.replace("BAYES 3", "BAYES 9999999999999999"))
@example(text=UAI.replace("BAYES 3 2", "MARKOV 3 9999999999999999"))
@example(text=UAI.replace("3  1 0", "9999999999999999  1 0"))
def test_mutations_of_a_uai_file(text: str) -> None:
    try:
        network = parse_uai("damaged.uai", text)
    except ParseError:
        return
    check(network)


@given(text=st.one_of(st.text(), *map(mutations, ["3 1 0 2 1 0 1", "a=x\nb=y\n", '{"a": "x", "b": 1}'])))
def test_mutations_of_evidence(text: str) -> None:
    try:
        evidence = parse_evidence("damaged", text)
    except ParseError:
        return
    for name, state in evidence.items():
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
