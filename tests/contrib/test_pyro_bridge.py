"""Programs told in Pyro and in sumout's own language are one and the same to sumout.

The strongest test is that every site looks the same under enumeration: dimensions, plates, scales, marks. From
there on nothing knows where a program came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pyro
import pyro.infer
import pytest
import torch
from hypothesis import given, settings

import oracles
import programs
from models import MODELS, Model, at, chain_tables, pyro_language, sumout_language, vector
from sumout import Vindex, clear_param_store, condition, infer, poutine
from sumout.errors import EnumerationError
from sumout.poutine import Trace
from sumout_contrib.pyro_bridge import as_sumout

EXACT = {"rtol": 1e-10, "atol": 1e-10}
PARALLEL = {"enumerate": "parallel"}


@pytest.fixture(autouse=True)
def _empty_stores() -> Iterator[None]:
    pyro.clear_param_store()
    clear_param_store()
    yield
    pyro.clear_param_store()
    clear_param_store()


def both(build: Callable[[Any], Callable[..., Any]]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A program in sumout's language, and wrapped in Pyro's."""
    return build(sumout_language()), as_sumout(build(pyro_language()))


def assert_same_sites(ours: Trace, bridged: Trace) -> None:
    assert list(ours) == list(bridged)
    for name, site in ours.nodes.items():
        other = bridged.nodes[name]
        assert site.type == other.type
        if site.type not in ("sample", "param"):
            continue
        for field in ("enum_dim", "enum_dims", "cond_indep_stack", "scale", "infer", "is_observed"):
            theirs, own = getattr(other, field), getattr(site, field)
            assert torch.equal(theirs, own) if isinstance(own, torch.Tensor) else theirs == own, (name, field)
        assert torch.equal(site.value, other.value), name
        if site.type == "sample":
            assert torch.equal(site["log_prob"], other["log_prob"]), name
            # Unexpanded, which is what exact inference is fast with.
            shapes = [getattr(each.plain_fn, "batch_shape", None) for each in (site, other)]
            assert shapes[0] == shapes[1], name


def traces(ours: Callable[..., Any], bridged: Callable[..., Any]) -> tuple[Trace, Trace]:
    """A run of each from the same random state."""
    found = []
    for program in (ours, bridged):
        torch.manual_seed(7)
        found.append(poutine.trace(program).get_trace())
    return found[0], found[1]


# ------------------------------------------------------------------------------------------------- named models

NAMED = pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)


@NAMED
def test_runs_of_named_models(model: Model) -> None:
    assert_same_sites(*traces(*both(model.build)))


@NAMED
def test_named_models_under_handlers(model: Model) -> None:
    ours, bridged = both(model.build)
    record = poutine.trace(ours).get_trace()
    again = poutine.trace(poutine.replay(bridged, trace=record)).get_trace()
    for name in (*model.latent, *model.observed):
        assert torch.equal(record.nodes[name]["value"], again.nodes[name]["value"])
        assert torch.equal(record.nodes[name]["log_prob"], again.nodes[name]["log_prob"])
    data = {model.latent[0]: record.nodes[model.latent[0]]["value"]}
    handled = [
        poutine.scale(poutine.mask(condition(program, data=data), mask=torch.tensor(True)), scale=0.5)
        for program in (ours, bridged)
    ]
    first, second = traces(*handled)
    assert_same_sites(first, second)
    assert model.latent[0] in second.observation_nodes


@NAMED
def test_named_models_enumerated(model: Model) -> None:
    enumerated = [
        poutine.enum(infer.config_enumerate(program), first_available_dim=-1 - model.max_plate_nesting)
        for program in both(model.build)
    ]
    assert_same_sites(*traces(*enumerated))


ENUMERABLE = ["hmm_1", "hmm_2", "iterated_plate", "parameters", "nested_plates", "mixture"]


@pytest.mark.parametrize("name", ENUMERABLE)
def test_queries_of_named_models(name: str) -> None:
    model = MODELS[name]
    record = poutine.trace(model.program()).get_trace()
    continuous = {each: record.nodes[each]["value"] for each in model.latent if each not in model.discrete}
    ours, bridged = [condition(each, data=continuous) for each in both(model.build)]
    assert torch.equal(infer.log_evidence(ours)(), infer.log_evidence(bridged)())
    expected, found = infer.marginals(ours)(), infer.marginals(bridged)()
    assert list(expected) == list(found) == list(model.discrete)
    best, ours_best = infer.map_assignment(bridged)(), infer.map_assignment(ours)()
    for site in model.discrete:
        assert torch.equal(expected[site].probs, found[site].probs)
        assert torch.equal(best[site], ours_best[site])


