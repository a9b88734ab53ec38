"""Published networks: every evidence and marginal against reference answers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sumout.infer import log_evidence, map_assignment, marginal_map, marginals
from sumout.io import Network, network_of, parse_uai, read_bif, read_evidence, read_uai
from sumout.settings import settings

DATA = Path(__file__).parents[1] / "data"
ANSWERS: dict[str, list[dict[str, Any]]] = json.loads((DATA / "networks" / "answers.json").read_text())
UAI = sorted({path.stem for path in (DATA / "uai").glob("*.uai")} - {"relational_3"})


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


def eliminated(network: Network, evidence: Mapping[str, str], maximised: Collection[str] = ()) -> float:
    """The logarithm of the greatest sum of products of tables: bucket elimination with arrays, sums before maxima."""
    tables = []
    for scope, table in network.tables.values():
        index = tuple(network.states[n].index(evidence[n]) if n in evidence else slice(None) for n in scope)
        tables.append(([n for n in scope if n not in evidence], table[index]))
    left = [set(network.states) - set(evidence) - set(maximised), set(maximised) - set(evidence)]
    for names, reduce in zip(left, (np.sum, np.max), strict=True):
        while names:
            buckets = {n: sorted({m for scope, _ in tables if n in scope for m in scope}) for n in names}
            name = min(
                sorted(names),
                key=lambda n: math.prod(len(network.states[m]) for m in buckets[n]),
            )
            product = np.ones([len(network.states[m]) for m in buckets[name]])
            for scope, table in tables:
                if name in scope:
                    order = sorted(range(len(scope)), key=scope.__getitem__)
                    shape = [len(network.states[m]) if m in scope else 1 for m in buckets[name]]
                    product = product * table.transpose(order).reshape(shape)
            tables = [each for each in tables if name not in each[0]]
            tables.append(
                (
                    [m for m in buckets[name] if m != name],
                    reduce(product, axis=buckets[name].index(name)),
                )
            )
            names.remove(name)
    return math.fsum(math.log(table) for _, table in tables)


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, cases in ANSWERS.items() for number in range(len(cases))]
)
def test_most_probable_assignments(name: str, number: int) -> None:
    """The value is compared with another elimination, and the assignment with its value."""
    evidence = ANSWERS[name][number]["evidence"]
    graph = read_bif(DATA / "networks" / f"{name}.bif")
    network = network_of(graph)
    best = map_assignment(graph)(evidence=evidence)
    assert best.log_prob.item() == pytest.approx(
        eliminated(network, evidence, network.states), rel=0, abs=1e-8
    )
    assert best.log_evidence.item() == pytest.approx(eliminated(network, evidence), rel=0, abs=1e-8)
    labels = {**evidence, **best.labels}
    joint = sum(
        math.log(table[tuple(network.states[each].index(labels[each]) for each in scope)])
        for scope, table in network.tables.values()
    )
    assert joint == pytest.approx(best.log_prob.item(), rel=0, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, cases in ANSWERS.items() for number in range(len(cases))]
)
def test_most_probable_assignments_of_some(name: str, number: int) -> None:
    evidence = ANSWERS[name][number]["evidence"]
    graph = read_bif(DATA / "networks" / f"{name}.bif")
    network = network_of(graph)
    hidden = [each for each in network.states if each not in evidence]
    for seed in range(3):
        asked = random.Random(f"{name} {number} {seed}").sample(hidden, 4)
        best = marginal_map(graph, asked)(evidence=evidence)
        expected = eliminated(network, evidence, asked)
        assert best.log_prob.item() == pytest.approx(expected, rel=0, abs=1e-8)
        assert eliminated(network, {**evidence, **best.labels}) == pytest.approx(expected, rel=0, abs=1e-8)


@pytest.mark.parametrize("name", UAI)
def test_competition_networks(name: str) -> None:
    # The reference has six digits.
    path = DATA / "uai" / f"{name}.uai"
    graph, evidence = read_uai(path), read_evidence(f"{path}.evid")
    with settings.override(memory_limit=4 * 2**30):
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
