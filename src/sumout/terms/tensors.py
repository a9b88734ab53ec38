"""Torch tensors as funsor tensors, and back: views, never copies unless an order asks for one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from funsor.domains import Bint
from funsor.tensor import Tensor

from sumout.errors import GraphError
from sumout.terms.names import named_dims


def named_tensor(data: torch.Tensor, inputs: Sequence[str], dtype: int | str = "real") -> Any:
    """A funsor tensor whose leading dims are ``inputs``, those of size 1 included; the rest is event shape.

    ``dtype`` is "real", or the number of states of an integer-valued tensor.
    """
    sizes = OrderedDict((name, Bint[size]) for name, size in zip(inputs, data.shape, strict=False))
    return Tensor(data, sizes, dtype)


def tensor_to_funsor(
    data: torch.Tensor,
    dim_to_name: Mapping[int, str],
    event_dim: int = 0,
    order: Sequence[str] | None = None,
    dtype: int | str = "real",
) -> Any:
    """The named tensor of ``sumout.terms.to_funsor``."""
    if not 0 <= event_dim <= data.dim():
        raise GraphError(f"event_dim={event_dim} does not fit a tensor of shape {tuple(data.shape)}.")
    split = data.dim() - event_dim
    event_shape = data.shape[split:]
    sizes = named_dims(tuple(data.shape[:split]), dim_to_name)
    names = tuple(sizes)
    data = data.reshape(tuple(sizes.values()) + event_shape)
    if order is not None:
        unlisted = [name for name in names if name not in order]
        if unlisted:
            raise GraphError(f"order={tuple(order)} leaves out {unlisted}, on which the tensor depends.")
        asked = tuple(name for name in order if name in sizes)
        event = range(len(names), data.dim())
        data, names = data.permute((*(names.index(name) for name in asked), *event)), asked
    return named_tensor(data, names, dtype)


def tensor_to_data(term: Any, name_to_dim: Mapping[str, int]) -> torch.Tensor:
    """The positional tensor of ``sumout.terms.to_data``."""
    missing = [name for name in term.inputs if name not in name_to_dim]
    if missing:
        raise GraphError(
            f"The term depends on {missing}, but name_to_dim={dict(name_to_dim)} has no dim for it."
        )
    rank = -min((name_to_dim[name] for name in term.inputs), default=0)
    names = sorted(term.inputs, key=lambda name: name_to_dim[name])
    positions = tuple(tuple(term.inputs).index(name) for name in names)
    data: torch.Tensor = term.data
    data = data.permute((*positions, *range(len(names), data.dim())))
    batch_shape = [1] * rank
    for name in names:
        batch_shape[name_to_dim[name]] = term.inputs[name].size
    return data.reshape((*batch_shape, *term.output.shape))
