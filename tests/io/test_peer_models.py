"""Models of pgmpy and pyAgrum: to a graph and back, with their own inference as the reference.

A library that is not installed has its tests skipped: they are extras.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sumout.errors import GraphError, MissingExtraError, ParseError
from sumout.factors import FactorGraph
from sumout.infer import log_evidence, map_assignment, marginals
from sumout.io import (
    from_pgmpy,
    from_pyagrum,
    network_of,
    read_bif,
    read_network,
    read_uai,
    to_pgmpy,
    to_pyagrum,
    write_network,
)

DATA = Path(__file__).parents[1] / "data"
# Classes of both warn at their first use; in pyAgrum's case a warning that is an error ends the process.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def pyagrum() -> Any:
    return pytest.importorskip("pyagrum")


@pytest.fixture
def pgmpy_inference() -> Any:
    return pytest.importorskip("pgmpy.inference")


CASES: dict[str, list[dict[str, str]]] = {
    "asia": [{}, {"smoke": "yes", "dysp": "yes"}, {"either": "no", "asia": "yes"}],
    "alarm": [{}, {"HRBP": "HIGH", "CO": "LOW", "BP": "LOW"}],
    "child": [{}, {"Grunting": "yes", "CO2Report": "lt75"}],
}
ALL_CASES = [(name, evidence) for name, cases in CASES.items() for evidence in cases]


def child() -> FactorGraph:
    return read_bif(DATA / "networks" / "child.bif")


def weights() -> FactorGraph:
    """A Markov network with two tables over the same variables, a constant, and a state alone."""
    generator = torch.Generator().manual_seed(0)

    def table(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) * 5

    return FactorGraph.from_tables(
        {
            "constant": ([], torch.tensor(0.25, dtype=torch.float64)),
            "ab": (["a", "b"], table(2, 3)),
            "bc": (["b", "c"], table(3, 2)),
            "ba": (["b", "a"], table(3, 2)),
            "cda": (["c", "d", "a"], table(2, 1, 2)),
        },
        states={"a": ["no", "yes"], "b": ["low", "mid dle", "high"], "c": ["0", "1"], "d": ["only"]},
    )


def agree(found: Mapping[str, Mapping[str, float]], graph: FactorGraph, evidence: Mapping[str, str]) -> None:
    """Whether the marginals by node and state are those of the graph."""
    ours = marginals(graph)(evidence=evidence)
    assert set(ours) == set(found)
    for node, states in found.items():
        expected = dict(zip(graph.states[node], ours[node].probs.tolist(), strict=True))
        assert expected == pytest.approx(states, rel=0, abs=1e-8)


def same(first: FactorGraph, second: FactorGraph, atol: float = 1e-15) -> None:
    """Equal names, states and tables, whatever the order of the factors and of a table's parents."""
    assert dict(first.states) == dict(second.states)
    tables = {frozenset(factor.inputs): factor for factor in second.factors}
    assert len(first.factors) == len(tables)
    for factor in first.factors:
        other = tables[frozenset(factor.inputs)]
        data = other.data.permute([other.inputs.index(name) for name in factor.inputs])
        torch.testing.assert_close(factor.data.exp(), data.exp(), rtol=1e-14, atol=atol)


# ------------------------------------------------------------------------------------------------ pyAgrum


def by_pyagrum(engine: Any, graph: FactorGraph, evidence: Mapping[str, str]) -> dict[str, dict[str, float]]:
    engine.setEvidence(dict(evidence))
    engine.makeInference()
    return {
        name: dict(zip(labels, np.asarray(engine.posterior(name).toarray()).tolist(), strict=True))
        for name, labels in graph.states.items()
        if name not in evidence
    }


@pytest.mark.parametrize(("name", "evidence"), ALL_CASES)
def test_pyagrum_finds_the_same_marginals(pyagrum: Any, name: str, evidence: dict[str, str]) -> None:
    graph = read_bif(DATA / "networks" / f"{name}.bif")
    model = to_pyagrum(graph)
    assert isinstance(model, pyagrum.BayesNet)
    agree(by_pyagrum(pyagrum.LazyPropagation(model), graph, evidence), graph, evidence)
    again = from_pyagrum(model)
    assert network_of(again).directed
    same(graph, again)


