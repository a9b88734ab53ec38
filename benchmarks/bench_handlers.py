"""What a traced `sample` costs under each common stack of handlers: 100 sites; divide by 100 for a site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from peers import LIBRARIES, Library

SITES = 100
NAMES = [f"x_{i}" for i in range(SITES)]
Program = Callable[[], object]


def coins(library: Library, marked: dict[str, Any] | None = None) -> Program:
    """100 independent coins."""
    sample, coin = library.language.sample, library.dist.Bernoulli(torch.tensor(0.3))

    def program() -> None:
        for name in NAMES:
            sample(name, coin, infer=marked)

    return program


def observed(library: Library) -> Program:
    """100 independent numbers that are data."""
    sample, noise, data = library.language.sample, library.dist.Normal(0.0, 1.0), torch.tensor(0.5)

    def program() -> None:
        for name in NAMES:
            sample(name, noise, obs=data)

    return program


def in_plate(library: Library, program: Program) -> Program:
    def plated() -> None:
        with library.language.plate("data", 10, dim=-1):
            program()

    return plated


def enumerated(library: Library) -> Program:
    """Coins that are enumerated; each has a context of its own, so that they share one dimension."""
    sample, coin = library.language.sample, library.dist.Bernoulli(torch.tensor(0.3))

    def program() -> None:
        for i in library.language.markov(range(SITES), history=0):
            sample(NAMES[i], coin, infer={"enumerate": "parallel"})

    return library.poutine.enum(in_plate(library, program), first_available_dim=-2)


def chain(library: Library) -> Program:
    """A chain of enumerated states."""
    sample, move = library.language.sample, torch.tensor([[0.9, 0.1], [0.2, 0.8]])

    def program() -> None:
        state: Any = 0
        for i in library.language.markov(range(SITES)):
            state = sample(NAMES[i], library.dist.Categorical(move[state]), infer={"enumerate": "parallel"})

    return library.poutine.enum(program, first_available_dim=-1)


def params(library: Library) -> Program:
    """100 params."""
    param, start = library.language.param, torch.tensor(0.3)

    def program() -> None:
        for name in NAMES:
            param(name, start)

    return program


def _trace_of(library: Library, program: Program) -> Any:
    return library.poutine.trace(program).get_trace()


def _values() -> dict[str, torch.Tensor]:
    return {name: torch.tensor(1.0) for name in NAMES}


STACKS: dict[str, Callable[[Library], Program]] = {
    "trace": coins,
    "trace + observed": observed,
    "trace + plate": lambda library: in_plate(library, coins(library)),
    "trace + two plates": lambda library: in_two_plates(library, coins(library)),
    "trace + plate + enum": enumerated,
    "trace + markov + enum": chain,
    "trace + plate + replay": lambda library: library.poutine.replay(
        in_plate(library, coins(library)), trace=_trace_of(library, in_plate(library, coins(library)))
    ),
    "trace + replay": lambda library: library.poutine.replay(
        coins(library), trace=_trace_of(library, coins(library))
    ),
    "trace + condition": lambda library: library.poutine.condition(coins(library), data=_values()),
    "trace + do": lambda library: library.poutine.do(coins(library), data=_values()),
    "trace + uncondition": lambda library: library.poutine.uncondition(observed(library)),
    "trace + block": lambda library: library.poutine.block(coins(library), hide=["x_3"]),
    "trace + infer_config": lambda library: library.poutine.infer_config(
        coins(library), config_fn=lambda site: {"enumerate": "parallel"}
    ),
    "trace + mask": lambda library: library.poutine.mask(coins(library), mask=torch.tensor(True)),
    "trace + scale": lambda library: library.poutine.scale(coins(library), scale=2.0),
    "trace + mask + scale": lambda library: library.poutine.scale(
        library.poutine.mask(coins(library), mask=True), scale=2.0
    ),
    "trace + seed": lambda library: library.poutine.seed(coins(library), rng_seed=0),
    "trace + params": params,
    "trace + substitute": lambda library: library.poutine.substitute(params(library), data=_values()),
    "trace + lift": lambda library: library.poutine.lift(
        params(library), prior=library.dist.Normal(0.0, 1.0)
    ),
    "trace + reparam": lambda library: library.poutine.reparam(
        coins(library), config={"another": library.infer.reparam.LocScaleReparam()}
    ),
    "trace + plate + replay + block + scale": lambda library: library.poutine.scale(
        library.poutine.block(
            library.poutine.replay(
                in_plate(library, coins(library)), trace=_trace_of(library, in_plate(library, coins(library)))
            ),
            hide=["x_3"],
        ),
        scale=2.0,
    ),
}


def in_two_plates(library: Library, program: Program) -> Program:
    def plated() -> None:
        with library.language.plate("columns", 5, dim=-2):
            program()

    return in_plate(library, plated)


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
@pytest.mark.parametrize("stack", STACKS)
def test_traced_sites(benchmark: BenchmarkFixture, library: Library, stack: str) -> None:
    benchmark.group = f"{SITES} sites under {stack}"
    handled = library.poutine.trace(STACKS[stack](library))
    assert len(handled.get_trace().nodes) >= SITES
    benchmark(handled.get_trace)
