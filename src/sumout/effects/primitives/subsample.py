"""The statement ``subsample``."""

from __future__ import annotations

from torch import Tensor

from sumout.effects.stack import effectful
from sumout.errors import ModelError


@effectful(type="subsample")
def _subsample(data: Tensor, *, event_dim: int) -> Tensor:
    return data  # the plates around it cut it down


def subsample(data: Tensor, event_dim: int) -> Tensor:
    """The part of the data that the subsampling plates around look at.

    Args:
        data: shape ``batch_shape + event_shape``; along a plate's dimension it has the plate's full size, or
            one.
        event_dim: the length of ``event_shape``.

    Returns:
        The data with the subsample's size along the dimension of each plate around.

    Raises:
        ModelError: if ``event_dim`` is not a natural number.
        PlateError: if the data have neither the plate's full size nor one along its dimension.

    >>> import torch
    >>> from sumout.effects.primitives.plate import plate
    >>> with plate("data", 4, subsample=torch.tensor([0, 3])):
    ...     subsample(torch.arange(4), event_dim=0)
    tensor([0, 3])
    """
    if not isinstance(event_dim, int) or event_dim < 0:
        raise ModelError(f"subsample has event_dim={event_dim!r}; it counts dimensions, so it is 0, 1, ...")
    part: Tensor = _subsample(data, event_dim=event_dim)
    return part
