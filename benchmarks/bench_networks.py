"""Bayesian networks, everything made beforehand: all marginals given evidence, tables of evidence, reading a file.

Beside pyAgrum (both of its exact engines, warm, the evidence changed from call to call, or it would answer from memory)
and pgmpy, where they are installed. One thread each, float64. ``pip install pyagrum pgmpy`` brings the peers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from sumout import infer
from sumout.io import read_bif

NETWORKS = Path("tests/data/networks")
NAMES = ["asia", "alarm", "child", "insurance", "hailfinder", "win95pts", "water"]
CASES = json.loads((NETWORKS / "answers.json").read_text())
ROWS = 1000

Evidence = dict[str, str]
Query = Callable[[Evidence], dict[str, list[float]]]


def evidence_of(name: str, which: str) -> list[Evidence]:
    """Two sets of observations of the same nodes: those of a case with answers, and another that is possible."""
    cases = [case["evidence"] for case in CASES[name] if case["evidence"]]
    first = (min if which == "little" else max)(cases, key=len)
    torch.manual_seed(0)
    graph = read_bif(NETWORKS / f"{name}.bif")
    drawn = infer.posterior_samples(graph, 1)()
    return [first, {node: graph.states[node][int(drawn[node][0])] for node in first}]


def sumout_query(path: str) -> Query:
    graph = read_bif(path)
    query = infer.marginals(graph)

    def ask(evidence: Evidence) -> Any:
        answer = query(evidence=evidence)
        return {name: answer.tables[name] for name in answer}

    return ask


def agrum_query(engine: str) -> Callable[[str], Query]:
    def make(path: str) -> Query:
        gum = pytest.importorskip("pyagrum")
        gum.setNumberOfThreads(1)
        network = gum.loadBN(path)
        inference = getattr(gum, engine)(network)

        def ask(evidence: Evidence) -> Any:
            inference.setEvidence(evidence)
            inference.makeInference()
            return {
                network.variable(node).name(): inference.posterior(node)
                for node in network.nodes()
                if network.variable(node).name() not in evidence
            }

        return ask

    return make


def pgmpy_query(path: str) -> Query:
    readwrite = pytest.importorskip("pgmpy.readwrite")
    inference = pytest.importorskip("pgmpy.inference")
    network = readwrite.BIFReader(path).get_model()
    propagation = inference.BeliefPropagation(network)
    propagation.calibrate()

    def ask(evidence: Evidence) -> Any:
        hidden = [node for node in network.nodes() if node not in evidence]
        return propagation.query(hidden, evidence=evidence, joint=False, show_progress=False)

    return ask


PEERS: dict[str, Callable[[str], Query]] = {
    "sumout": sumout_query,
    "pyAgrum LazyPropagation": agrum_query("LazyPropagation"),
    "pyAgrum ShaferShenoy": agrum_query("ShaferShenoyInference"),
    "pgmpy": pgmpy_query,
}


def numbers(table: Any) -> torch.Tensor:
    """Probabilities of any library's table."""
    if isinstance(table, torch.Tensor):
        return table
    return torch.as_tensor(table.values if hasattr(table, "values") else table.toarray())


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("which", ["little", "much"])
@pytest.mark.parametrize("name", NAMES)
def test_marginals(benchmark: BenchmarkFixture, name: str, which: str, peer: str) -> None:
    sets = evidence_of(name, which)
    benchmark.group = f"all marginals of {name}, {len(sets[0])} nodes observed"
    if peer == "pgmpy" and name != "asia":
        pytest.skip("takes from ten seconds to minutes")
    ask = PEERS[peer](str(NETWORKS / f"{name}.bif"))
    (case,) = (each for each in CASES[name] if each["evidence"] == sets[0])
    found = ask(sets[0])
    for node, table in found.items():
        exact = torch.tensor(list(case["marginals"][node].values()), dtype=torch.float64)
        torch.testing.assert_close(numbers(table).double(), exact, atol=1e-6, rtol=0)
    turns = itertools.cycle(sets)
    benchmark(lambda: ask(next(turns)))


@pytest.mark.parametrize("peer", ["sumout", "pyAgrum LazyPropagation", "pyAgrum ShaferShenoy"])
@pytest.mark.parametrize("name", NAMES)
def test_rows(benchmark: BenchmarkFixture, name: str, peer: str) -> None:
    """All marginals of each row of a table; the peers go row by row."""
    graph = read_bif(NETWORKS / f"{name}.bif")
    observed = max((case["evidence"] for case in CASES[name]), key=len)
    torch.manual_seed(0)
    drawn = infer.posterior_samples(graph, ROWS)()
    benchmark.group = f"all marginals of {name} for each of {ROWS} rows, {len(observed)} nodes observed"
    if peer == "sumout":
        table = {node: drawn[node] for node in observed}
        query = infer.marginals(graph)
        benchmark(lambda: query(evidence=table))
        return
    ask = PEERS[peer](str(NETWORKS / f"{name}.bif"))
    rows = [{node: graph.states[node][int(drawn[node][row])] for node in observed} for row in range(ROWS)]
    benchmark.pedantic(lambda: [ask(row) for row in rows], rounds=2)


def test_read(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "read a network's file"
    benchmark(read_bif, NETWORKS / "hailfinder.bif")
