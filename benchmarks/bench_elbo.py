"""A step of training with gradients: hidden Markov models, chains enumerated in guides, mixtures, topics, small
models.

The shapes are those of Pyro's examples of hidden Markov models: 10 sequences of 40 steps, and 229 of up to 129 steps
with masks for those that are shorter; 51 binary outputs, 16 states. The model of order 1 stands beside Pyro's
distribution over whole series and NumPyro's compiled step too, where that is installed:

    python -m pytest benchmarks/bench_elbo.py --benchmark-timer=time.process_time -k "svi_step or peer"
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from pyro.ops.indexing import Vindex
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.distributions import constraints

from peers import LIBRARIES, Library

SEQUENCES, STEPS, STATES, OUTPUTS = 10, 40, 16, 51


def hidden_markov_model(library: Library) -> Callable[[Tensor], None]:
    language, dist = library.language, library.dist
    transition = torch.distributions.Dirichlet(torch.ones(STATES)).sample((STATES,))
    emission = torch.rand(STATES, OUTPUTS)

    def model(data: Tensor) -> None:
        probs_x = language.param("probs_x", transition, constraint=constraints.simplex)
        probs_y = language.param("probs_y", emission, constraint=constraints.unit_interval)
        outputs = language.plate("outputs", OUTPUTS, dim=-1)
        with language.plate("sequences", SEQUENCES, dim=-2):
            x = 0
            for t in language.markov(range(STEPS)):
                probs = probs_x[x]
                x = language.sample(f"x_{t}", dist.Categorical(probs), infer={"enumerate": "parallel"})
                with outputs:
                    language.sample(f"y_{t}", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=data[:, t])

    return model


def with_output(library: Library, output: str) -> tuple[Callable[[Tensor], None], Tensor]:
    """The same chain with one output a step, and its data: a category, a number, a count, or 51 bits as an event."""
    language, dist = library.language, library.dist
    transition = torch.distributions.Dirichlet(torch.ones(STATES)).sample((STATES,))
    table = torch.rand(STATES, OUTPUTS)
    steps = SEQUENCES, STEPS
    data = {
        "category": torch.randint(OUTPUTS, steps),
        "number": torch.randn(steps),
        "count": torch.poisson(torch.full(steps, 5.0)),
        "event": torch.bernoulli(torch.rand(*steps, OUTPUTS) * 0.3),
    }[output]

    def emission(table: Tensor, x: Tensor) -> Any:
        if output == "category":
            return dist.Categorical(table[x])
        if output == "number":
            return dist.Normal(table[x, 0], 1.0)
        return dist.Poisson(10 * table[x, 0]) if output == "count" else dist.Bernoulli(table[x]).to_event(1)

    def model(data: Tensor) -> None:
        probs_x = language.param("probs_x", transition, constraint=constraints.simplex)
        rows = language.param("table", table, constraint=constraints.unit_interval)
        with language.plate("sequences", SEQUENCES, dim=-1):
            x = 0
            for t in language.markov(range(STEPS)):
                x = language.sample(f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                language.sample(f"y_{t}", emission(rows, x), obs=data[:, t])

    return model, data


def nothing(data: Tensor) -> None:
    """A guide: all that is hidden is summed out."""


LOSSES: dict[tuple[str, str], float] = {}


def run(
    benchmark: BenchmarkFixture, library: Library, name: str, model: Any, data: Tensor, nesting: int
) -> None:
    benchmark.group = f"TraceEnum_ELBO step with gradients, hidden Markov model, {name}"
    elbo = library.infer.TraceEnum_ELBO(max_plate_nesting=nesting)
    LOSSES[name, library.name] = benchmark(elbo.loss_and_grads, model, nothing, data)
    # Each library computes the same number, or the times mean nothing.
    found = [loss for (each, _), loss in LOSSES.items() if each == name]
    assert max(found) == pytest.approx(min(found), rel=1e-4)


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_step(benchmark: BenchmarkFixture, library: Library) -> None:
    library.language.clear_param_store()
    data = torch.bernoulli(torch.rand(SEQUENCES, STEPS, OUTPUTS) * 0.3)
    run(benchmark, library, "51 outputs in a plate", hidden_markov_model(library), data, nesting=2)


@pytest.mark.parametrize("output", ["category", "number", "count", "event"])
@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_step_with_one_output(benchmark: BenchmarkFixture, library: Library, output: str) -> None:
    library.language.clear_param_store()
    run(benchmark, library, output, *with_output(library, output), nesting=1)


# --------------------------------------------------------------------------------------- whole steps of SVI, by shape


@dataclass(frozen=True)
class Shape:
    """Sequences, steps, and whether the sequences differ in length."""

    sequences: int
    steps: int
    masked: bool

    def data(self) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        data = torch.bernoulli(torch.rand(self.sequences, self.steps, OUTPUTS) * 0.3)
        lengths = torch.full((self.sequences,), self.steps)
        if self.masked:
            lengths[1:] = torch.randint(self.steps // 4, self.steps, (self.sequences - 1,))
        return data, lengths


SHAPES = {"10x40": Shape(10, 40, False), "229x129": Shape(229, 129, True)}
KINDS = ["order 1", "order 2", "factorial", "autoregressive"]


class Given(NamedTuple):
    """Data, and where parameters start."""

    data: Tensor
    alive: Tensor
    """Which steps each sequence has: ``(steps, sequences, 1)``."""
    rows: Tensor
    table: Tensor
    pairs: Tensor


def given(shape: Shape) -> Given:
    data, lengths = shape.data()
    return Given(
        data,
        (torch.arange(shape.steps)[:, None] < lengths).unsqueeze(-1),
        torch.distributions.Dirichlet(torch.ones(STATES)).sample((STATES, STATES)),
        torch.rand(STATES, 2, OUTPUTS) * 0.8 + 0.1,
        torch.distributions.Dirichlet(torch.ones(4)).sample((2, 4)),
    )


def chain_of(library: Library, kind: str, shape: Shape, at_once: bool = False) -> Callable[[], None]:
    """A hidden Markov model, looped over or with all steps at once."""
    language, dist = library.language, library.dist
    data, alive, rows, table, pairs = given(shape)
    steps = data.transpose(0, 1)
    options: dict[str, Any] = {"dim": -3, "name": "time"} if at_once else {}
    mark = {"enumerate": "parallel"}

    def emitted(t: Any, outputs: Any, table: Tensor, *states: Tensor) -> Tensor:
        with outputs as index:
            probs = table[(*states, index)] if len(states) > 1 else table[states[0].squeeze(-1)]
            value: Tensor = language.sample(f"y_{t}", dist.Bernoulli(probs), obs=steps[t])
        return value

    def model() -> None:
        outputs = language.plate("outputs", OUTPUTS, dim=-1)
        history = 2 if kind == "order 2" else 1
        probs_y = language.param("probs_y", table, constraint=constraints.unit_interval)
        probs_x = language.param("probs_x", rows, constraint=constraints.simplex)
        if kind == "factorial":
            moves = language.param("moves", pairs, constraint=constraints.simplex).unbind(0)
            probs_y = probs_y[:, 0].reshape(4, 4, OUTPUTS)
        elif kind != "autoregressive":
            probs_y = probs_y[:, 0]
        probs_x = probs_x if kind == "order 2" else probs_x[0]
        before = x = torch.tensor(0)
        w, y = torch.tensor(0), torch.zeros(())
        with language.plate("sequences", shape.sequences, dim=-2):
            for t in language.markov(range(shape.steps), history=history, **options):
                with library.poutine.mask(mask=alive[t]) if shape.masked else nullcontext():
                    if kind == "factorial":
                        w = language.sample(f"w_{t}", dist.Categorical(moves[0][w]), infer=mark)
                        x = language.sample(f"x_{t}", dist.Categorical(moves[1][x]), infer=mark)
                        emitted(t, outputs, probs_y, w, x)
                        continue
                    row = Vindex(probs_x)[before, x] if kind == "order 2" else probs_x[x]
                    before, x = x, language.sample(f"x_{t}", dist.Categorical(row), infer=mark)
                    if kind == "autoregressive":
                        y = emitted(t, outputs, probs_y, x, y.long())
                    else:
                        emitted(t, outputs, probs_y, x)

    return model


def fused_chain(library: Library, shape: Shape) -> Callable[[], None]:
    """The model of order 1 with one distribution over whole series, as in the seventh of Pyro's own examples."""
    language, dist = library.language, library.dist
    data, alive, rows, table, _ = given(shape)
    start = torch.full((STATES,), -torch.inf)
    start[0] = 0.0

    def model() -> None:
        probs_y = language.param("probs_y", table, constraint=constraints.unit_interval)[:, 0]
        probs_x = language.param("probs_x", rows, constraint=constraints.simplex)[0]
        # Of logits, or masking would take those of a table that is expanded to all data.
        outputs = dist.Bernoulli(logits=probs_y.logit()).to_event(1)
        if shape.masked:  # What is masked adds nothing, and a chain that goes on unseen sums to one.
            outputs = outputs.expand((shape.sequences, shape.steps, STATES)).mask(alive.transpose(0, 1))
        with language.plate("sequences", shape.sequences):
            language.sample("y", dist.DiscreteHMM(start, probs_x.log(), outputs), obs=data)

    return model


