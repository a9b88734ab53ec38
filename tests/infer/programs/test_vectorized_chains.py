"""A vectorized chain gives what the loop gives: evidence, marginals, assignments, gradients, objectives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sumout.distributions as dist
from sumout import (
    Vindex,
    deterministic,
    factor,
    get_param_store,
    infer,
    markov,
    param,
    plate,
    poutine,
    sample,
    vectorized_markov,
)
from sumout.errors import EnumerationError, ModelError
from sumout.infer.programs.program import EnumeratedProgram
from sumout.lower import lower
from sumout.settings import settings


@pytest.fixture(autouse=True)
def _own_params() -> Iterator[None]:
    with get_param_store().scope():
        yield


def step_by_step(length: int, history: int, dim: int) -> Iterable[Any]:
    return markov(range(length), history=history)


def at_once(length: int, history: int, dim: int) -> Iterable[Any]:
    return vectorized_markov("time", length, dim=dim, history=history)


def by_dim_and_name(length: int, history: int, dim: int) -> Iterable[Any]:
    return markov(range(length), history=history, dim=dim, name="time")


@dataclass(frozen=True)
class Chain:
    """A chain with what its sites depend on; ``weights`` are unnormalized tables, one a step."""

    length: int
    history: int
    states: int
    batch: int
    """Sequences in a plate; 0 for none."""
    plate_inside: bool
    varies: bool
    """Whether tables differ from step to step."""
    second: bool
    """Whether a second latent site hangs on the first and on its own past."""
    autoregressive: bool
    """Whether what is observed depends on what was observed one step before."""
    coin: bool
    """Whether all steps share a global latent coin."""
    masked: bool
    scale: float
    seed: int

    @property
    def dims(self) -> tuple[int, int]:
        """Of the plate and of the steps."""
        return -1, -2 if self.batch else -1

    def tables(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)

        def rand(*shape: int) -> Tensor:
            made = 0.05 + torch.rand((self.length, *shape), generator=generator, dtype=torch.float64)
            return made if self.varies else made[:1].expand(made.shape)

        s = self.states
        return {
            "first": rand(*[s] * (self.history + 1)),
            "second": rand(s, 2, 2),
            "seen": rand(s, 2, 3, 3),
            "data": torch.randint(3, (self.length, self.batch or 1), generator=generator),
            "lengths": torch.randint(self.length + 1, (self.batch or 1,), generator=generator),
        }

    def program(self, loop: Callable[[int, int, int], Iterable[Any]]) -> Callable[[], Any]:
        tables = self.tables()
        plate_dim, time_dim = self.dims
        zero = torch.tensor(0)

        def place(t: Any) -> Any:
            """The steps along their dimension."""
            return t.reshape(-1, *[1] * (-1 - time_dim)) if isinstance(t, Tensor) else t

        def normalized(name: str, *index: Any) -> Tensor:
            table = tables[name] / tables[name].sum(-1, keepdim=True)
            return Vindex(table)[(*index, slice(None))]

        def run() -> None:
            sequences = plate("sequences", self.batch, dim=plate_dim) if self.batch else None
            inside = self.plate_inside or not self.batch
            with poutine.scale(scale=self.scale):
                coin = zero
                if self.coin:
                    coin = sample("coin", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64))).long()
                if inside or sequences is None:
                    body(coin, sequences)
                else:
                    with sequences:
                        body(coin, None)

        def body(coin: Tensor, sequences: Any) -> None:
            states = [zero] * self.history
            other = zero
            before: Tensor = zero
            for t in loop(self.length, self.history, time_dim):
                with sequences if sequences is not None else poutine.mask(mask=True):
                    steps = place(t)
                    # Ahead of the chain stand states of number zero: the first steps are like all others.
                    state = sample(
                        f"x_{t}",
                        dist.Categorical(normalized("first", steps, *states[len(states) - self.history :])),
                    )
                    states.append(state)
                    if self.second:
                        other = sample(
                            f"w_{t}", dist.Bernoulli(normalized("second", steps, state, other)[..., 1])
                        ).long()
                    data = tables["data"][t] if self.batch else tables["data"][t][..., 0]
                    present: Any = True
                    if self.masked:
                        present = steps < (tables["lengths"] if self.batch else tables["lengths"][0])
                        present = torch.as_tensor(present)
                    with poutine.mask(mask=present):
                        twice = deterministic(f"twice_{t}", 2 * state)
                        factor(f"bonus_{t}", 0.1 * twice.double() + 0.3 * other)
                        seen = sample(
                            f"y_{t}",
                            dist.Categorical(
                                normalized("seen", steps, state, torch.maximum(coin, other), before)
                            ),
                            obs=data,
                        )
                    if self.autoregressive:
                        before = seen

        return run


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    return Chain(
        length=draw(st.integers(1, 5)),
        history=draw(st.integers(1, 3)),
        states=draw(st.integers(2, 3)),
        batch=draw(st.sampled_from([0, 2])),
        plate_inside=draw(st.booleans()),
        varies=draw(st.booleans()),
        second=draw(st.booleans()),
        autoregressive=draw(st.booleans()),
        coin=draw(st.booleans()),
        masked=draw(st.booleans()),
        scale=draw(st.sampled_from([1.0, 0.5])),
        seed=draw(st.integers(0, 10**6)),
    )


@given(chains(), st.sampled_from([at_once, by_dim_and_name]))
def test_results_are_those_of_the_loop(chain: Chain, loop: Any) -> None:
    expected, found = (infer.marginals(chain.program(each))() for each in (step_by_step, loop))
    torch.testing.assert_close(found.log_evidence, expected.log_evidence, rtol=1e-10, atol=1e-10)
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name].probs, expected[name].probs, rtol=1e-9, atol=1e-10)
        assert found[name].batch_shape == expected[name].batch_shape
    best, same = (infer.map_assignment(chain.program(each))() for each in (step_by_step, loop))
    torch.testing.assert_close(same.log_prob, best.log_prob, rtol=1e-10, atol=1e-10)


@given(chains())
def test_the_graph_is_that_of_the_loop(chain: Chain) -> None:
    """The same variables, and the same factors but for those that no variable touches."""

    def described(loop: Any) -> tuple[Any, dict[str, Any]]:
        graph = lower(EnumeratedProgram(chain.program(loop)).trace())
        scopes = {
            each.name: (set(each.inputs), each.plates, each.scale) for each in graph.factors if each.inputs
        }
        return dict(graph.variables), scopes

    assert described(at_once) == described(step_by_step)


def forward_log_evidence(start: Tensor, move: Tensor, seen: Tensor) -> Tensor:
    """The forward algorithm (Rabiner, 1989, section III.A); ``seen`` has shape (steps, states)."""
    alpha = start.log() + seen[0]
    for each in seen[1:]:
        alpha = torch.logsumexp(alpha[:, None] + move.log(), 0) + each
    return alpha.logsumexp(0)


@given(st.integers(1, 30), st.integers(2, 4), st.integers(0, 1000))
def test_evidence_and_gradients_against_the_forward_algorithm(length: int, states: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    data = rand(length)
    parameters = locs, start_logits, move_logits = rand(states), rand(states), rand(states, states)
    for each in parameters:
        each.requires_grad_()
    start, move = start_logits.softmax(-1), move_logits.softmax(-1)

    def model() -> None:
        for t in vectorized_markov("time", length):
            x = sample(f"x_{t}", dist.Categorical(start if isinstance(t, int) else move[x]))  # noqa: F821
            sample(f"y_{t}", dist.Normal(locs[x], 0.5), obs=data[t])

    found = infer.log_evidence(model)()
    expected = forward_log_evidence(start, move, dist.Normal(locs, 0.5).log_prob(data[:, None]))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    needed = parameters if length > 1 else parameters[:2]
    gradients = (torch.autograd.grad(each, needed, retain_graph=True) for each in (found, expected))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


def test_a_long_chain_fits_into_few_dims() -> None:
    start = torch.tensor([0.5, 0.5], dtype=torch.float64)
    move = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    data = torch.ones(2000, dtype=torch.float64)

    def model() -> None:
        for t in vectorized_markov("time", len(data)):
            x = sample(f"x_{t}", dist.Categorical(start if isinstance(t, int) else move[x]))  # noqa: F821
            sample(f"y_{t}", dist.Bernoulli(torch.where(x == 1, 0.7, 0.4).double()), obs=data[t])

    seen = torch.tensor([0.4, 0.7]).double().log().expand(len(data), 2)
    torch.testing.assert_close(infer.log_evidence(model)(), forward_log_evidence(start, move, seen))


# --------------------------------------------------------------------------------------------- objectives


def hmm(loop: Any, data: Tensor) -> Callable[[], None]:
    def model() -> None:
        move = param("move", torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)).softmax(-1)
        locs = sample("locs", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
        start = torch.full((2,), 0.5, dtype=torch.float64)
        for t in loop(len(data), 1, -1):
            x = sample(f"x_{t}", dist.Categorical(start if isinstance(t, int) and t == 0 else move[x]))  # noqa: F821
            sample(f"y_{t}", dist.Normal(locs[x], 1.0), obs=data[t])

    return infer.config_enumerate(model)  # type: ignore[return-value]


def test_traceenum_elbo_is_that_of_the_loop() -> None:
    data = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64)

    def guide() -> None:
        loc = param("loc", torch.tensor([0.3, 0.8], dtype=torch.float64))
        sample("locs", dist.Normal(loc, 0.5).to_event(1))

    losses, gradients = [], []
    for loop in (step_by_step, at_once):
        torch.manual_seed(1)
        elbo = infer.TraceEnum_ELBO(max_plate_nesting=1)
        loss = elbo.differentiable_loss(hmm(loop, data), guide)
        store = dict(get_param_store().named_parameters())
        gradients.append(torch.autograd.grad(loss, [store["loc"], store["move"]]))
        losses.append(loss)
        torch.manual_seed(1)
        marginals = elbo.compute_marginals(hmm(loop, data), guide)
        assert list(marginals) == [f"x_{t}" for t in range(6)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-10, atol=0.0)
    for mine, other in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("nesting", [None, 1])
def test_training_with_score_functions(nesting: int | None) -> None:
    """Costs of a guide's discrete site count each term once, whichever loop the model has."""
    data = torch.tensor([0.1, 0.9, 1.3], dtype=torch.float64)

    def model(loop: Any) -> None:
        kind = sample(
            "kind", dist.Bernoulli(torch.tensor(0.4, dtype=torch.float64)), infer={"enumerate": None}
        )
        for t in loop(len(data), 1, -1):
            x = sample(f"x_{t}", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
            sample(f"y_{t}", dist.Normal(x + kind, 1.0), obs=data[t])
            sample(f"w_{t}", dist.Normal(kind, 1.0), obs=data[t])

    def guide(loop: Any) -> None:
        logit = param("logit", torch.tensor(0.2, dtype=torch.float64))
        sample("kind", dist.Bernoulli(logits=logit))

    found = []
    for loop in (step_by_step, at_once):
        torch.manual_seed(3)
        elbo = infer.TraceEnum_ELBO(max_plate_nesting=nesting)
        marked = infer.config_enumerate(model)
        loss = elbo.differentiable_loss(marked, guide, loop)
        (gradient,) = torch.autograd.grad(loss, dict(get_param_store().named_parameters())["logit"])
        found.append((loss.item(), gradient.item()))
    assert found[1] == pytest.approx(found[0], rel=1e-10)


# ------------------------------------------------------------------------------------------------ refusals


def test_what_depends_on_itself_is_not_drawn() -> None:
    def model() -> None:
        x: Any = torch.tensor(0.0)
        for t in vectorized_markov("time", 4):
            x = sample(f"x_{t}", dist.Normal(x, 1.0))

    with pytest.raises(ModelError, match="Site 'x_slice\\(0, 3, None\\)' would be drawn .* chain 'time'"):
        poutine.trace(model).get_trace()
    with pytest.raises(ModelError, match="would be drawn"):
        model()


def test_reaching_further_back_than_the_history_is_an_error() -> None:
    def model(loop: Any) -> None:
        states: list[Any] = [torch.tensor(0)] * 2
        table = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(0))
        for t in loop(6, 1, -1):
            states.append(sample(f"x_{t}", dist.Categorical(Vindex(table)[states[-2], states[-1]])))

    for loop in (step_by_step, at_once):
        with pytest.raises(EnumerationError, match="raise `history`"):
            infer.log_evidence(model)(loop)


