"""More enumerated sites than torch has dimensions, without markov: hundreds, in chains, trees and networks."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
import torch

import oracles
import sumout.distributions as dist
from sumout import factor, infer, markov, plate, poutine, sample
from sumout.errors import EnumerationError, MemoryLimitError
from sumout.factors import FactorGraph

EXACT = {"rtol": 1e-9, "atol": 1e-9}
MOVE = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.3, 0.1, 0.6]], dtype=torch.float64)
LOCS = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)


def chain(data: torch.Tensor, move: torch.Tensor, loop: Any = range) -> Any:
    def model() -> None:
        x = torch.tensor(0)
        for t in loop(len(data)):
            x = sample(f"x_{t}", dist.Categorical(move[x]))
            sample(f"y_{t}", dist.Normal(LOCS[x], 1.0), obs=data[t])

    return model


def test_a_chain_of_500_sites_in_a_plain_loop() -> None:
    data = torch.sin(torch.arange(500.0, dtype=torch.float64))
    move = MOVE.clone().requires_grad_()
    log_likelihood = dist.Normal(LOCS, 1.0).log_prob(data[:, None])

    def forward(table: torch.Tensor) -> Any:
        normal = table / table.sum(-1, keepdim=True)
        return oracles.forward_backward(normal[0].log(), normal.log(), log_likelihood)

    evidence, posterior, _ = forward(MOVE)
    found = infer.log_evidence(chain(data, move))()
    torch.testing.assert_close(found, evidence, **EXACT)
    (ours,) = torch.autograd.grad(found, move)
    inside = move.detach().clamp(min=1e-300).requires_grad_()  # the oracle's gradient is NaN at zero
    (theirs,) = torch.autograd.grad(forward(inside)[0], inside)
    torch.testing.assert_close(ours[MOVE > 0], theirs[MOVE > 0], rtol=1e-7, atol=1e-7)
    marginals = infer.marginals(chain(data, MOVE))()
    for t in (0, 1, 250, 499):
        torch.testing.assert_close(marginals[f"x_{t}"].probs, posterior[t], **EXACT)
    normal = MOVE.log()
    path, score = oracles.viterbi(normal[0], normal, log_likelihood)
    best = infer.map_assignment(chain(data, MOVE))()
    torch.testing.assert_close(best.log_prob, score, **EXACT)
    assert [int(best[f"x_{t}"]) for t in range(500)] == path.tolist()


def test_it_serves_the_objective_and_its_marginals() -> None:
    data = torch.cos(torch.arange(80.0, dtype=torch.float64))
    model = infer.config_enumerate(chain(data, MOVE))
    with_markov = infer.config_enumerate(chain(data, MOVE, lambda n: markov(range(n))))
    losses = [infer.TraceEnum_ELBO().loss(each, lambda: None) for each in (model, with_markov)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    found = [infer.TraceEnum_ELBO().compute_marginals(each, lambda: None) for each in (model, with_markov)]
    torch.testing.assert_close(found[0]["x_70"].probs, found[1]["x_70"].probs, **EXACT)


def tree_likelihood(depth: int, move: torch.Tensor, leaf: Any) -> torch.Tensor:
    """Felsenstein's recursion from the leaves to the root."""

    def below(node: int) -> torch.Tensor:
        if 2 * node >= 2**depth:
            seen: torch.Tensor = leaf(node)
            return seen
        return sum(  # type: ignore[return-value]
            torch.logsumexp(move.log() + below(child), 1) for child in (2 * node, 2 * node + 1)
        )

    return torch.logsumexp(move[0].log() + below(1), 0)


@pytest.mark.parametrize("keep", [None, True])
def test_a_tree(keep: bool | None) -> None:
    """With markov(keep=True), as a recursive program declares it, and without."""
    depth = 7
    scope = poutine.markov(history=1, keep=True)

    def visit(node: int, parent: torch.Tensor) -> None:
        z = sample(f"z_{node}", dist.Categorical(MOVE[parent]))
        if 2 * node >= 2**depth:
            sample(f"y_{node}", dist.Normal(LOCS[z], 1.0), obs=torch.tensor(node % 5 - 1.0).double())
        else:
            for child in (2 * node, 2 * node + 1):
                branch(child, z)

    def branch(node: int, parent: torch.Tensor) -> None:
        if keep:
            with scope:
                visit(node, parent)
        else:
            visit(node, parent)

    found = infer.log_evidence(lambda: branch(1, torch.tensor(0)))()
    expected = tree_likelihood(
        depth, MOVE, lambda node: dist.Normal(LOCS, 1.0).log_prob(torch.tensor(node % 5 - 1.0).double())
    )
    torch.testing.assert_close(found, expected, **EXACT)