@pytest.mark.parametrize("name", ["asia", "hailfinder"])
def test_pyagrum_finds_the_same_most_probable_assignment(pyagrum: Any, name: str) -> None:
    """With the third set of evidence: pyAgrum 3.3 ends most other searches with "Empty tensor"."""
    evidence = json.loads((DATA / "networks" / "answers.json").read_text())[name][2]["evidence"]
    graph = read_bif(DATA / "networks" / f"{name}.bif")
    engine = pyagrum.LazyPropagation(to_pyagrum(graph))
    engine.setEvidence(evidence)
    engine.makeInference()
    found, log2 = engine.mpeLog2Posterior()
    variables = [found.variable(place) for place in range(found.nbrDim())]
    best = map_assignment(graph)(evidence=evidence)
    assert (best.log_prob - best.log_evidence).item() == pytest.approx(log2 * math.log(2), rel=0, abs=1e-8)
    theirs = {each.name(): each.label(found.val(each.name())) for each in variables}
    assert evidence | best.labels == theirs


@pytest.mark.parametrize("name", ["asia", "child"])
def test_files_of_pyagrum(pyagrum: Any, name: str, tmp_path: Path) -> None:
    """It writes six digits into some of them, and reads BIF in single precision."""
    graph = read_bif(DATA / "networks" / f"{name}.bif")
    model = to_pyagrum(graph)
    for suffix in ("bif", "bifxml", "net", "dsl"):
        path = str(tmp_path / f"theirs.{suffix}")
        pyagrum.saveBN(model, path)
        same(graph, read_network(path), 1e-6)
    for suffix in ("bif", "bifxml"):
        path = str(tmp_path / f"ours.{suffix}")
        write_network(graph, path)
        same(graph, from_pyagrum(pyagrum.loadBN(path)), 1e-6)


def test_files_of_pyagrum_with_parents_in_another_order_are_refused(pyagrum: Any, tmp_path: Path) -> None:
    model = to_pyagrum(child())
    for suffix, words in [("uai", "found '#'"), ("xdsl", "found a file written by aGrUM")]:
        path = str(tmp_path / f"child.{suffix}")
        pyagrum.saveBN(model, path)
        with pytest.raises(ParseError, match=words):
            read_network(path)


def test_a_markov_random_field_of_pyagrum(pyagrum: Any) -> None:
    graph = weights()
    model = to_pyagrum(graph)
    assert isinstance(model, pyagrum.MarkovRandomField)
    for evidence in ({}, {"b": "mid dle"}):
        engine = pyagrum.ShaferShenoyMRFInference(model)
        agree(by_pyagrum(engine, graph, evidence), graph, evidence)
    again = from_pyagrum(model)
    assert len(again.factors) == 3
    assert log_evidence(again)().item() == pytest.approx(log_evidence(graph)().item(), rel=0, abs=1e-12)
    agree(by_pyagrum(pyagrum.ShaferShenoyMRFInference(model), graph, {}), again, {})


def test_a_competition_network_in_pyagrum(pyagrum: Any) -> None:
    graph = read_uai(DATA / "uai" / "Promedus_24.uai")
    again = from_pyagrum(to_pyagrum(graph))
    assert log_evidence(again)().item() == pytest.approx(log_evidence(graph)().item(), rel=0, abs=1e-10)


def test_every_kind_of_variable_of_pyagrum(pyagrum: Any) -> None:
    model = pyagrum.BayesNet()
    model.add(pyagrum.RangeVariable("range", "", 3, 5))
    model.add(pyagrum.DiscretizedVariable("interval", "", [1, 2.5, 4]))
    model.add(pyagrum.IntegerVariable("integer", "", [1, 5, 9]))
    model.add(pyagrum.LabelizedVariable("label", "", ["a b", ">=5"]))
    noisy = model.addNoisyOR(pyagrum.LabelizedVariable("noisy", "", ["no", "yes"]), 0.1)
    for parent in ("range", "integer"):
        model.addArc(parent, "interval")
        model.addArc(parent, "label")
    model.addWeightedArc(model.idFromName("label"), noisy, 0.5)
    model.addWeightedArc(model.idFromName("interval"), noisy, 0.25)
    for name in ("range", "interval", "integer", "label"):
        model.generateCPT(name)
    graph = from_pyagrum(model)
    assert graph.states["range"] == ("3", "4", "5")
    assert graph.states["integer"] == ("1", "5", "9")
    agree(by_pyagrum(pyagrum.LazyPropagation(model), graph, {}), graph, {})


