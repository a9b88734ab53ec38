"""What a traced `sample` costs: 100 sites under one, two and three handlers; divide by 100 for a site."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from peers import LIBRARIES, Library

SITES = 100


def traced(library: Library, handlers: str) -> Callable[[], object]:
    """A run under trace, under trace and a plate, or under those and enumeration."""
    language, poutine = library.language, library.poutine
    coin = library.dist.Bernoulli(torch.tensor(0.3))
    names = [f"x_{i}" for i in range(SITES)]
    marked = {"enumerate": "parallel"} if "enum" in handlers else {}

    def sites() -> None:
        for name in names:
            language.sample(name, coin, infer=dict(marked))

    def enumerated_sites() -> None:
        # A context of its own for each site: they share one dimension, as the steps of a chain do.
        for i in language.markov(range(SITES), history=0):
            language.sample(names[i], coin, infer=dict(marked))

    body = enumerated_sites if "enum" in handlers else sites

    def program() -> None:
        if "plate" in handlers:
            with language.plate("data", 10, dim=-1):
                body()
        else:
            body()

    if "enum" in handlers:
        program = poutine.enum(program, first_available_dim=-2)
    return lambda: poutine.trace(program).get_trace()


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
@pytest.mark.parametrize("handlers", ["trace", "trace + plate", "trace + plate + enum"])
def test_traced_sample(benchmark: BenchmarkFixture, library: Library, handlers: str) -> None:
    benchmark.group = f"{SITES} sites under {handlers}"
    run = traced(library, handlers)
    assert len(run().nodes) >= SITES
    benchmark(run)
