"""What is written is read back: names, states, numbers and answers; what does not fit is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sumout.errors import GraphError
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.infer import log_evidence
from sumout.io import Network, network_of, parse_network, read_bif, read_network, read_uai, write_network
from sumout.io.write import WRITERS

DATA = Path(__file__).parents[1] / "data"
DIRECTED = [".bif", ".xml", ".xmlbif", ".bifxml"]


def same(first: Network, second: Network) -> None:
    assert dict(first.states) == dict(second.states)
    assert first.directed == second.directed
    assert [scope for scope, _ in first.tables.values()] == [scope for scope, _ in second.tables.values()]
    for (_, mine), (_, other) in zip(first.tables.values(), second.tables.values(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0 if not first.directed else 1e-15, atol=0)


@pytest.mark.parametrize("name", ["asia", "alarm", "child", "insurance", "water"])
@pytest.mark.parametrize("suffix", [".bif", ".xml"])
def test_published_networks(name: str, suffix: str, tmp_path: Path) -> None:
    graph = read_bif(DATA / "networks" / f"{name}.bif")
    write_network(graph, tmp_path / f"x{suffix}")
    again = read_network(tmp_path / f"x{suffix}")
    same(network_of(graph), network_of(again))
    write_network(again, tmp_path / f"x{suffix}")  # over the old one
    same(network_of(graph), network_of(read_network(tmp_path / f"x{suffix}")))


@pytest.mark.parametrize("name", ["Grids_12", "Promedus_24", "relational_3", "Pedigree_11"])
def test_markov_networks(name: str, tmp_path: Path) -> None:
    graph = read_uai(DATA / "uai" / f"{name}.uai")
    write_network(graph, tmp_path / "x.uai")
    same(network_of(graph), network_of(read_uai(tmp_path / "x.uai")))


def test_a_bayesian_network_as_uai(tmp_path: Path) -> None:
    graph = read_bif(DATA / "networks" / "child.bif")
    write_network(graph, tmp_path / "x.uai")
    assert (tmp_path / "x.uai").read_text().startswith("BAYES\n20\n")
    again = read_uai(tmp_path / "x.uai")
    number = {name: str(place) for place, name in enumerate(network_of(graph).states)}
    evidence = {"LungParench": 2, "Age": 0}
    numbered = {number[name]: state for name, state in evidence.items()}
    assert log_evidence(again)(evidence=numbered).item() == pytest.approx(
        log_evidence(graph)(evidence=evidence).item(), rel=0, abs=1e-12
    )


def words(forbidden: str) -> st.SearchStrategy[str]:
    """Names that a format can hold, among them the odd ones."""
    text = st.text(
        st.characters(exclude_categories=("Cc", "Cs", "Cn"), exclude_characters=forbidden),
        min_size=1,
        max_size=8,
    )
    odd = [
        "property",
        "variable",
        "table",
        "a//b",
        "a/*",
        "/",
        "]]>",
        "&amp;",
        "<x>",
        "(",
        "a b",
        "1",
        ";",
        "'",
    ]
    return (text | st.sampled_from(odd)).map(str.strip).filter(bool)


@st.composite
def networks(draw: st.DrawFn, names: st.SearchStrategy[str]) -> FactorGraph:
    """Bayesian networks with rows of any probabilities, zeros among them."""
    nodes = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    states = {name: draw(st.lists(names, min_size=1, max_size=3, unique=True)) for name in nodes}
    tables = {}
    for place, name in enumerate(nodes):
        parents = draw(st.lists(st.sampled_from(nodes[:place]), unique=True)) if place else []
        shape = [len(states[each]) for each in (*parents, name)]
        weight = st.one_of(st.floats(1e-3, 1.0), st.just(0.0), st.just(1e-200))
        rows = []
        for _ in itertools.product(*map(range, shape[:-1])):
            row = np.array(draw(st.lists(weight, min_size=shape[-1], max_size=shape[-1])))
            row[draw(st.integers(0, shape[-1] - 1))] = 1.0
            rows.append(row / row.sum())
        tables[f"p({name})"] = [*parents, name], torch.tensor(np.reshape(rows, shape))
    return FactorGraph.from_tables(tables, states=states)


@pytest.mark.parametrize("suffix", [".bif", ".xml"])
@given(data=st.data())
def test_random_bayesian_networks(suffix: str, data: st.DataObject) -> None:
    graph = data.draw(networks(words('"' if suffix == ".bif" else "")))
    network = network_of(graph)
    text = WRITERS[suffix](network)
    same(network, parse_network(f"x{suffix}", text))
    same(network, parse_network("no suffix", text))


@given(data=st.data())
def test_random_markov_networks(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    entry = st.floats(1e-300, 1e300) | st.just(0.0)
    scopes = data.draw(st.lists(st.lists(st.integers(0, len(sizes) - 1), unique=True), max_size=4))
    scopes += [[place] for place in range(len(sizes))]
    tables = {}
    for number, scope in enumerate(scopes):
        shape = [sizes[each] for each in scope]
        count = int(np.prod(shape))
        values = data.draw(st.lists(entry, min_size=count, max_size=count))
        tables[f"f{number}"] = (
            [str(each) for each in scope],
            torch.tensor(values, dtype=torch.float64).reshape(shape),
        )
    order = {str(place): list(map(str, range(size))) for place, size in enumerate(sizes)}
    network = network_of(FactorGraph.from_tables(tables, states=order))
    again = parse_network("x.uai", WRITERS[".uai"](network))
    assert again.states == network.states
    for (scope, mine), (of_again, other) in zip(network.tables.values(), again.tables.values(), strict=True):
        assert scope == of_again
        np.testing.assert_allclose(mine, other, rtol=0 if not again.directed else 1e-15, atol=0)


def test_short_numbers_stay_short(tmp_path: Path) -> None:
    path = tmp_path / "x.bif"
    for dtype in (torch.float32, torch.float64):
        table = torch.tensor([0.1, 0.2, 0.7], dtype=dtype)
        write_network(FactorGraph.from_tables({"x": (["x"], table)}), path)
        assert "table 0.1, 0.2, 0.7;" in path.read_text()


def graph(*tables: tuple[list[str], object]) -> FactorGraph:
    named = {f"f{place}": (scope, torch.tensor(values)) for place, (scope, values) in enumerate(tables)}
    return FactorGraph.from_tables(named)


NOT_BAYESIAN = {
    "weights": graph((["a"], [1.0, 2.0])),
    "the child first": graph((["a"], [0.5, 0.5]), (["b", "a"], [[0.9, 0.2], [0.1, 0.8]])),
    "two factors of one": graph((["a"], [0.5, 0.5]), (["a"], [0.5, 0.5])),
    "none of one": graph((["a", "b"], [[0.5, 0.5], [0.5, 0.5]])),
    "a cycle": graph((["a", "b"], [[0.5, 0.5]] * 2), (["b", "a"], [[0.5, 0.5]] * 2)),
    "a constant": graph((["a"], [0.5, 0.5]), ([], 1.0)),
}


@pytest.mark.parametrize("given", NOT_BAYESIAN.values(), ids=NOT_BAYESIAN.keys())
def test_what_is_no_bayesian_network(given: FactorGraph, tmp_path: Path) -> None:
    for suffix in DIRECTED:
        with pytest.raises(GraphError, match="no Bayesian network"):
            write_network(given, tmp_path / f"x{suffix}")
    write_network(given, tmp_path / "x.uai")
    again = read_uai(tmp_path / "x.uai")
    assert log_evidence(again)().item() == pytest.approx(log_evidence(given)().item(), abs=1e-6)


def test_what_does_not_fit(tmp_path: Path) -> None:
    plated = FactorGraph((Factor("f", ("x",), torch.zeros(2)),), {"x": Variable(2)}, {"p": Plate(3)})
    scaled = FactorGraph((Factor("f", ("x",), torch.zeros(2), scale=2.0),), {"x": Variable(2)})
    tiny = FactorGraph.from_tables({"f": (["x"], [-800.0, 0.0])}, log=True)
    large = FactorGraph.from_tables({"f": (["x"], [800.0, 0.0])}, log=True)
    subnormal = FactorGraph.from_tables({"f": (["x"], [-730.0, 0.0])}, log=True)
    for refused, rule in [
        (plated, "plate 'p'"),
        (scaled, "scale 2.0"),
        (tiny, "e\\^-800"),
        (large, "e\\^800"),
        (subnormal, "e\\^-730"),
    ]:
        with pytest.raises(GraphError, match=rule):
            write_network(refused, tmp_path / "x.uai")
    with pytest.raises(GraphError, match=r"suffix '.txt', but networks are written to .bif"):
        write_network(graph((["a"], [1.0, 2.0])), tmp_path / "x.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        (".bif", 'a"b'),
        (".bif", "a\nb"),
        (".xml", " a"),
        (".xml", "a\x00"),
        (".xml", "a\ud800"),
        (".xml", "a\n"),
    ],
)
def test_names_that_do_not_fit(suffix: str, name: str, tmp_path: Path) -> None:
    for states in ({name: ["x"]}, {"n": [name]}):
        (node,) = states
        with pytest.raises(GraphError, match="cannot hold the name"):
            write_network(
                FactorGraph.from_tables({"f": ([node], [1.0])}, states=states), tmp_path / f"x{suffix}"
            )
