"""What a step of training does besides the program's own operations does not grow with the number of sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sumout import distributions as dist
from sumout import infer, markov, param, plate, sample

STATES, OUTPUTS, SEQUENCES = 3, 5, 4


def chain(length: int, *, in_plate: bool = True) -> Callable[[], None]:
    """A hidden Markov model with outputs in a plate or one output a step."""
    data = torch.bernoulli(torch.full((length, SEQUENCES, OUTPUTS), 0.3))
    rows = torch.full((STATES, STATES), 1 / STATES)
    table = torch.linspace(0.2, 0.8, STATES * OUTPUTS).reshape(STATES, OUTPUTS)

    def model() -> None:
        probs_x = param("probs_x", rows, constraint=dist.constraints.simplex)
        probs_y = param("probs_y", table, constraint=dist.constraints.unit_interval)
        outputs, first = plate("outputs", OUTPUTS, dim=-1), probs_y[:, 0]
        x = torch.tensor(0)
        with plate("sequences", SEQUENCES, dim=-2):
            for t in markov(range(length)):
                x = sample(f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                if in_plate:
                    with outputs:
                        sample(f"y_{t}", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=data[t])
                else:
                    sample(f"y_{t}", dist.Bernoulli(first[x]), obs=data[t, :, :1])

    return model


def nodes_of(loss: Tensor) -> Counter[str]:
    """The operations that a derivative of the loss goes back through, by name."""
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [each for each, _ in node.next_functions]
    return Counter(type(node).__name__ for node in seen)


@pytest.mark.parametrize("in_plate", [True, False])
def test_derivatives_of_a_chain_are_taken_of_all_steps_at_once(in_plate: bool) -> None:
    """One operation a site is the program's: it looks a row up. Ours are as many for 24 steps as for 12."""
    counted = []
    for length in (12, 24):
        loss = infer.TraceEnum_ELBO(max_plate_nesting=2).differentiable_loss(
            chain(length, in_plate=in_plate), lambda: None
        )
        found = nodes_of(loss)
        assert found.pop("IndexBackward0") == 2 * length - 1  # The first row is selected.
        counted.append(found)
    assert counted[0] == counted[1]
    assert counted[0]["DivBackward0"] <= 4  # Categoricals are normalized together.


def test_a_plain_bound_has_few_operations() -> None:
    """A step of a small model: per site its density, and nothing to stack, reshape or take apart."""
    x = torch.randn(8)

    def model() -> None:
        w = sample("w", dist.Normal(0.0, 1.0))
        with plate("data", 8):
            z = sample("z", dist.Normal(w, 1.0))
            sample("x", dist.Normal(z, 1.0), obs=x)

    def guide() -> None:
        sample("w", dist.Normal(param("a", torch.tensor(0.0)), 1.0))
        with plate("data", 8):
            sample("z", dist.Normal(param("b", torch.zeros(8)), 1.0))

    found = nodes_of(infer.Trace_ELBO().differentiable_loss(model, guide))
    moved = ("ViewBackward0", "SqueezeBackward1", "UnsqueezeBackward0", "UnbindBackward0", "CatBackward0")
    assert sum(found[name] for name in moved) <= 2
    assert found["StackBackward0"] <= 2
    assert sum(found.values()) <= 40
