"""The statement ``deterministic``."""

from __future__ import annotations

from torch import Tensor

from sumout.distributions import Delta
from sumout.effects.primitives.sample import sample


def deterministic(name: str, value: Tensor, event_dim: int | None = None) -> Tensor:
    """Records a value that other sites determine; it has no part in the density.

    Args:
        name: the site.
        value: its value.
        event_dim: how many of the value's rightmost dimensions are no batch dimensions; by default all.

    Returns:
        The value.

    >>> import torch
    >>> deterministic("twice", 2 * torch.tensor([1.0, 2.0]))
    tensor([2., 4.])
    """
    event_dim = value.ndim if event_dim is None else event_dim
    fn = Delta(value, event_dim=event_dim).mask(False)
    recorded: Tensor = sample(name, fn, obs=value, infer={"_deterministic": True})
    return recorded
