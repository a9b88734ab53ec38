"""Distributions as lazy funsor distributions, and back.

The conversion is funsor's, under its ``reflect`` interpretation: parameters become named tensors and the
family is kept as it is, so that it can be converted back. ``funsor.reinterpret`` evaluates such a term: a
Categorical then is a table of log-probabilities, a Normal a Gaussian.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import funsor
import funsor.distribution
import torch
from funsor.interpretations import eager, reflect
from funsor.tensor import Tensor
from funsor.terms import to_data, to_funsor

from sumout.errors import GraphError
from sumout.terms.names import named_dims

EVENT_NAME = "event dim {}"


def distribution_to_funsor(dist: Any, dim_to_name: Mapping[int, str], value: str = "value") -> Any:
    """The lazy distribution of ``sumout.terms.to_funsor``; its event dims are the output's shape."""
    named_dims(tuple(dist.batch_shape), dim_to_name)
    base, event_dims = dist, 0
    while isinstance(base, torch.distributions.Independent):
        event_dims += base.reinterpreted_batch_ndims
        base = base.base_dist
    # The dims that Independent declares event dims are named for the conversion, then become output dims.
    events = {dim: EVENT_NAME.format(dim) for dim in range(-event_dims, 0)}
    names = {dim - event_dims: name for dim, name in dim_to_name.items()} | events
    try:
        with reflect:
            term = to_funsor(base, dim_to_name=names)
    except (NotImplementedError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # What funsor raises differs by family; the user needs to know one thing.
        raise _unsupported(dist) from error
    if not isinstance(term, funsor.distribution.Distribution):
        raise _unsupported(dist)
    params = tuple(term.params.values())[:-1]
    if events:
        params = tuple(_with_event_dims(param, tuple(events.values())) for param in params)
    with reflect:
        return type(term)(*params, value)


def distribution_to_data(term: Any, name_to_dim: Mapping[str, int]) -> Any:
    """The torch distribution of ``sumout.terms.to_data``."""
    if not isinstance(term, funsor.distribution.Distribution):
        raise GraphError(f"A {type(term).__name__} term is neither a tensor nor a distribution of torch.")
    needed = {name for param in tuple(term.params.values())[:-1] for name in param.inputs}
    missing = sorted(needed - set(name_to_dim))
    if missing:
        raise GraphError(
            f"The distribution depends on {missing}, for which name_to_dim={dict(name_to_dim)} has no dim."
        )
    with eager:
        return to_data(term, name_to_dim=dict(name_to_dim))


def _with_event_dims(param: Any, events: tuple[str, ...]) -> Any:
    """The parameter, its inputs ``events`` moved to the front of the output shape; absent ones get size 1."""
    batch = tuple(name for name in param.inputs if name not in events)
    present = tuple(name for name in events if name in param.inputs)
    inputs = param.inputs
    aligned = param.align(batch + present)
    sizes = [inputs[name].size for name in batch]
    sizes += [inputs[name].size if name in inputs else 1 for name in events]
    data = aligned.data.reshape(*sizes, *param.output.shape)
    return Tensor(data, type(inputs)((name, inputs[name]) for name in batch), param.dtype)


def _unsupported(dist: Any) -> GraphError:
    return GraphError(
        f"A {type(dist).__name__} has no lazy form in funsor. Use its log_prob tensor: "
        "to_funsor(dist.log_prob(value), dim_to_name)."
    )