def test_a_value_of_the_chain_is_not_used_after_it() -> None:
    def model() -> None:
        for t in vectorized_markov("time", 5):
            x = sample(f"x_{t}", dist.Bernoulli(0.5 if isinstance(t, int) else 0.2 + 0.5 * x))  # noqa: F821
        sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.5))

    with pytest.raises((EnumerationError, ModelError), match="'y'"):
        infer.log_evidence(model)()


def test_steps_that_are_observed_in_part_are_refused() -> None:
    data = torch.tensor([1.0, 0.0, 1.0])

    def model() -> None:
        x: Any = torch.tensor(0.0)
        for t in vectorized_markov("time", 4):
            x = sample(f"x_{t}", dist.Bernoulli(0.2 + 0.5 * x), obs=data[0] if isinstance(t, int) else None)

    with pytest.raises(EnumerationError, match="Site 'x_0' is not enumerated"):
        infer.log_evidence(model)()


def test_no_warning_is_given() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        infer.marginals(Chain(4, 1, 2, 2, True, True, True, True, True, True, 1.0, 0).program(at_once))()


# ------------------------------------------------------------------------- steps that are not all alike


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("name", ["x_{}", "x_{}_0", "{}_x_1"])
def test_a_site_that_is_observed_in_later_steps_only_is_refused(
    length: int, validation: bool, name: str
) -> None:
    def model(loop: Any) -> None:
        x: Any = torch.tensor(0.0)
        for t in loop(length, 1, -1):
            obs = None if isinstance(t, int) and t == 0 else torch.ones(length)[t]
            x = sample(name.format(t), dist.Bernoulli(0.2 + 0.5 * x), obs=obs)
            sample(f"y_{t}", dist.Normal(x, 1.0), obs=torch.zeros(length)[t])

    infer.log_evidence(model)(step_by_step)
    with settings.override(validation=validation), pytest.raises(ModelError, match="is enumerated"):
        infer.log_evidence(model)(at_once)