@pytest.mark.parametrize("name", ["hmm_1", "hmm_2", "parameters"])
def test_evidence_is_that_of_pyro(name: str) -> None:
    program = MODELS[name].program(pyro_language())
    elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=MODELS[name].max_plate_nesting)
    loss = elbo.loss(pyro.infer.config_enumerate(program), lambda: None)
    assert infer.log_evidence(as_sumout(program))().item() == pytest.approx(-loss, rel=1e-10)


def test_masks_and_scales_count_once() -> None:
    def build(ppl: Any) -> Callable[[], None]:
        def program() -> None:
            with ppl.plate("outer", 6, subsample_size=2), ppl.scale(scale=0.5):
                z = ppl.sample("z", ppl.dist.Categorical(vector(0.2, 0.8)))
                some = torch.tensor([1, 2, 3])
                with ppl.plate("inner", 4, subsample=some), ppl.mask(mask=vector(1, 0) > 0):
                    ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=torch.ones(3, 2).double())

        return program

    ours, bridged = both(build)
    assert_same_sites(*traces(ours, bridged))
    # One of the two elements of `outer` is seen; each stands for three; each `x` in it for 4/3, halved.
    seen = torch.stack([torch.distributions.Normal(m, 1.0).log_prob(vector(1)[0]) for m in (0, 1)])
    prior = vector(0.2, 0.8).log()
    expected = 3 * 0.5 * (torch.logsumexp(prior + 3 * 4 / 3 * seen, 0) + torch.logsumexp(prior, 0))
    torch.testing.assert_close(infer.log_evidence(bridged)(), expected, **EXACT)


# ----------------------------------------------------------------------------------------------- random programs


def told_in_pyro(program: programs.Program) -> Callable[[], None]:
    @as_sumout
    def run() -> None:
        with mock.patch.multiple(programs, sample=pyro.sample, plate=pyro.plate, markov=pyro.markov):
            program()

    return run


@given(programs.programs())
@settings(max_examples=60)
def test_sites_of_random_programs(program: programs.Program) -> None:
    enumerated = [
        poutine.enum(infer.config_enumerate(each), first_available_dim=-4)
        for each in (program, told_in_pyro(program))
    ]
    assert_same_sites(*traces(*enumerated))


