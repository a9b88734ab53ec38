"""Structures that are refused or wrong elsewhere, against brute force: crossed plates, chains in plates and chains."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

import oracles
import sumout.distributions as dist
from oracles import Problem, Table
from sumout import infer, markov, plate, poutine, sample, vectorized_markov
from sumout.errors import PlateError
from sumout.infer.programs.modes import Mode
from sumout.infer.programs.program import EnumeratedProgram
from sumout.infer.reparam import LocScaleReparam
from sumout.infer.solving.solve import solve
from sumout.lower import lower

EXACT = {"rtol": 1e-9, "atol": 1e-9}
MOVE = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
DATA = torch.tensor([[0.3, 0.8, -0.2], [1.0, 0.1, 0.4], [0.5, -0.5, 1.2]], dtype=torch.float64)
LOCS = torch.tensor([0.0, 1.0], dtype=torch.float64)


def likelihood(data: torch.Tensor) -> torch.Tensor:
    """Of both states, the last dimension."""
    return dist.Normal(LOCS, 1.0).log_prob(data.unsqueeze(-1))


def check(program: Any, expected: torch.Tensor) -> None:
    torch.testing.assert_close(infer.log_evidence(program)(), expected, **EXACT)
    for mode in Mode:
        found = solve(lower(EnumeratedProgram(program).run_in(mode, (), {}))).value
        torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("dims", [(-2, -1), (-1, -2)])
def test_crossed_plates(dims: tuple[int, int]) -> None:
    data = DATA[:, :2] if dims == (-2, -1) else DATA[:, :2].T

    def model() -> None:
        rows, columns = plate("rows", 3, dim=dims[0]), plate("columns", 2, dim=dims[1])
        with rows:
            a = sample("a", dist.Categorical(MOVE[0]))
        with columns:
            b = sample("b", dist.Categorical(MOVE[1]))
        with rows, columns:
            sample("x", dist.Normal(a + 2.0 * b, 1.0), obs=data)

    states = torch.arange(2.0, dtype=torch.float64)
    locs = states[:, None] + 2.0 * states
    table = dist.Normal(locs, 1.0).log_prob(DATA[:, :2, None, None])
    problem = Problem(
        {"a": 2, "b": 2},
        {"a": frozenset(["rows"]), "b": frozenset(["columns"])},
        {"rows": (3, 1.0), "columns": (2, 1.0)},
        [
            Table(("a",), MOVE[0].log(), frozenset(["rows"])),
            Table(("b",), MOVE[1].log(), frozenset(["columns"])),
            Table(("rows", "columns", "a", "b"), table, frozenset(["rows", "columns"])),
        ],
    )
    check(model, oracles.log_z(problem))


def test_dims_that_plates_of_other_names_use_again() -> None:
    """Dim -1 is first that of one plate and then that of another; dim -2 the other way round."""

    def model() -> None:
        with plate("i", 2, dim=-1):
            a = sample("a", dist.Categorical(MOVE[0]))
            with plate("j", 3, dim=-2):
                sample("x", dist.Normal(a, 1.0), obs=DATA[:, :2])
        with plate("k", 3, dim=-1):
            b = sample("b", dist.Categorical(MOVE[1]))
            with plate("l", 2, dim=-2):
                sample("y", dist.Normal(b, 1.0), obs=DATA[:2])

    first = torch.logsumexp(MOVE[0].log() + likelihood(DATA[:, :2]).sum(0), -1).sum()
    second = torch.logsumexp(MOVE[1].log() + likelihood(DATA[:2]).sum(0), -1).sum()
    check(model, first + second)


def test_a_value_of_a_plate_used_in_another_at_the_same_dim_is_refused() -> None:
    def model() -> None:
        with plate("i", 3, dim=-1):
            a = sample("a", dist.Categorical(MOVE[0]))
        with plate("j", 3, dim=-1):
            sample("x", dist.Normal(a, 1.0), obs=DATA[0])

    with pytest.raises(PlateError, match="'x' depends on site 'a', which lives in plate 'i'"):
        infer.log_evidence(model)()


@pytest.mark.parametrize("loop", ["markov", "vectorized", "range"])
def test_a_chain_inside_a_plate(loop: str) -> None:
    def model() -> None:
        with plate("series", 3, dim=-1):
            x = torch.tensor(0)
            steps = {
                "markov": lambda: markov(range(3)),
                "vectorized": lambda: vectorized_markov("time", 3, dim=-2),
                "range": lambda: range(3),
            }[loop]()
            for t in steps:
                x = sample(f"x_{t}", dist.Categorical(MOVE[x]))
                sample(f"y_{t}", dist.Normal(x, 1.0), obs=DATA[t])

    expected = sum(
        oracles.forward_backward(MOVE[0].log(), MOVE.log(), likelihood(DATA[:, j]))[0] for j in range(3)
    )
    assert isinstance(expected, torch.Tensor)
    check(model, expected)


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_chain_inside_each_step_of_a_chain(vectorized: bool) -> None:
    def model() -> None:
        x = torch.tensor(0)
        for i in markov(range(3)):
            x = sample(f"x_{i}", dist.Categorical(MOVE[x]))
            z = x
            inner = vectorized_markov(f"inner_{i}", 3, dim=-1) if vectorized else markov(range(3))
            for j in inner:
                z = sample(f"z_{i}_{j}", dist.Categorical(MOVE[z]))
                sample(f"y_{i}_{j}", dist.Normal(z, 1.0), obs=DATA[i][j])

    forward = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for i in range(3):
        forward = forward @ MOVE
        inside = torch.eye(2, dtype=torch.float64)
        for j in range(3):
            inside = (inside @ MOVE) * likelihood(DATA[i, j]).exp()
        forward = forward * inside.sum(-1)
    check(model, forward.sum().log())


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("history", [1, 2, 4])
def test_global_sites_inside_a_chain_and_chains_no_longer_than_their_history(
    vectorized: bool, history: int
) -> None:
    data = DATA.reshape(-1)[:4]

    def model() -> None:
        g = sample("g", dist.Categorical(MOVE[1]))
        last = torch.tensor(0)
        loop = vectorized_markov("time", 4, -1, history) if vectorized else markov(range(4), history)
        for t in loop:
            stay = torch.where(g == 1, 0.8, 0.4).double()
            moved = torch.where(last == 1, stay, 1 - stay)
            last = sample(f"x_{t}", dist.Bernoulli(moved))
            sample(f"y_{t}", dist.Normal(last + g, 1.0), obs=data[t])
        sample("after", dist.Normal(g.double(), 1.0), obs=data[0])

    logs = []
    for g in range(2):
        stay = torch.where(torch.tensor(g) == 1, 0.8, 0.4).double()  # as the program has it, in float32 first
        move = torch.stack([torch.stack([stay, 1 - stay]), torch.stack([1 - stay, stay])])
        evidence = oracles.forward_backward(move[0].log(), move.log(), likelihood(data - g))[0]
        logs.append(MOVE[1, g].log() + evidence + dist.Normal(float(g), 1.0).log_prob(data[0]))
    check(model, torch.logsumexp(torch.stack(logs), 0))


def test_local_sites_of_a_subsample_under_an_enumerated_global_one() -> None:
    data = DATA.reshape(-1)

    def model(size: int) -> None:
        g = sample("g", dist.Categorical(MOVE[1]), infer={"enumerate": "parallel"})
        with plate("data", 9, subsample_size=size) as indices:
            z = sample("z", dist.Categorical(MOVE[g]), infer={"enumerate": "parallel"})
            sample("x", dist.Normal(z + g, 1.0), obs=data[indices])

    for size in (3, 9):
        torch.manual_seed(size)
        found = infer.log_evidence(model)(size)
        torch.manual_seed(size)
        with plate("data", 9, subsample_size=size) as indices:  # what the run above drew
            pass
        logs = []
        for g in range(2):
            local = torch.logsumexp(MOVE[g].log() + likelihood(data[indices] - g), -1)
            logs.append(MOVE[1, g].log() + local.sum() * 9 / size)
        torch.testing.assert_close(found, torch.logsumexp(torch.stack(logs), 0), **EXACT)
        torch.manual_seed(size)
        loss = infer.TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda size: None, size)
        torch.manual_seed(size)
        assert loss == pytest.approx(-infer.log_evidence(model)(size).item(), rel=1e-9)


@pytest.mark.parametrize("centered", [0.0, 0.3, 1.0])
def test_reparameterized_locations_and_scales_of_enumerated_sites(centered: float) -> None:
    locs, scales = torch.tensor([0.0, 2.0]).double(), torch.tensor([1.0, 0.5]).double()

    def model() -> None:
        z = sample("z", dist.Categorical(MOVE[1]), infer={"enumerate": "parallel"})
        with plate("data", 3):
            x = sample("x", dist.Normal(locs[z], scales[z]))
            sample("y", dist.Normal(x, 0.5), obs=DATA[0])

    drawn = torch.tensor([0.4, -1.1, 0.7], dtype=torch.float64)

    def guide() -> None:
        with plate("data", 3):
            sample("x_decentered", dist.Delta(drawn))

    changed = poutine.reparam(model, config={"x": LocScaleReparam(centered=torch.tensor(centered).double())})
    logs = []
    for z in range(2):
        loc, scale = locs[z], scales[z]
        prior = dist.Normal(loc * centered, scale**centered)
        x = loc + scale ** (1 - centered) * (drawn - centered * loc)
        log = prior.log_prob(drawn).sum() + dist.Normal(x, 0.5).log_prob(DATA[0]).sum()
        logs.append(MOVE[1, z].log() + log)
    expected = torch.logsumexp(torch.stack(logs), 0)
    found = -infer.TraceEnum_ELBO(max_plate_nesting=1).loss(changed, guide)
    assert found == pytest.approx(expected.item(), rel=1e-9)


def test_a_sum_over_a_plate_by_values_in_parallel_is_a_sum_of_counts() -> None:
    """The same as a run for each joint value: a site for each partial sum."""
    probs = [0.1, 0.2, 0.5, 0.9]

    def model() -> None:
        total = torch.tensor(0)
        for i, p in enumerate(probs):
            total = total + sample(f"z_{i}", dist.Bernoulli(torch.tensor(p, dtype=torch.float64))).long()
        sample("x", dist.Normal(total.double(), 1.0), obs=torch.tensor(0.4, dtype=torch.float64))

    expected = 0.0
    for states in itertools.product((0, 1), repeat=4):
        prior = math.prod(p if s else 1 - p for p, s in zip(probs, states, strict=True))
        expected += prior * math.exp(
            float(dist.Normal(float(sum(states)), 1.0).log_prob(torch.tensor(0.4, dtype=torch.float64)))
        )
    check(model, torch.tensor(math.log(expected), dtype=torch.float64))