def test_data_of_later_steps_only_are_refused_where_they_are_looked_back_at() -> None:
    def model() -> None:
        for t in vectorized_markov("time", 5):
            x = sample(f"x_{t}", dist.Bernoulli(0.4))
            if not isinstance(t, int):
                sample(f"y_{t}", dist.Normal(x, 1.0), obs=torch.zeros(5)[t])

    with pytest.raises(ModelError, match="'y_0' is missing"):
        infer.log_evidence(model)()


@given(st.integers(2, 5))
def test_latent_sites_and_factors_of_later_steps_only(length: int) -> None:
    """They need no first step where nothing looks back at it."""

    def model(loop: Any) -> None:
        x = torch.tensor(0)
        move = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
        for t in loop(length, 1, -1):
            x = sample(f"x_{t}", dist.Categorical(move[x]))
            if not isinstance(t, int) or t > 0:
                w = sample(f"w_{t}", dist.Categorical(move[x]))
                factor(f"f_{t}", 0.3 * w.double())

    expected, found = (infer.marginals(model)(loop) for loop in (step_by_step, at_once))
    torch.testing.assert_close(found.log_evidence, expected.log_evidence, rtol=1e-12, atol=1e-12)
    for name in expected:
        torch.testing.assert_close(found[name].probs, expected[name].probs, rtol=1e-10, atol=1e-12)


def test_what_is_computed_from_step_to_step_without_a_site_is_refused() -> None:
    """Taken at once it would be another recursion, also where nothing is enumerated."""
    noise, seen = torch.sin(torch.arange(5.0)).double(), torch.cos(torch.arange(5.0)).double()

    def model(dim: int | None, enumerated: bool) -> None:
        level, z = torch.zeros(()).double(), torch.tensor(0)
        for t in markov(range(5), **({} if dim is None else {"dim": dim, "name": "time"})):
            if enumerated:
                z = sample(f"z_{t}", dist.Categorical(torch.tensor([[0.5, 0.5], [0.2, 0.8]]).double()[z]))
            step = sample(f"step_{t}", dist.Normal(torch.zeros(()).double(), 1.0), obs=noise[t])
            level = 0.9 * level + step
            sample(f"seen_{t}", dist.Normal(level + z, 1.0), obs=seen[t])

    for enumerated in (False, True):
        assert infer.log_evidence(model)(None, enumerated).isfinite()
        with pytest.raises(EnumerationError, match=r"'seen_\d'.*from step to step"):
            infer.log_evidence(model)(-1, enumerated)
