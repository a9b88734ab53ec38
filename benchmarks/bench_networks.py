"""All marginals of a Bayesian network given evidence, the plan already made; and reading its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from sumout import infer
from sumout.io import read_bif

NETWORKS = Path("tests/data/networks")
NAMES = ["asia", "alarm", "child", "insurance", "hailfinder", "win95pts", "water"]


@pytest.mark.parametrize("name", NAMES)
def test_marginals(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = "all marginals of a network"
    graph = read_bif(NETWORKS / f"{name}.bif")
    cases = json.loads((NETWORKS / "answers.json").read_text())[name]
    case = max(cases, key=lambda each: len(each["evidence"]))
    query = infer.marginals(graph)
    answer = query(evidence=case["evidence"])
    assert answer.log_evidence.item() == pytest.approx(case["log_evidence"], abs=1e-8)
    benchmark(query, evidence=case["evidence"])


def test_read(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "read a network's file"
    benchmark(read_bif, NETWORKS / "hailfinder.bif")