def test_what_is_no_network_of_pyagrum(pyagrum: Any) -> None:
    with pytest.raises(GraphError, match="A InfluenceDiagram is none of pyAgrum's BayesNet"):
        from_pyagrum(pyagrum.InfluenceDiagram())
    model = pyagrum.fastBN("a->b")
    model.cpt("a")[:] = [0.5, 0.6]
    with pytest.raises(GraphError, match="The table of 'a': expected .* that sum to 1, found 1.1"):
        from_pyagrum(model)


# -------------------------------------------------------------------------------------------------- pgmpy


def by_pgmpy(engine: Any, graph: FactorGraph, evidence: Mapping[str, str]) -> dict[str, dict[str, float]]:
    found = {}
    for name in graph.states:
        if name not in evidence:
            answer = engine.query([name], dict(evidence), show_progress=False)
            values = answer.values / answer.values.sum()  # of a Markov network, they are weights
            found[name] = dict(zip(answer.state_names[name], values.tolist(), strict=True))
    return found


@pytest.mark.parametrize(("name", "evidence"), ALL_CASES)
def test_pgmpy_finds_the_same_marginals(pgmpy_inference: Any, name: str, evidence: dict[str, str]) -> None:
    graph = read_bif(DATA / "networks" / f"{name}.bif")
    model = to_pgmpy(graph)
    assert type(model).__name__ == "DiscreteBayesianNetwork"
    assert model.check_model()
    agree(by_pgmpy(pgmpy_inference.VariableElimination(model), graph, evidence), graph, evidence)
    again = from_pgmpy(model)
    assert network_of(again).directed
    same(graph, again)


@pytest.mark.parametrize("name", ["asia", "child"])
def test_files_of_pgmpy(pgmpy_inference: Any, name: str, tmp_path: Path) -> None:
    """Not those in UAI's format: pgmpy writes a child first, where the format has it last."""
    files = pytest.importorskip("pgmpy.readwrite")
    graph = read_bif(DATA / "networks" / f"{name}.bif")
    model = to_pgmpy(graph)
    for suffix, writer in [("bif", "BIF"), ("xml", "XMLBIF"), ("net", "NET"), ("xdsl", "XDSL")]:
        path = str(tmp_path / f"theirs.{suffix}")
        getattr(files, f"{writer}Writer")(model).write(path)
        same(graph, read_network(path), 1e-8)
    for suffix, reader in [("bif", "BIF"), ("xml", "XMLBIF")]:
        path = str(tmp_path / f"ours.{suffix}")
        write_network(graph, path)
        same(graph, from_pgmpy(getattr(files, f"{reader}Reader")(path).get_model()), 1e-14)


def test_a_markov_network_of_pgmpy(pgmpy_inference: Any) -> None:
    graph = weights()
    model = to_pgmpy(graph)
    assert type(model).__name__ == "DiscreteMarkovNetwork"
    assert model.check_model()
    assert np.log(model.get_partition_function()) == pytest.approx(log_evidence(graph)().item(), abs=1e-12)
    agree(by_pgmpy(pgmpy_inference.VariableElimination(model), graph, {"a": "yes"}), graph, {"a": "yes"})
    for each in (model, model.to_factor_graph(), model.to_junction_tree()):
        agree(by_pgmpy(pgmpy_inference.VariableElimination(model), graph, {}), from_pgmpy(each), {})


