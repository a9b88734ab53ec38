"""Names and shapes of what ``Predictive`` gives are those of Pyro's, which has dimensions of size one besides."""

from __future__ import annotations

import pyro
import pyro.distributions as pyro_dist
import pytest
import torch
from pyro.infer import Predictive as PyroPredictive

import sumout
import sumout.distributions as dist
from sumout.infer import Predictive


def regression(ppl, families):
    def model(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        weights = ppl.sample("weights", families.Normal(torch.zeros(2), 1.0).to_event(1))
        scale = ppl.sample("scale", families.Gamma(2.0, 2.0))
        mean = ppl.deterministic("mean", (x * weights).sum(-1))
        with ppl.plate("data", len(x)):
            return ppl.sample("y", families.Normal(mean, scale), obs=y)

    return model


def nested(ppl, families):
    def model(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        with ppl.plate("outer", 2, dim=-2):
            level = ppl.sample("level", families.Dirichlet(torch.ones(4)))
            with ppl.plate("inner", 5, dim=-1):
                ppl.sample("z", families.Bernoulli(0.5))
                return ppl.sample("w", families.Categorical(level))

    return model


SAMPLES = {"weights": torch.randn(6, 2), "scale": torch.rand(6) + 0.1}
CASES = {
    "from samples": (regression, SAMPLES, {}),
    "from the prior": (regression, None, {"num_samples": 6}),
    "nested plates": (nested, None, {"num_samples": 6}),
    "some sites": (regression, SAMPLES, {"return_sites": ["y", "weights"]}),
}


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_names_and_shapes(case: str, parallel: bool) -> None:
    tell, samples, options = CASES[case]
    x = torch.randn(5, 2)
    pyro.clear_param_store()
    ours = Predictive(tell(sumout, dist), samples, parallel=parallel, **options)(x)
    # In parallel, Pyro does not leave room for plates at sites with an event, and fails at some of these models.
    theirs = PyroPredictive(tell(pyro, pyro_dist), samples, **options)(x)
    plates = ("data", "outer", "inner")  # Pyro lists the indices of plates when it is asked for all.
    assert {name: value.squeeze().shape for name, value in ours.items()} == {
        name: value.squeeze().shape for name, value in theirs.items() if name not in plates
    }
    assert all(len(value) == 6 for value in ours.values())
