"""Bayesian networks, everything made beforehand: all marginals given evidence, tables of evidence, reading a file.

Beside pyAgrum (both of its exact engines, warm, the evidence changed from call to call, or it would answer from memory)
and pgmpy, where they are installed; pgmpy also brings the larger networks. One thread each, float64, every marginal
table read. ``pip install pyagrum pgmpy`` brings the peers.

    make bench                                    # each group's rows timed in the same process
    python benchmarks/bench_networks.py out.md    # the same as a table: medians of processor time, every peer in turn
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from sumout import infer
from sumout.factors import FactorGraph
from sumout.io import read_bif

CARRIED = Path(__file__).parent.parent / "tests" / "data" / "networks"
SMALL = ["asia", "alarm", "child", "insurance", "hailfinder", "win95pts", "water"]
LARGE = [
    *("hepar2", "pathfinder", "andes", "barley", "mildew", "pigs", "diabetes"),
    *("munin1", "munin2", "munin3", "munin4", "munin"),
]
"""These come with pgmpy. Of those left out, ``link`` takes sumout 30 ms and 0.3 GB (1.1 GB for 1,000 rows), and both
engines of pyAgrum more than 8 GB."""
CASES = json.loads((CARRIED / "answers.json").read_text())
ROWS = 1000
SETS = 8
"""Sets of observations that take turns."""

Evidence = dict[str, str]
Query = Callable[[Evidence], dict[str, Any]]
_folder = tempfile.TemporaryDirectory()


@cache
def path_of(name: str) -> Path:
    """The network's file."""
    if name in SMALL:
        return CARRIED / f"{name}.bif"
    found = importlib.util.find_spec("pgmpy")
    if found is None or found.origin is None:
        pytest.skip("pgmpy, which carries the network, is not installed")
    packed = Path(found.origin).parent / "utils" / "example_models" / f"{name}.bif.gz"
    if not packed.exists():
        pytest.skip("this version of pgmpy does not carry the network")
    path = Path(_folder.name) / f"{name}.bif"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path


@cache
def graph_of(name: str) -> FactorGraph:
    return read_bif(path_of(name))