@given(programs.programs())
@settings(max_examples=60)
def test_evidence_of_random_programs(program: programs.Program) -> None:
    found = infer.log_evidence(told_in_pyro(program))()
    torch.testing.assert_close(found, oracles.log_z(program.problem()), rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------------- chains

INITIAL, MOVE, MOVE_2 = chain_tables(2)


def loop(history: int, steps: int = 6) -> Callable[[Any], Callable[[], None]]:
    def build(ppl: Any) -> Callable[[], None]:
        def program() -> None:
            x: list[Any] = []
            for t in ppl.markov(range(steps), history=history):
                fits = min(history, t)
                probs = at([INITIAL, MOVE, MOVE_2][fits], *x[t - fits :])
                x.append(ppl.sample(f"x_{t}", ppl.dist.Categorical(probs)))
                ppl.sample(f"y_{t}", ppl.dist.Normal(x[-1], 1.0), obs=vector(0.3)[0])

        return program

    return build


def after_the_loop(ppl: Any) -> Callable[[], None]:
    def program() -> None:
        x = INITIAL.argmax()
        for t in ppl.markov(range(5)):
            x = ppl.sample(f"x_{t}", ppl.dist.Categorical(at(MOVE, x)))
        for t in ppl.markov(range(3)):
            x = ppl.sample(f"y_{t}", ppl.dist.Categorical(at(MOVE, x)))
        ppl.sample("end", ppl.dist.Normal(x, 1.0), obs=vector(0.3)[0])

    return program


def chains_in_a_chain(ppl: Any) -> Callable[[], None]:
    def program() -> None:
        day = INITIAL.argmax()
        for t in ppl.markov(range(4)):
            day = hour = ppl.sample(f"day_{t}", ppl.dist.Categorical(at(MOVE, day)))
            for s in ppl.markov(range(3)):
                hour = ppl.sample(f"hour_{t}_{s}", ppl.dist.Categorical(at(MOVE_2, day, hour)))
                ppl.sample(f"seen_{t}_{s}", ppl.dist.Normal(hour, 1.0), obs=vector(0.3)[0])

    return program


def interleaved_chains(ppl: Any) -> Callable[[], None]:
    def program() -> None:
        left, right = ppl.markov(history=1), ppl.markov(history=2)
        x = ppl.sample("x", ppl.dist.Categorical(INITIAL))
        with left, right:
            y = ppl.sample("y_0", ppl.dist.Categorical(at(MOVE, x)))
            with left:
                z = ppl.sample("z_0", ppl.dist.Categorical(at(MOVE, y)))
                with right, left:
                    ppl.sample("w_0", ppl.dist.Categorical(at(MOVE, z)))

    return program


def tree(ppl: Any) -> Callable[[], None]:
    def program() -> None:
        @ppl.markov
        def node(depth: int, name: str, above: Any) -> None:
            x = ppl.sample(name, ppl.dist.Categorical(at(MOVE, above)))
            if depth:
                node(depth - 1, name + "l", x)
                node(depth - 1, name + "r", x)
            ppl.sample(name + "_seen", ppl.dist.Normal(x, 1.0), obs=vector(0.3)[0])

        node(3, "n", INITIAL.argmax())

    return program


def contexts(ppl: Any) -> Callable[[], None]:
    def program() -> None:
        chain = ppl.markov(history=1)
        root = ppl.sample("root", ppl.dist.Categorical(INITIAL))
        for t in range(4):
            with chain:
                a = ppl.sample(f"a_{t}", ppl.dist.Categorical(at(MOVE, root)))
                with chain:
                    b = ppl.sample(f"b_{t}", ppl.dist.Categorical(at(MOVE, a)))
                    with chain:
                        ppl.sample(f"c_{t}", ppl.dist.Normal(b, 1.0), obs=vector(0.3)[0])

    return program


def chains_in_plates(ppl: Any) -> Callable[[], None]:
    def program() -> None:
        outer = ppl.plate("outer", 3, dim=-1)
        x = INITIAL.argmax()
        for t in ppl.markov(range(5)):
            with outer:
                x = ppl.sample(f"x_{t}", ppl.dist.Categorical(at(MOVE, x)))
                with ppl.plate(f"inner_{t}", 2, dim=-2):
                    ppl.sample(f"y_{t}", ppl.dist.Normal(x, 1.0), obs=torch.ones(2, 3).double())

    return program


def chains_in_loops(ppl: Any) -> Callable[[], None]:
    def program() -> None:
        for i in ppl.plate("loop", 4):
            x = INITIAL.argmax()
            for t in ppl.markov(range(4)):
                x = ppl.sample(f"x_{i}_{t}", ppl.dist.Categorical(at(MOVE, x)))
            ppl.sample(f"end_{i}", ppl.dist.Normal(x, 1.0), obs=vector(0.3)[0])

    return program


CHAINS = {
    "history 0": loop(0),
    "history 1": loop(1),
    "history 2": loop(2),
    "100 steps": loop(1, 100),
    **{
        each.__name__: each
        for each in (
            after_the_loop, chains_in_a_chain, interleaved_chains, tree, contexts, chains_in_plates, chains_in_loops
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("build", CHAINS.values(), ids=CHAINS)
def test_chains(build: Callable[[Any], Callable[[], None]]) -> None:
    ours, bridged = both(build)
    enumerated = [
        poutine.enum(infer.config_enumerate(each), first_available_dim=-3) for each in (ours, bridged)
    ]
    assert_same_sites(*traces(*enumerated))
    assert torch.equal(infer.log_evidence(ours)(), infer.log_evidence(bridged)())


def test_a_long_chain_is_the_forward_algorithm() -> None:
    steps = 100
    data = torch.linspace(-1.0, 2.0, steps, dtype=torch.float64)
    means = vector(-1.0, 1.0)

    def model(data: torch.Tensor) -> None:
        x = None
        for t in pyro.markov(range(len(data))):
            probs = INITIAL if x is None else Vindex(MOVE)[x, :]
            x = pyro.sample(f"x_{t}", pyro.distributions.Categorical(probs))
            pyro.sample(f"y_{t}", pyro.distributions.Normal(means[x], 1.0), obs=data[t])

    likelihood = torch.distributions.Normal(means, 1.0).log_prob(data[:, None])
    evidence, posterior, _ = oracles.forward_backward(INITIAL.log(), MOVE.log(), likelihood)
    found = infer.marginals(as_sumout(model))(data)
    torch.testing.assert_close(found.log_evidence, evidence, **EXACT)
    probs = torch.stack([found[f"x_{t}"].probs for t in range(steps)])
    torch.testing.assert_close(probs, posterior, **EXACT)
    path, score = oracles.viterbi(INITIAL.log(), MOVE.log(), likelihood)
    best = infer.map_assignment(as_sumout(model))(data)
    assert [int(best[f"x_{t}"]) for t in range(steps)] == path.tolist()
    torch.testing.assert_close(best.log_prob, score, **EXACT)


@pytest.mark.parametrize("steps_back", [2, 3])
def test_reaching_too_far_back_is_refused(steps_back: int) -> None:
    def model() -> None:
        x: list[Any] = []
        for t in pyro.markov(range(8)):
            probs = INITIAL if t < steps_back else at(MOVE, x[-steps_back])
            x.append(pyro.sample(f"x_{t}", pyro.distributions.Categorical(probs)))
            pyro.sample(f"y_{t}", pyro.distributions.Normal(x[-1] * 1.0, 1.0), obs=vector(0.3)[0])

    with pytest.raises(EnumerationError, match="raise `history`"):
        infer.log_evidence(as_sumout(model))()


# ------------------------------------------------------------------------------------------- marks and deep plates


def test_marks_of_pyro_hold() -> None:
    def model() -> None:
        z = pyro.sample("z", pyro.distributions.Bernoulli(vector(0.3)[0]), infer=PARALLEL)
        y = pyro.sample("y", pyro.distributions.Bernoulli(vector(0.6)[0]), infer={"enumerate": None})
        pyro.sample("x", pyro.distributions.Normal(z + y, 1.0), obs=vector(0.5)[0])

    marked = as_sumout(pyro.infer.config_enumerate(model))
    nodes = poutine.trace(poutine.enum(marked, first_available_dim=-1)).get_trace().nodes
    assert nodes["z"]["enum_dim"] == -1
    assert nodes["y"]["enum_dim"] is None
    expanded = as_sumout(pyro.infer.config_enumerate(model, expand=True))
    assert poutine.trace(expanded).get_trace().nodes["z"]["infer"] == {**PARALLEL, "expand": True}


def test_plates_of_a_million_are_no_tables() -> None:
    """The distribution is looked at as the program gave it: unexpanded, this needs no memory worth speaking of."""

    def model(size: int) -> None:
        with pyro.plate("data", size):
            z = pyro.sample("z", pyro.distributions.Categorical(vector(0.2, 0.8)), infer=PARALLEL)
            with pyro.plate("more", 1000, dim=-2):
                pyro.sample("x", pyro.distributions.Bernoulli(at(vector(0.1, 0.6), z)), obs=vector(1.0)[0])

    found = infer.log_evidence(as_sumout(model))(10**6)
    one = torch.logsumexp(vector(0.2, 0.8).log() + 1000 * vector(0.1, 0.6).log(), 0)
    torch.testing.assert_close(found, 10**6 * one, **EXACT)


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_deep_plates(depth: int) -> None:
    def build(ppl: Any) -> Callable[[], None]:
        def program(level: int = 0, above: Any = None) -> None:
            probs = INITIAL if above is None else at(MOVE, above)
            z = ppl.sample(f"z_{level}", ppl.dist.Categorical(probs))
            if level == depth:
                ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=vector(0.3)[0])
            else:
                with ppl.plate(f"p_{level}", 2):
                    program(level + 1, z)

        return program

    ours, bridged = both(build)
    torch.testing.assert_close(infer.log_evidence(bridged)(), infer.log_evidence(ours)(), **EXACT)
    # Level by level from the inside: each state's message is its child's, squared.
    message = torch.distributions.Normal(vector(0, 1), 1.0).log_prob(vector(0.3))
    for _ in range(depth):
        message = 2 * torch.logsumexp(MOVE.log() + message, -1)
    expected = torch.logsumexp(INITIAL.log() + message, 0)
    torch.testing.assert_close(infer.log_evidence(bridged)(), expected, **EXACT)
