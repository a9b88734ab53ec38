from __future__ import annotations

from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects.handlers import infer_config, trace
from sumout.effects.primitives import get_param_store, param, sample
from sumout.errors import ModelError


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


@pytest.mark.parametrize("wrong", [None, {"enumerate": "parallel"}, "parallel"])
def test_config_fn_is_a_function(wrong: Any) -> None:
    with pytest.raises(ModelError, match="infer_config takes a function of a site"):
        infer_config(lambda: None, config_fn=wrong)


@pytest.mark.parametrize("wrong", [None, "parallel", 3])
def test_config_fn_gives_a_dictionary(wrong: Any) -> None:
    configured = infer_config(lambda: sample("z", dist.Normal(0.0, 1.0)), config_fn=lambda site: wrong)
    with pytest.raises(ModelError, match=f"config_fn gave {wrong!r} for site 'z'"):
        configured()