def noisy_or(parents: list[list[int]]) -> tuple[Any, FactorGraph]:
    """A program of a noisy-or network, and the network's tables written by hand."""
    seen = {node: float(node % 2) for node in range(0, len(parents), 5)}

    def model() -> None:
        x: list[torch.Tensor] = []
        for node, above in enumerate(parents):
            off = torch.tensor(0.9, dtype=torch.float64)
            for parent in above:
                off = off * torch.where(x[parent] == 1, 0.3, 1.0)
            x.append(sample(f"x_{node}", dist.Bernoulli(1 - off)))
            if node in seen:
                sample(
                    f"o_{node}", dist.Bernoulli(0.2 + 0.6 * x[node].double()), obs=torch.tensor(seen[node])
                )

    tables: dict[str, Any] = {}
    for node, above in enumerate(parents):
        table = torch.zeros([2] * (1 + len(above)), dtype=torch.float64)
        for states in itertools.product((0, 1), repeat=len(above)):
            off = 0.9 * 0.3 ** sum(states)
            table[states] = torch.tensor([off, 1 - off], dtype=torch.float64)
        tables[f"x_{node}"] = ([f"x_{parent}" for parent in above] + [f"x_{node}"], table)
        if node in seen:
            shown = [0.2, 0.8] if seen[node] else [0.8, 0.2]
            tables[f"o_{node}"] = ([f"x_{node}"], torch.tensor(shown, dtype=torch.float64))
    return model, FactorGraph.from_tables(tables)


def test_a_noisy_or_network_of_200_nodes() -> None:
    source = random.Random(0)
    parents = [
        source.sample(range(max(0, node - 6), node), min(node, source.randint(0, 2))) for node in range(200)
    ]
    model, network = noisy_or(parents)
    torch.testing.assert_close(
        infer.log_evidence(model)(), infer.log_evidence(network)(), rtol=1e-7, atol=1e-7
    )


def test_a_small_noisy_or_network_is_right_in_every_way() -> None:
    source = random.Random(1)
    parents = [source.sample(range(node), min(node, source.randint(0, 3))) for node in range(9)]
    model, _ = noisy_or(parents)
    joint = 0.0
    for x in itertools.product((0, 1), repeat=9):
        weight = 1.0
        for node, above in enumerate(parents):
            off = 0.9 * 0.3 ** sum(x[parent] for parent in above)
            weight *= 1 - off if x[node] else off
            if node % 5 == 0:
                shown = 0.2 + 0.6 * x[node]
                weight *= shown if node % 2 else 1 - shown
        joint += weight
    for enumeration in ("parallel", "sequential"):
        found = infer.log_evidence(model, enumeration=enumeration)()
        assert found.item() == pytest.approx(math.log(joint), rel=1e-6)


def test_in_plates_and_with_parameters_for_each_element() -> None:
    weights = torch.rand(4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.2
    weights.requires_grad_()
    data = torch.linspace(-1.0, 1.0, 280, dtype=torch.float64).reshape(70, 4)

    def model() -> None:
        with plate("series", 4) as series:
            x = torch.zeros(4, dtype=torch.long)
            for t in range(70):
                x = sample(f"x_{t}", dist.Categorical(weights[series, x]))
                sample(f"y_{t}", dist.Normal(x, 1.0), obs=data[t])
                factor(f"f_{t}", 0.1 * x)

    found = infer.log_evidence(model)()
    move = (weights / weights.sum(-1, keepdim=True)).log()
    states = torch.arange(2.0, dtype=torch.float64)
    expected = sum(
        oracles.forward_backward(
            move[j, 0], move[j], dist.Normal(states, 1.0).log_prob(data[:, j, None]) + 0.1 * states
        )[0]
        for j in range(4)
    )
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    (ours,) = torch.autograd.grad(found, weights)
    (theirs,) = torch.autograd.grad(expected, weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_sites_that_markov_hides_are_still_refused() -> None:
    def model() -> None:
        states = [torch.tensor(0)] * 3
        for t in markov(range(90)):
            states.append(sample(f"x_{t}", dist.Categorical(MOVE[states[-1]])))
            sample(f"y_{t}", dist.Normal(LOCS[states[-3]], 1.0), obs=torch.tensor(0.5))
        for t in range(70):
            sample(f"z_{t}", dist.Bernoulli(0.5))

    with pytest.raises(EnumerationError, match="history"):
        infer.log_evidence(model)()


def test_a_value_of_all_sites_is_refused_before_it_fills_the_memory() -> None:
    def model() -> None:
        total = torch.tensor(0.0)
        for t in range(100):
            total = total + sample(f"x_{t}", dist.Bernoulli(0.3))
        sample("y", dist.Normal(total, 1.0), obs=torch.tensor(1.0))

    with pytest.raises(MemoryLimitError, match=r"depends on .* sites at once .*partial sums"):
        infer.log_evidence(model)()