def measure_svi(
    benchmark: BenchmarkFixture,
    library: Library,
    group: str,
    model: Any,
    guide: Any,
    nesting: int,
    objective: str = "TraceEnum_ELBO",
) -> None:
    """A whole step: loss, gradients, and the optimizer's."""
    library.language.clear_param_store()
    elbo = getattr(library.infer, objective)(max_plate_nesting=nesting)
    svi = library.infer.SVI(model, guide, library.optim.Adam({"lr": 1e-3}), elbo)
    measure(benchmark, library.name, group, svi.step)


def measure(benchmark: BenchmarkFixture, library: str, group: str, step: Callable[[], float]) -> None:
    benchmark.group = group
    LOSSES[group, library] = step()
    found = [each for (name, _), each in LOSSES.items() if name == group]
    assert max(found) == pytest.approx(min(found), rel=1e-4)
    benchmark.pedantic(step, rounds=30 if "10x40" in group else 5, warmup_rounds=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_svi_step(benchmark: BenchmarkFixture, library: Library, shape: str, kind: str) -> None:
    model = chain_of(library, kind, SHAPES[shape])
    measure_svi(benchmark, library, f"SVI step, hidden Markov model, {kind}, {shape}", model, lambda: None, 2)


@pytest.mark.parametrize("kind", ["order 1", "order 2", "autoregressive"])
@pytest.mark.parametrize("shape", SHAPES)
def test_svi_step_of_all_steps_at_once(benchmark: BenchmarkFixture, shape: str, kind: str) -> None:
    """Stands beside the same model in a loop, in both libraries."""
    model = chain_of(LIBRARIES[0], kind, SHAPES[shape], at_once=True)
    group = f"SVI step, hidden Markov model, {kind}, {shape}"
    measure_svi(benchmark, LIBRARIES[0], group, model, lambda: None, 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_fused_peer(benchmark: BenchmarkFixture, shape: str) -> None:
    group = f"SVI step, hidden Markov model, order 1, {shape}"
    model = fused_chain(LIBRARIES[1], SHAPES[shape])
    measure_svi(benchmark, LIBRARIES[1], group, model, lambda: None, 1, "Trace_ELBO")


@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_peer(benchmark: BenchmarkFixture, shape: str) -> None:
    """NumPyro's; compiling it is not measured."""
    compiled = pytest.importorskip("compiled", reason="numpyro is not installed", exc_type=ImportError)
    data, alive, rows, table, _ = given(SHAPES[shape])
    masks = alive if SHAPES[shape].masked else None
    step = compiled.compiled_step(data, masks, rows[0], table[:, 0])
    measure(benchmark, "numpyro", f"SVI step, hidden Markov model, order 1, {shape}", step)


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_chain_in_the_guide(benchmark: BenchmarkFixture, library: Library) -> None:
    """Both a model and a guide of 40 steps; the guide's chain is enumerated."""
    language, dist = library.language, library.dist
    torch.manual_seed(0)
    data = torch.randn(10, 40)
    rows = torch.distributions.Dirichlet(torch.ones(STATES)).sample((STATES,))

    def model() -> None:
        probs = language.param("p", rows, constraint=constraints.simplex)
        with language.plate("sequences", 10):
            x = torch.tensor(0)
            for t in language.markov(range(40)):
                x = language.sample(f"x_{t}", dist.Categorical(probs[x]))
                language.sample(f"y_{t}", dist.Normal(x / 8 - 1, 1.0), obs=data[:, t])

    def guide() -> None:
        probs = language.param("q", rows, constraint=constraints.simplex)
        with language.plate("sequences", 10):
            x = torch.tensor(0)
            for t in language.markov(range(40)):
                x = language.sample(f"x_{t}", dist.Categorical(probs[x]), infer={"enumerate": "parallel"})

    measure_svi(benchmark, library, "SVI step, chain enumerated in the guide, 10x40", model, guide, 1)


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_mixture(benchmark: BenchmarkFixture, library: Library) -> None:
    language, dist = library.language, library.dist
    torch.manual_seed(0)
    points, count = torch.randn(100_000), 100

    def model() -> None:
        weights = language.param("weights", torch.full((count,), 1 / count), constraint=constraints.simplex)
        locs = language.param("locs", torch.linspace(-2, 2, count))
        with language.plate("data", len(points)):
            z = language.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
            language.sample("x", dist.Normal(locs[z], 0.5), obs=points)

    measure_svi(benchmark, library, "SVI step, Gaussian mixture, 100000 x 100", model, lambda: None, 1)


DOCUMENTS, MINIBATCH, LENGTH, WORDS, TOPICS = 1000, 32, 64, 1024, 8


def topics_of_documents(library: Library) -> tuple[Callable[[], None], Callable[[], None]]:
    """Latent Dirichlet allocation, the topic of each word summed out, and a guide of points for all else."""
    language, dist = library.language, library.dist
    torch.manual_seed(0)
    documents = torch.randint(WORDS, (LENGTH, DOCUMENTS))
    words = torch.distributions.Dirichlet(torch.ones(WORDS)).sample((TOPICS,))
    shares = torch.distributions.Dirichlet(torch.ones(TOPICS)).sample((DOCUMENTS,))

    def model() -> None:
        with language.plate("topics", TOPICS):
            weights = language.sample("weights", dist.Gamma(1.0 / TOPICS, 1.0))
            rows = language.sample("words", dist.Dirichlet(torch.ones(WORDS) / WORDS))
        with language.plate("documents", DOCUMENTS, MINIBATCH) as index:
            share = language.sample("share", dist.Dirichlet(weights))
            with language.plate("places", LENGTH):
                z = language.sample("z", dist.Categorical(share), infer={"enumerate": "parallel"})
                language.sample("word", dist.Categorical(rows[z]), obs=documents[:, index])

    def guide() -> None:
        point_of_weights = language.param("w", torch.ones(TOPICS), constraint=constraints.positive)
        point_of_words = language.param("r", words, constraint=constraints.simplex)
        point_of_shares = language.param("s", shares, constraint=constraints.simplex)
        with language.plate("topics", TOPICS):
            language.sample("weights", dist.Delta(point_of_weights))
            language.sample("words", dist.Delta(point_of_words, event_dim=1))
        with language.plate("documents", DOCUMENTS, MINIBATCH) as index:
            language.sample("share", dist.Delta(point_of_shares[index], event_dim=1))

    return model, guide


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_topics(benchmark: BenchmarkFixture, library: Library) -> None:
    model, guide = topics_of_documents(library)
    torch.manual_seed(1)  # The same documents in the first minibatch.
    measure_svi(benchmark, library, "SVI step, latent Dirichlet allocation, 32 of 1000", model, guide, 2)


@pytest.mark.parametrize("form", ["Trace_ELBO", "JitTrace_ELBO"])
@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_small_model(benchmark: BenchmarkFixture, library: Library, form: str) -> None:
    """All of it is overhead."""
    language, dist = library.language, library.dist
    library.language.clear_param_store()
    x = torch.randn(64)

    def model(x: Tensor) -> None:
        w = language.sample("w", dist.Normal(0.0, 1.0))
        with language.plate("data", 64):
            z = language.sample("z", dist.Normal(w, 1.0))
            language.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        language.sample("w", dist.Normal(language.param("a", torch.tensor(0.0)), 1.0))
        with language.plate("data", 64):
            language.sample("z", dist.Normal(language.param("b", torch.zeros(64)), 1.0))

    benchmark.group = "loss_and_grads of a small model"
    elbo = getattr(library.infer, form)()
    benchmark.pedantic(elbo.loss_and_grads, args=(model, guide, x), rounds=100, warmup_rounds=3)
