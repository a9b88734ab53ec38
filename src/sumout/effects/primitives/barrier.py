"""The statement ``barrier``."""

from __future__ import annotations

from torch import Tensor

from sumout.effects.stack import effectful


@effectful(type="barrier")
def barrier(data: Tensor) -> Tensor:
    """The data as plain tensors, where a handler around works with lazy ones; nothing changes elsewhere.

    >>> import torch
    >>> barrier(torch.tensor(1.0))
    tensor(1.)
    """
    return data
