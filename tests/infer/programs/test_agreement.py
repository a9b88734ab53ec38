"""Programs that mean something else with all values at once are refused, and others are not."""

from __future__ import annotations

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
    sample("y", dist.Normal(z.unsqueeze(-1), 1.0), obs=torch.tensor(2.0))


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
        sample(f"e_{i}", dist.Normal(w + 2.0 * last[i], 1.0), obs=torch.tensor(1.5))


def far_back(lag: int) -> Any:
    def model() -> None:
        states = [torch.tensor(0)]
        for t in markov(range(9)):
            states.append(sample(f"x_{t}", dist.Categorical(MOVE[states[-1]])))
            far = states[-1 - lag] if len(states) > lag else torch.tensor(0)
            sample(f"y_{t}", dist.Normal(states[-1] + 2.0 * far, 1.0), obs=torch.tensor(0.5))

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
        moved_dim,
        transposed_table,
        sum_over_a_plate,
        many_chains,
        *(far_back(lag) for lag in range(2, 8)),
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
        infer.log_evidence(moved_dim)()


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
