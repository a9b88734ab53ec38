"""Evidence, marginals, MAP and gradients of random programs, against brute force in float64."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings

import oracles
import sumout.distributions as dist
from programs import Program, programs
from sumout import markov, plate, sample
from sumout.infer import log_evidence, map_assignment, marginals

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def expected_shape(program: Program, path: tuple[str, ...]) -> tuple[int, ...]:
    """Plate ``path[0]`` is dim -1, ``path[1]`` dim -2, and so on."""
    return tuple(program.plates[name] for name in reversed(path))


def in_program_order(table: torch.Tensor, path: tuple[str, ...]) -> torch.Tensor:
    """An oracle's answer (plates in alphabetical order, then more) with dims as the program's plates have them."""
    order = [sorted(path).index(name) for name in reversed(path)]
    return table.permute((*order, *range(len(path), table.ndim)))


@given(programs())
@settings(max_examples=200)
def test_evidence_and_its_gradient(program: Program) -> None:
    ours = log_evidence(program)()
    theirs = oracles.log_z(program.problem())
    torch.testing.assert_close(ours, theirs, **EXACT)
    parameters = program.parameters()
    for a, b in zip(
        torch.autograd.grad(ours, parameters, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(theirs, parameters, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


@given(programs())
@settings(max_examples=200)
def test_marginals(program: Program) -> None:
    answer = marginals(program)()
    problem = program.problem()
    torch.testing.assert_close(answer.log_evidence, oracles.log_z(problem), **EXACT)
    expected = oracles.marginals(problem)
    assert set(answer) == set(expected)
    for site in program.sites:
        if site.obs is None:
            assert answer[site.name].batch_shape == expected_shape(program, site.path)
            probs = answer[site.name].probs
            if site.bernoulli:
                probs = torch.stack([1 - probs, probs], -1)
            torch.testing.assert_close(probs, in_program_order(expected[site.name], site.path), **EXACT)


@given(programs(max_statements=3))
@settings(max_examples=60)
def test_gradients_of_marginals(program: Program) -> None:
    latent = [site for site in program.sites if site.obs is None]
    assume(latent)
    site = latent[-1]
    probs = marginals(program, [site.name])()[site.name].probs
    problem = program.problem()
    assignments = oracles.assignment_table(problem)
    weights = torch.softmax(oracles.log_joint(problem, assignments), 0)
    columns = [column for column, (name, _) in enumerate(problem.copies()) if name == site.name]
    last = weights[assignments[:, columns[-1]] == site.size - 1].sum()
    ours = probs.reshape(-1)[-1]
    parameters = program.parameters()
    for a, b in zip(
        torch.autograd.grad(ours, parameters, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(last, parameters, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


@given(programs())
@settings(max_examples=200)
def test_map_is_a_maximum(program: Program) -> None:
    answer = map_assignment(program)()
    problem = program.problem()
    _, best = oracles.max_assignment(problem)
    torch.testing.assert_close(answer.log_prob, best, **EXACT)
    torch.testing.assert_close(answer.log_evidence, oracles.log_z(problem), **EXACT)
    values = {}
    for site in program.sites:
        if site.obs is None:
            value = answer[site.name]
            assert value.shape == expected_shape(program, site.path)
            assert value.is_floating_point() == site.bernoulli
            back = [list(reversed(site.path)).index(name) for name in sorted(site.path)]
            values[site.name] = value.permute(back).long()
    torch.testing.assert_close(oracles.score_assignment(problem, values), best, **EXACT)


def test_loops_over_plates_inside_a_chain() -> None:
    """The elements of the last step's loop must not take dimensions that the chain still uses."""
    shown = torch.tensor([0.2, 0.7], dtype=torch.float64)
    table = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)

    def model() -> None:
        before = torch.tensor(0)
        for t in markov(range(2)):
            for i in plate(f"elements_{t}", 2):
                w = sample(f"w_{t}_{i}", dist.Categorical(table[before]))
                sample(f"x_{t}_{i}", dist.Bernoulli(shown[w]), obs=torch.tensor(1.0))
            before = sample(f"z_{t}", dist.Categorical(torch.tensor([0.5, 0.5], dtype=torch.float64)))
            sample(f"y_{t}", dist.Bernoulli(shown[before]), obs=torch.tensor(1.0))

    element = table @ shown  # p(x = 1 | before)
    of_z = 0.5 * shown * element**2  # p(z_0, y_0, the elements of the second step)
    expected = element[0] ** 2 * of_z.sum() * (0.5 * shown).sum()
    torch.testing.assert_close(log_evidence(model)(), expected.log(), **EXACT)
    torch.testing.assert_close(marginals(model)()["z_0"].probs, of_z / of_z.sum(), **EXACT)


def test_going_on_from_the_last_states_of_a_chain() -> None:
    table = torch.rand(2, 2, 2, dtype=torch.float64) + 0.1
    table = table / table.sum(-1, keepdim=True)

    def model() -> None:
        before = last = torch.tensor(0)
        for t in markov(range(4), history=2):
            before, last = last, sample(f"x{t}", dist.Categorical(table[before, last]))
        sample("y", dist.Categorical(table[before, last]), obs=torch.tensor(1))

    joint = torch.zeros(2, 2, dtype=torch.float64)
    joint[0, 0] = 1.0  # p(before, last)
    for _ in range(4):
        joint = torch.einsum("ab,abc->bc", joint, table)
    torch.testing.assert_close(log_evidence(model)(), (joint * table[..., 1]).sum().log(), **EXACT)
