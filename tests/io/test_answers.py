"""Published networks: every evidence and marginal against reference answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sumout.infer import log_evidence, map_assignment, marginals
from sumout.io import parse_uai, read_bif, read_evidence, read_uai

DATA = Path(__file__).parents[1] / "data"
ANSWERS: dict[str, list[dict[str, Any]]] = json.loads((DATA / "networks" / "answers.json").read_text())
# Those whose marginals take less than 200 MB; DBN_11 and ObjectDetection_12 take more.
UAI = ["Alchemy_11", "CSP_12", "Grids_12", "Pedigree_11", "Promedus_24", "Promedus_26", "Segmentation_11"]


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, cases in ANSWERS.items() for number in range(len(cases))]
)
def test_bayesian_networks(name: str, number: int) -> None:
    case = ANSWERS[name][number]
    graph = read_bif(DATA / "networks" / f"{name}.bif")
    assert log_evidence(graph)(evidence=case["evidence"]).item() == pytest.approx(
        case["log_evidence"], rel=0, abs=1e-8
    )
    found = marginals(graph)(evidence=case["evidence"])
    assert found.log_evidence.item() == pytest.approx(case["log_evidence"], rel=0, abs=1e-8)
    assert set(found) == set(case["marginals"])
    for node, states in case["marginals"].items():
        posterior = dict(zip(graph.states[node], found[node].probs.tolist(), strict=True))
        assert posterior == pytest.approx(states, rel=0, abs=1e-8)


@pytest.mark.parametrize("name", ["asia", "alarm", "child", "insurance"])
def test_a_most_probable_assignment_has_the_probability_it_claims(name: str) -> None:
    graph = read_bif(DATA / "networks" / f"{name}.bif")
    best = map_assignment(graph)()
    everything = {node: int(state) for node, state in best.items()}
    assert set(everything) == set(graph.states)
    assert log_evidence(graph)(evidence=everything).item() == pytest.approx(
        best.log_prob.item(), rel=0, abs=1e-10
    )
    for node, states in graph.states.items():  # no single change is better
        for state in range(len(states)):
            changed = log_evidence(graph)(evidence=everything | {node: state}).item()
            assert changed <= best.log_prob.item() + 1e-10


@pytest.mark.parametrize("name", UAI)
def test_competition_networks(name: str) -> None:
    # The reference has six digits.
    path = DATA / "uai" / f"{name}.uai"
    graph, evidence = read_uai(path), read_evidence(f"{path}.evid")
    found = marginals(graph)(evidence=evidence)
    reference = float(Path(f"{path}.PR").read_text().split()[1])
    assert found.log_evidence.item() / math.log(10) == pytest.approx(reference, rel=1e-5)
    for node, expected in reference_marginals(path).items():
        if node in evidence:
            assert expected[int(evidence[node])] == 1
        else:
            assert found[node].probs.tolist() == pytest.approx(expected, rel=0, abs=1e-6)


def reference_marginals(path: Path) -> dict[str, list[float]]:
    """A .MAR file: the number of variables, then for each its number of states and their probabilities."""
    numbers = iter(Path(f"{path}.MAR").read_text().split()[1:])
    return {
        str(node): [float(next(numbers)) for _ in range(int(next(numbers)))]
        for node in range(int(next(numbers)))
    }


def test_a_network_of_components_against_brute_force() -> None:
    """`relational_3` is 100 components of 10 binary nodes, small enough to list all their states.

    Its published marginals are not those of the file, and do not change with the evidence: they are not used.
    """
    path = DATA / "uai" / "relational_3.uai"
    evidence = {name: int(state) for name, state in read_evidence(f"{path}.evid").items()}
    found = marginals(read_uai(path))(evidence=evidence)
    tables = parse_uai(path, path.read_text()).tables.values()
    log_z = 0.0
    for number in range(100):
        nodes = [str(number + 100 * group) for group in range(10)]
        joint = np.ones((2,) * 10)
        used = [(scope, table) for scope, table in tables if scope[0] in nodes]
        assert len(used) == 20
        for scope, table in used:
            places = [nodes.index(name) for name in scope]
            joint = joint * np.einsum(table, places, sorted(places)).reshape(
                [2 if place in places else 1 for place in range(10)]
            )
        for place, name in enumerate(nodes):
            if name in evidence:
                mask = np.arange(2) == evidence[name]
                joint = joint * mask.reshape([2 if each == place else 1 for each in range(10)])
        log_z += math.log(joint.sum())
        for place, name in enumerate(nodes):
            if name not in evidence:
                posterior = joint.sum(tuple(each for each in range(10) if each != place)) / joint.sum()
                assert found[name].probs.tolist() == pytest.approx(posterior.tolist(), rel=0, abs=1e-12)
    assert found.log_evidence.item() == pytest.approx(log_z, rel=1e-12)
