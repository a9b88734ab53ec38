"""Programs that mean something else with all values at once are refused, and others are not."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from hypothesis import given

import sumout.distributions as dist
from programs import Program, programs
from sumout import factor, infer, markov, plate, poutine, sample, vectorized_markov
from sumout.errors import EnumerationError, SumoutError
from sumout.infer.programs import agreement

THIRDS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
OTHERS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
TABLE = torch.tensor([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]], dtype=torch.float64)
MOVE = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)


def moved_dim() -> None:
    z = sample("z", dist.Categorical(THIRDS))
    sample("w", dist.Categorical(OTHERS))
    sample("y", dist.Normal(z.unsqueeze(-1), 1.0), obs=torch.tensor(2.0).double())


def transposed_table() -> None:
    z = sample("z", dist.Categorical(THIRDS))
    sample("w", dist.Categorical(OTHERS))
    sample("y", dist.Categorical(TABLE.T[:, z]), obs=torch.tensor(2))


def sum_over_a_plate() -> None:
    with plate("p", 2):
        z = sample("z", dist.Categorical(MOVE[0]))
    sample("y", dist.Normal(z.sum(), 1.0), obs=torch.tensor(0.3))


def many_chains() -> None:
    last: list[Any] = []
    for i in range(18):
        x = torch.tensor(0)
        for t in markov(range(2)):
            x = sample(f"x_{i}_{t}", dist.Categorical(MOVE[x]))
        last.append(x)
    w = torch.tensor(0)
    for i in markov(range(18)):
        w = sample(f"w_{i}", dist.Categorical(MOVE[w]))
        sample(f"e_{i}", dist.Normal(w + 2.0 * last[i], 1.0), obs=torch.tensor(1.5).double())


def far_back(lag: int, history: int = 1, vectorized: bool = False) -> Any:
    """A chain that looks back ``lag`` steps, in a loop or vectorized."""

    def model() -> None:
        states = [torch.tensor(0)] * (lag + 1)
        loop = vectorized_markov("time", 9, -1, history) if vectorized else markov(range(9), history)
        for t in loop:
            states.append(sample(f"x_{t}", dist.Categorical(MOVE[states[-1]])))
            sample(f"y_{t}", dist.Normal(states[-1] + 2.0 * states[-1 - lag], 1.0), obs=torch.tensor(0.5))

    return model


def deep_recursion(lag: int) -> Any:
    """A recursive function that hands down what is ``lag`` calls back."""

    @poutine.markov
    def descend(n: int, values: list[Any]) -> None:
        z = sample(f"z_{n}", dist.Categorical(MOVE[values[-1]]))
        sample(f"y_{n}", dist.Normal(z + 2.0 * values[-lag], 1.0), obs=torch.tensor(0.5))
        if n < 8:
            descend(n + 1, [*values, z])

    return lambda: descend(0, [torch.tensor(0)] * lag)


def entered_contexts(lag: int) -> Any:
    """A context manager that is entered for each step and left at the end."""

    def model() -> None:
        with ExitStack() as entered:
            chain, states = poutine.markov(history=1), [torch.tensor(0)] * (lag + 1)
            for t in range(9):
                entered.enter_context(chain)
                states.append(sample(f"x_{t}", dist.Categorical(MOVE[states[-1]])))
                sample(f"y_{t}", dist.Normal(states[-1] + 2.0 * states[-1 - lag], 1.0), obs=torch.tensor(0.5))

    return model


def own_list(lag: int, history: int) -> Any:
    """A vectorized chain that looks back at data in a list of its own."""

    def model() -> None:
        seen, x = [torch.tensor(0.0)] * 3, torch.tensor(0)
        for t in vectorized_markov("time", 8, dim=-1, history=history):
            x = sample(f"x_{t}", dist.Categorical(MOVE[x]))
            seen.append(
                sample(f"y_{t}", dist.Normal(x + 0.5 * seen[-lag], 1.0), obs=torch.linspace(-1.0, 2.0, 8)[t])
            )

    return model


def a_left_chain_in_a_later_one() -> None:
    x: Any = torch.tensor(0)
    for t in vectorized_markov("time", 3, dim=-1, history=2):
        x = sample(f"x_{t}", dist.Categorical(MOVE[x]))
    w = torch.tensor(0)
    for t in vectorized_markov("again", 3, dim=-1):
        w = sample(f"w_{t}", dist.Categorical(MOVE[w]))
        sample(f"v_{t}", dist.Normal(w + 2.0 * x, 1.0), obs=torch.zeros(3)[t])


@pytest.mark.parametrize(
    "program",
    [
        sum_over_a_plate,
        *(far_back(lag) for lag in range(2, 8)),
        *(far_back(lag, 2) for lag in range(3, 8)),
        *(far_back(lag, history, True) for history in (1, 2) for lag in range(history + 1, 2 * history + 3)),
        *(deep_recursion(lag) for lag in range(2, 6)),
        *(entered_contexts(lag) for lag in range(2, 6)),
        *(own_list(lag, history) for lag, history in [(2, 1), (3, 1), (3, 2)]),
        a_left_chain_in_a_later_one,
    ],
)
def test_a_program_that_means_something_else_is_refused(program: Any) -> None:
    with pytest.raises(SumoutError):
        infer.log_evidence(program)()
    marked = infer.config_enumerate(program)
    with pytest.raises(SumoutError):
        infer.TraceEnum_ELBO().loss(marked, lambda: None)


def test_the_site_is_named() -> None:
    with pytest.raises(EnumerationError, match="Site 'y' has log-probability .* and .* in the run in which"):
        infer.log_evidence(sum_over_a_plate)()


def log_normal(value: float, loc: float) -> float:
    return -0.5 * (value - loc) ** 2 - 0.5 * math.log(2 * math.pi)


def test_dims_that_a_program_moves_are_hidden_from_it() -> None:
    """With the values along a dimension these mean something else; they are run again without."""
    moved = math.log(sum(float(THIRDS[z]) * math.exp(log_normal(2.0, z)) for z in range(3)))
    assert infer.log_evidence(moved_dim)().item() == pytest.approx(moved, rel=1e-9)
    transposed = math.log(sum(float(THIRDS[z] * TABLE[z, 2]) for z in range(3)))
    assert infer.log_evidence(transposed_table)().item() == pytest.approx(transposed, rel=1e-9)


def test_ends_of_more_chains_than_dims_are_kept_for() -> None:
    ends = MOVE[0] @ MOVE  # of a chain of two steps
    forward = torch.ones(1, dtype=torch.float64)
    for i in range(18):
        move = MOVE[:1] if i == 0 else MOVE
        seen = torch.stack(
            [sum(ends[x] * math.exp(log_normal(1.5, w + 2.0 * x)) for x in range(2)) for w in range(2)]
        )
        forward = (forward @ move) * seen
    assert infer.log_evidence(many_chains)().item() == pytest.approx(math.log(forward.sum()), rel=1e-9)


def test_an_enum_inside_a_query_is_told() -> None:
    def two() -> None:
        a = sample("a", dist.Categorical(MOVE[0]), infer={"enumerate": "parallel"})
        b = sample("b", dist.Categorical(MOVE[1]))
        sample("y", dist.Normal(a + 2.0 * b, 1.0), obs=torch.tensor(0.3))

    handled = poutine.enum(two, first_available_dim=-1)
    try:
        found = infer.log_evidence(handled, max_plate_nesting=0)()
    except SumoutError:
        return
    torch.testing.assert_close(found, infer.log_evidence(two)())


@pytest.mark.parametrize("program", [far_back(1), far_back(2, 2), far_back(1, 1, True), far_back(2, 2, True)])
def test_what_is_within_the_history_is_let_pass(program: Any) -> None:
    assert infer.log_evidence(program)().isfinite()
    for within in (deep_recursion(1), entered_contexts(1)):
        assert infer.log_evidence(within)().isfinite()


@pytest.mark.parametrize(("lag", "history"), [(1, 1), (1, 2), (2, 2), (3, 3)])
def test_a_list_of_its_own_within_the_history_is_let_pass(lag: int, history: int) -> None:
    data = torch.linspace(-1.0, 2.0, 8)
    seen = torch.cat([torch.zeros(3), data])
    forward = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for t in range(8):
        likelihood = [
            math.exp(log_normal(float(data[t]), x + 0.5 * float(seen[3 + t - lag]))) for x in range(2)
        ]
        forward = (forward @ MOVE) * torch.tensor(likelihood)
    found = infer.log_evidence(own_list(lag, history))().item()
    assert found == pytest.approx(math.log(forward.sum()), rel=1e-6)


@given(programs())
def test_random_programs_agree(program: Program) -> None:
    infer.log_evidence(program)()


def test_each_shape_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    monkeypatch.setattr(agreement, "_first_difference", lambda run, sites, graph: runs.append(len(sites)))

    def model(size: int) -> None:
        with plate("data", size):
            z = sample("z", dist.Bernoulli(0.3))
            sample("x", dist.Normal(z, 1.0), obs=torch.zeros(size))

    for size in (2, 2, 3, 2, 3):
        infer.log_evidence(model)(size)
    assert len(runs) == 2


def test_a_program_with_random_numbers_of_its_own_is_let_pass() -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(0.3))
        sample("x", dist.Normal(z + 10 * torch.rand(()), 1.0), obs=torch.tensor(0.0))

    torch.manual_seed(0)
    assert infer.log_evidence(model)().isfinite()


def test_a_program_of_a_subsample_is_compared_with_the_same_one() -> None:
    data = torch.linspace(-3.0, 3.0, 20, dtype=torch.float64)

    def model() -> None:
        with plate("data", 20, subsample_size=3) as indices:
            z = sample("z", dist.Categorical(MOVE[0]))
            loc = z + 0 * z.sum()
            sample("x", dist.Normal(loc + z.sum(), 1.0), obs=data[indices])

    with pytest.raises(EnumerationError, match="Site 'x' has log-probability"):
        infer.log_evidence(model)()


def test_masks_scales_subsamples_and_chains_agree() -> None:
    data = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(4, 3)

    def model() -> None:
        with poutine.scale(scale=0.5):
            top = sample("top", dist.Categorical(THIRDS))
            with plate("rows", 4, subsample_size=2, dim=-1) as rows:
                z = sample("z", dist.Categorical(TABLE[top]))
                with poutine.mask(mask=torch.tensor([True, False])):
                    w = sample("w", dist.Bernoulli(0.2 + 0.3 * (z == 1)))
                    sample("y", dist.Normal(w + z, 1.0), obs=data[rows, 0])
                factor("weight", 0.1 * z.double())
            x = torch.tensor(0)
            for t in vectorized_markov("time", 5, dim=-2):
                x = sample(f"x_{t}", dist.Categorical(MOVE[x]))
                seen = torch.arange(5.0)[t]
                sample(f"s_{t}", dist.Normal(x + top, 1.0), obs=seen if isinstance(t, int) else seen[:, None])

    for _ in range(3):
        assert infer.log_evidence(model)().isfinite()
