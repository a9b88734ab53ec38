"""`to_funsor` and `to_data`: between positional torch objects and named terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from funsor.tensor import Tensor
from funsor.terms import Number

from sumout.errors import GraphError
from sumout.terms.distributions import distribution_to_data, distribution_to_funsor
from sumout.terms.names import checked_dim_names, checked_name_dims
from sumout.terms.tensors import tensor_to_data, tensor_to_funsor


def to_funsor(
    x: Any,
    dim_to_name: Mapping[int, str],
    event_dim: int = 0,
    *,
    order: Sequence[str] | None = None,
    dtype: int | str = "real",
    value: str = "value",
) -> Any:
    """A tensor or a distribution as a term whose inputs are the named batch dims that it really depends on.

    ``dim_to_name`` maps negative batch dims (event dims not counted) to names; dims of size 1 are dropped.
    A tensor becomes a ``funsor.tensor.Tensor`` with inputs in positional order, or in ``order``; its last
    ``event_dim`` dims are the output's shape; ``dtype`` is "real" or the number of states of an integer
    tensor. A distribution becomes funsor's lazy one over an input named ``value``, its parameters named
    likewise and ``Independent`` dims made output dims; ``event_dim``, ``order`` and ``dtype`` are not for it.

    Raises `GraphError` when a batch dim above size 1 has no name, or funsor knows no such family.

    >>> log_prob = torch.zeros(2, 1, 3)
    >>> dict(to_funsor(log_prob, {-3: "z", -2: "docs", -1: "words"}).inputs)
    {'z': Bint[2], 'words': Bint[3]}
    """
    checked_dim_names(dim_to_name)
    if isinstance(x, torch.distributions.Distribution):
        if event_dim or order is not None or dtype != "real":
            raise GraphError("event_dim, order and dtype are for tensors only.")
        return distribution_to_funsor(x, dim_to_name, value)
    if isinstance(x, (bool, int, float)):
        x = _scalar(x, dtype)
    if not isinstance(x, torch.Tensor):
        raise GraphError(f"Only tensors and distributions become terms, not {type(x).__name__}.")
    return tensor_to_funsor(x, dim_to_name, event_dim, order, dtype)


def to_data(term: Any, name_to_dim: Mapping[str, int]) -> Any:
    """The torch tensor or distribution of a term, each input at its batch dim; the inverse of `to_funsor`.

    Dims without a name have size 1; the batch shape is as long as the leftmost used dim asks for.
    Raises `GraphError` when an input has no dim, or the term has no torch counterpart.

    >>> term = to_funsor(torch.zeros(2, 1, 3), {-3: "z", -1: "words"})
    >>> to_data(term, {"z": -1, "words": -3}).shape
    torch.Size([3, 1, 2])
    """
    checked_name_dims(name_to_dim)
    if isinstance(term, Number):
        return _scalar(term.data, term.dtype)
    if isinstance(term, Tensor):
        return tensor_to_data(term, name_to_dim)
    return distribution_to_data(term, name_to_dim)


def _scalar(number: float, dtype: int | str) -> torch.Tensor:
    return torch.tensor(number, dtype=torch.get_default_dtype() if dtype == "real" else torch.long)