def test_a_bayesian_network_made_with_pgmpy(pgmpy_inference: Any) -> None:
    """States that are no strings, and a child whose parents are named in another order than the nodes."""
    discrete = pytest.importorskip("pgmpy.factors.discrete")
    models = pytest.importorskip("pgmpy.models")
    model = models.DiscreteBayesianNetwork([("a", "c"), ("b", "c")])
    table = np.random.default_rng(0).dirichlet(np.ones(2), 6).T
    names = {"a": [False, True], "b": [10, 20, 30], "c": ["x", "y"]}
    model.add_cpds(
        discrete.TabularCPD("a", 2, [[0.25], [0.75]], state_names={"a": names["a"]}),
        discrete.TabularCPD("b", 3, [[0.25], [0.25], [0.5]], state_names={"b": names["b"]}),
        discrete.TabularCPD("c", 2, table, ["b", "a"], [3, 2], state_names=names),
    )
    assert model.check_model()
    graph = from_pgmpy(model)
    assert dict(graph.states) == {"a": ("False", "True"), "b": ("10", "20", "30"), "c": ("x", "y")}
    found = pgmpy_inference.VariableElimination(model).query(["a"], {"c": "y", "b": 20}, show_progress=False)
    ours = marginals(graph)(evidence={"c": "y", "b": "20"})["a"].probs
    np.testing.assert_allclose(ours, found.values, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------- without either of them


def table(
    variables: list[str], values: object, states: dict[str, list[str]] | None = None
) -> SimpleNamespace:
    listed = {name: ["x", "y"] for name in variables} | (states or {})
    return SimpleNamespace(variables=variables, values=np.array(values), state_names=listed)


def directed(*tables: SimpleNamespace) -> SimpleNamespace:
    nodes = sorted({name for each in tables for name in each.variables})
    return SimpleNamespace(nodes=lambda: nodes, get_cpds=lambda: tables)


A = table(["a"], [0.25, 0.75])
WRONG = {
    "a row": (directed(table(["a"], [0.25, 0.5])), "The table of 'a': expected .* sum to 1, found 0.75"),
    "no table": (directed(table(["a", "b"], [[0.5, 0.5], [0.5, 0.5]])), "'b' has no table of probabilities"),
    "two tables": (directed(A, A), "two tables of 'a'"),
    "negative": (directed(table(["a"], [-0.5, 1.5])), "over a has the entry -0.5"),
    "nan": (directed(table(["a"], [np.nan, 1.5])), "over a has the entry nan"),
    "another shape": (
        directed(table(["a"], [0.25, 0.25, 0.5])),
        r"over a has shape \(3,\).* have \(2,\) states",
    ),
    "a cycle": (
        directed(table(["a", "b"], [[0.5, 0.5]] * 2), table(["b", "a"], [[0.5, 0.5]] * 2)),
        "expected no cycle, found a -> b -> a",
    ),
    "states in another order": (
        directed(A, table(["b", "a"], [[0.5, 0.25], [0.5, 0.75]], {"a": ["y", "x"]})),
        r"states of 'a' differently, \('x', 'y'\) and \('y', 'x'\)",
    ),
    "states that read alike": (directed(table(["a"], [0.25, 0.75], {"a": ["1", 1]})), "found '1' again"),
    "a Gaussian": (directed(SimpleNamespace(variables=["a"])), "which is no table: only discrete models"),
    "no model": (SimpleNamespace(), "A SimpleNamespace is no discrete model of pgmpy"),
    "weights in another order": (
        SimpleNamespace(get_factors=lambda: [A, table(["a"], [1, 2], {"a": ["y", "x"]})]),
        "states of 'a' differently",
    ),
}


@pytest.mark.parametrize(("model", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_network(model: Any, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        from_pgmpy(model)


def test_tables_of_torch() -> None:
    """Those of pgmpy's other backend."""
    b = table(["b", "a"], 0, {})
    b.values = torch.tensor([[0.5, 0.25], [0.5, 0.75]])
    graph = from_pgmpy(directed(A, b))
    assert graph.factors[1].inputs == ("a", "b")
    torch.testing.assert_close(graph.factors[1].data.exp(), b.values.double().T)


@pytest.mark.parametrize(("convert", "module"), [(to_pgmpy, "pgmpy.models"), (to_pyagrum, "pyagrum")])
def test_a_library_that_is_not_installed(convert: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    package = module.split(".")[0]
    with pytest.raises(MissingExtraError, match=f"needs the package '{package}'.*sumout\\[{package}\\]"):
        convert(child())
