"""Samples and potentials of wrapped Pyro programs are those of the same programs told to sumout."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as pyro_dist
import torch

import sumout
import sumout.distributions as dist
from sumout import infer, poutine
from sumout_contrib.pyro_bridge import as_sumout

EXACT = {"rtol": 1e-9, "atol": 1e-9}
X = torch.tensor([[0.3, -1.2, 0.8], [0.1, 0.4, 1.9]], dtype=torch.float64)


def grid(ppl: Any, families: Any) -> Any:
    def model(x: torch.Tensor) -> None:
        loc = ppl.sample("loc", families.Normal(torch.zeros(()).double(), 1.0))
        rows, columns = ppl.plate("rows", 2, dim=-2), ppl.plate("columns", 3, dim=-1)
        with rows:
            a = ppl.sample("a", families.Bernoulli(torch.tensor(0.4, dtype=torch.float64)))
        with columns:
            b = ppl.sample("b", families.Bernoulli(torch.tensor(0.7, dtype=torch.float64)))
        with rows, columns:
            ppl.sample("x", families.Normal(loc + a - b, 0.8), obs=x)

    return model


def test_potentials() -> None:
    ours, wrapped = (
        infer.potential_fn(grid(sumout, dist), X),
        infer.potential_fn(as_sumout(grid(pyro, pyro_dist)), X),
    )
    for u in (-1.0, 0.5):
        vector = torch.tensor([u], dtype=torch.float64)
        torch.testing.assert_close(wrapped.value_and_grad(vector), ours.value_and_grad(vector), **EXACT)


def test_discrete_sites_and_weights() -> None:
    wrapped = as_sumout(grid(pyro, pyro_dist))
    given = {"loc": torch.tensor([0.2, -0.6], dtype=torch.float64)}
    for parallel in (False, True):
        drawn = infer.Predictive(wrapped, given, parallel=parallel, infer_discrete=True)(X)
        assert {name: tuple(value.shape) for name, value in drawn.items()} == {
            "a": (2, 2, 1),
            "b": (2, 3),
            "x": (2, 2, 3),
        }
    best = poutine.trace(
        infer.infer_discrete(poutine.condition(wrapped, data={"loc": given["loc"][0]}), temperature=0)
    ).get_trace(X)
    told = poutine.condition(grid(sumout, dist), data={"loc": given["loc"][0]})
    torch.testing.assert_close(best.log_prob_sum(), infer.map_assignment(told)(X).log_prob, **EXACT)
    weighted = infer.Importance(wrapped, num_samples=3).run(X)
    for loc, weight in zip(weighted["loc"], weighted.log_weights, strict=True):
        at = poutine.condition(grid(sumout, dist), data={"loc": loc})
        expected = infer.log_evidence(at)(X) - dist.Normal(0.0, 1.0).log_prob(loc)
        torch.testing.assert_close(weight, expected, **EXACT)