def observed_of(name: str, which: str) -> list[str]:
    """The nodes that are observed: those of a case with answers; in a large network two, or a fifth of all."""
    if name in SMALL:
        cases = [case["evidence"] for case in CASES[name] if case["evidence"]]
        return list((min if which == "little" else max)(cases, key=len))
    nodes = sorted(graph_of(name).variables)
    order = torch.randperm(len(nodes), generator=torch.Generator().manual_seed(1)).tolist()
    return [nodes[place] for place in order[: 2 if which == "little" else len(nodes) // 5]]


@cache
def drawn_from(name: str) -> dict[str, torch.Tensor]:
    """States of all nodes, drawn together, so that what is observed is possible."""
    samples = infer.posterior_samples(graph_of(name), ROWS, generator=torch.Generator().manual_seed(0))()
    return {node: samples[node] for node in graph_of(name).variables}


def evidence_of(name: str, which: str, count: int = SETS) -> list[Evidence]:
    """Sets of observations of the same nodes, the first that of a case with answers if there is one."""
    graph, drawn, nodes = graph_of(name), drawn_from(name), observed_of(name, which)
    sets = [{node: graph.states[node][int(drawn[node][row])] for node in nodes} for row in range(count)]
    known = [case["evidence"] for case in CASES.get(name, ()) if list(case["evidence"]) == nodes]
    return [*known[:1], *sets][:count]


def sumout_query(name: str) -> Query:
    query = infer.marginals(graph_of(name))

    def ask(evidence: Evidence) -> dict[str, Any]:
        answer = query(evidence=evidence)
        return {node: answer.tables[node] for node in answer}

    return ask


def agrum_query(engine: str) -> Callable[[str], Query]:
    def make(name: str) -> Query:
        gum = pytest.importorskip("pyagrum")
        gum.setNumberOfThreads(1)
        network = gum.loadBN(str(path_of(name)))
        inference = getattr(gum, engine)(network)
        nodes = [(node, network.variable(node).name()) for node in network.nodes()]

        def ask(evidence: Evidence) -> dict[str, Any]:
            inference.setEvidence(evidence)
            inference.makeInference()
            return {node: inference.posterior(number) for number, node in nodes if node not in evidence}

        return ask

    return make


def pgmpy_query(name: str) -> Query:
    readwrite = pytest.importorskip("pgmpy.readwrite")
    inference = pytest.importorskip("pgmpy.inference")
    network = readwrite.BIFReader(str(path_of(name))).get_model()
    propagation = inference.BeliefPropagation(network)
    propagation.calibrate()

    def ask(evidence: Evidence) -> dict[str, Any]:
        hidden = [node for node in network.nodes() if node not in evidence]
        found: dict[str, Any] = propagation.query(hidden, evidence=evidence, joint=False, show_progress=False)
        return found

    return ask


AGRUM = {
    "pyAgrum LazyPropagation": agrum_query("LazyPropagation"),
    "pyAgrum ShaferShenoy": agrum_query("ShaferShenoyInference"),
}
PEERS: dict[str, Callable[[str], Query]] = {"sumout": sumout_query, **AGRUM, "pgmpy": pgmpy_query}


def numbers(table: Any) -> torch.Tensor:
    """Probabilities of any library's table."""
    if isinstance(table, torch.Tensor):
        return table.double()
    return torch.as_tensor(table.values if hasattr(table, "values") else table.toarray()).double()


def check_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Files give their probabilities to some six digits, and not all libraries make rows sum to one."""
    assert found.keys() == expected.keys()
    for node, table in found.items():
        torch.testing.assert_close(numbers(table), numbers(expected[node]), atol=1e-5, rtol=0)


def answer_of(name: str, evidence: Evidence) -> dict[str, Any]:
    """The answer that comes with the network; for those without, ours."""
    for case in CASES.get(name, ()):
        if case["evidence"] == evidence:
            return {
                node: torch.tensor(list(table.values()), dtype=torch.float64)
                for node, table in case["marginals"].items()
                if node not in evidence
            }
    return sumout_query(name)(evidence)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("which", ["little", "much"])
@pytest.mark.parametrize("name", SMALL + LARGE)
def test_marginals(benchmark: BenchmarkFixture, name: str, which: str, peer: str) -> None:
    if peer == "pgmpy" and name != "asia":
        pytest.skip("takes from ten seconds to minutes")
    sets = evidence_of(name, which)
    benchmark.group = f"all marginals of {name}, {len(sets[0])} nodes observed"
    ask = PEERS[peer](name)
    check_alike(ask(sets[0]), answer_of(name, sets[0]))
    turns = itertools.cycle(sets)
    benchmark(lambda: ask(next(turns)))


@pytest.mark.parametrize("peer", ["sumout", *AGRUM])
@pytest.mark.parametrize("which", ["little", "much"])
@pytest.mark.parametrize("name", SMALL + LARGE)
def test_rows(benchmark: BenchmarkFixture, name: str, which: str, peer: str) -> None:
    """All marginals of each row of a table; the peers go row by row, in large networks ten rows of the thousand."""
    observed = observed_of(name, which)
    count = ROWS if peer == "sumout" or name in SMALL else 10
    benchmark.group = f"all marginals of {name} for each of {ROWS} rows, {len(observed)} nodes observed"
    benchmark.extra_info["rows"] = count
    if peer == "sumout":
        benchmark.pedantic(rows_query(name, observed), warmup_rounds=1, rounds=2)
        return
    ask, rows = PEERS[peer](name), evidence_of(name, which, count)
    benchmark.pedantic(lambda: [ask(row) for row in rows], warmup_rounds=1, rounds=2)


def rows_query(name: str, observed: Sequence[str], count: int = ROWS) -> Callable[[], dict[str, Any]]:
    """All marginals of each of a thousand rows."""
    table = {node: drawn_from(name)[node][:count] for node in observed}
    query = infer.marginals(graph_of(name))

    def ask() -> dict[str, Any]:
        answer = query(evidence=table)
        return {node: answer.tables[node] for node in answer}

    return ask


def test_read(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "read a network's file"
    benchmark(read_bif, CARRIED / "hailfinder.bif")


# ------------------------------------------------------------------------------------------- the table


class Line(NamedTuple):
    """One line of a table: times are of processor time for one evidence set, or one row."""

    network: str
    nodes: int
    observed: int
    ours: float
    best: float
    engine: str

    @property
    def ratio(self) -> float:
        return self.best / self.ours


def median_time(run: Callable[[], Any], seconds: float, least: int = 5) -> float:
    """The median of repeated runs, as many as fit into the time but no fewer than ``least``."""
    run()
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < 200):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def each_of(ask: Query, sets: Sequence[Evidence]) -> list[dict[str, Any]]:
    return [ask(evidence) for evidence in sets]


def lines_of(name: str, which: str) -> tuple[Line, Line]:
    """The line of single evidence sets and that of rows."""
    sets, nodes = evidence_of(name, which), len(graph_of(name).variables)
    observed = observed_of(name, which)
    times = {}
    for peer, make in {"sumout": sumout_query, **AGRUM}.items():
        ask = make(name)
        start = time.process_time()
        check_alike(ask(sets[0]), answer_of(name, sets[0]))
        # Each time is that of a whole round, so that sets that are quicker than others weigh alike everywhere.
        some = sets if time.process_time() - start < 1.0 else sets[:2]
        times[peer] = median_time(partial(each_of, ask, some), 1.0, 3) / len(some)
    engine = min(AGRUM, key=times.__getitem__)
    single = Line(name, nodes, len(observed), times["sumout"], times[engine], engine.split()[1])
    count = ROWS if single.ours < 0.02 else ROWS // 10
    batch = median_time(rows_query(name, observed, count), 2.0, 1) / count
    return single, single._replace(ours=batch)


def written(lines: Sequence[Line], unit: str, scale: float) -> str:
    """A table in Markdown."""
    text = [
        f"| network | nodes | observed | sumout, {unit} | pyAgrum's best, {unit} | its engine | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    text += [
        f"| {each.network} | {each.nodes} | {each.observed} | {each.ours * scale:.3g} | {each.best * scale:.3g} | "
        f"{each.engine} | {each.ratio:.1f} |"
        for each in lines
    ]
    ratios = [each.ratio for each in lines]
    of_small = [each.ratio for each in lines if each.network in SMALL]
    text.append(
        f"\nGeometric mean of the ratios {mean(ratios):.1f} (least {min(ratios):.1f}); of the networks in "
        f"`tests/data/networks` alone {mean(of_small):.1f} (least {min(of_small):.1f})."
    )
    return "\n".join(text)


def mean(ratios: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, ratios)))


def main(path: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    singles, rows = [], []
    for name in names:
        for which in ("little", "much"):
            try:
                single, row = lines_of(name, which)
            except pytest.skip.Exception as reason:
                print(f"{name}: {reason}")
                continue
            singles.append(single)
            rows.append(row)
            print(f"{name:12} {single.observed:4} {single.ratio:8.1f} {row.ratio:8.1f}", flush=True)
            path.write_text(
                "### All marginals for one set of observations\n\n"
                f"{written(singles, 'ms', 1e3)}\n\n"
                f"### All marginals of each of {ROWS:,} rows\n\npyAgrum goes row by row: its time is that of one "
                f"set. Where a set takes us more than 20 ms, there are {ROWS // 10} rows.\n\n"
                f"{written(rows, 'µs a row', 1e6)}\n"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or SMALL + LARGE)
