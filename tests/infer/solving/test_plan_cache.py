"""What is asked twice is planned once."""

from __future__ import annotations

import torch

import sumout
import sumout.distributions as dist
from sumout import infer
from sumout.plan import clear_plan_cache, plan_cache_info


def chain(data: torch.Tensor) -> None:
    stay = sumout.param("stay", torch.tensor(0.7), constraint=dist.constraints.unit_interval)
    state = torch.tensor(0.0)
    for t in sumout.markov(range(len(data))):
        state = sumout.sample(f"z{t}", dist.Bernoulli(torch.where(state == 1, stay, 1 - stay)))
        sumout.sample(f"x{t}", dist.Normal(state, 1.0), obs=data[t])


def test_queries_plan_once_for_a_structure() -> None:
    for query in (infer.log_evidence, infer.marginals, infer.map_assignment):
        clear_plan_cache()
        query(chain)(torch.zeros(5))
        made = plan_cache_info().misses
        assert made == 1
        query(chain)(torch.ones(5))
        assert plan_cache_info().misses == made
        query(chain)(torch.ones(6))
        assert plan_cache_info().misses == made + 1


def test_training_plans_once() -> None:
    sumout.clear_param_store()
    clear_plan_cache()
    svi = infer.SVI(
        infer.config_enumerate(chain),
        lambda data: None,
        sumout.optim.Adam({"lr": 0.1}),
        infer.TraceEnum_ELBO(),
    )
    for _ in range(5):
        svi.step(torch.ones(5))
    info = plan_cache_info()
    assert (info.misses, info.hits) == (1, 4)
