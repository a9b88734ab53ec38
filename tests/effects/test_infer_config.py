from __future__ import annotations

import torch

import sumout.distributions as dist
from sumout.effects.handlers import infer_config, trace
from sumout.effects.primitives import get_param_store, param, sample


def test_updates_infer_of_sample_and_param_sites() -> None:
    given = {"a": 1, "b": 1}

    def model() -> None:
        param("p", torch.tensor(1.0))
        sample("z", dist.Normal(0.0, 1.0), infer=given)

    with get_param_store().scope():
        configured = infer_config(model, config_fn=lambda site: {"b": 2, "name": site["name"]})
        recorded = trace(configured).get_trace()
    assert recorded.nodes["z"]["infer"] == {"a": 1, "b": 2, "name": "z"}
    assert recorded.nodes["p"]["infer"]["name"] == "p"
    assert given == {"a": 1, "b": 1}
