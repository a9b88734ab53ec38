"""Sites that couple the elements of plates: their batch dimensions on the right become part of the event.

Dimensions of plates are counted from the right, so those that become part of the event leave dimensions of size
one behind, and plates further left stay where they are. With two coupled dimensions:
batch ``(5, 4, 3)``, event ``(2,)`` becomes batch ``(5, 1, 1)``, event ``(4, 3, 2)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from sumout.distributions import TorchDistribution, constraints
from sumout.effects.handlers import block_plate


class OnesRight(TorchDistribution):  # type: ignore[misc]
    """A distribution with so many batch dimensions of size one added on the right.

    >>> import sumout.distributions as dist
    >>> fn = OnesRight(dist.Normal(torch.zeros(5, 4), 1.0).to_event(1), 2)
    >>> fn.batch_shape, fn.event_shape, fn.sample().shape
    (torch.Size([5, 1, 1]), torch.Size([4]), torch.Size([5, 1, 1, 4]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (as torch declares it)

    def __init__(self, base_dist: Any, ones: int) -> None:
        self.base_dist = base_dist
        self.ones = ones
        self.has_rsample = base_dist.has_rsample
        batch_shape = base_dist.batch_shape + (1,) * ones
        super().__init__(batch_shape, base_dist.event_shape, validate_args=False)

    @constraints.dependent_property  # type: ignore[untyped-decorator]
    def support(self) -> Any:
        return self.base_dist.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> OnesRight:
        """The same for a larger batch; the dimensions of size one stay."""
        left = torch.Size(batch_shape)[: len(batch_shape) - self.ones]
        return OnesRight(self.base_dist.expand(left), self.ones)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  (immutable)
        return with_ones(self.base_dist.rsample(sample_shape), self.ones, self.event_dim)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  (immutable)
        return with_ones(self.base_dist.sample(sample_shape), self.ones, self.event_dim)

    def log_prob(self, value: Tensor) -> Tensor:
        return with_ones(
            self.base_dist.log_prob(without_ones(value, self.ones, self.event_dim)), self.ones, 0
        )


def with_ones(value: Tensor, ones: int, event_dim: int) -> Tensor:
    """``value`` with dimensions of size one between its batch and its event.

    >>> with_ones(torch.zeros(5, 4), 2, 1).shape
    torch.Size([5, 1, 1, 4])
    """
    rank = value.dim() - event_dim
    return value.reshape(value.shape[:rank] + (1,) * ones + value.shape[rank:])


def without_ones(value: Tensor, ones: int, event_dim: int) -> Tensor:
    """The inverse of ``with_ones``.

    >>> without_ones(torch.zeros(5, 1, 1, 4), 2, 1).shape
    torch.Size([5, 4])
    """
    rank = value.dim() - event_dim
    return value.reshape(value.shape[: rank - ones] + value.shape[rank:])


@contextmanager
def plates_muted(dims: int) -> Iterator[None]:
    """Steps out of the plates at so many dimensions from the right.

    >>> import sumout
    >>> with sumout.plate("data", 3, dim=-1), plates_muted(1):
    ...     sumout.sample("x", sumout.distributions.Normal(0.0, 1.0)).shape
    torch.Size([])
    """
    with ExitStack() as stack:
        for dim in range(-dims, 0):
            stack.enter_context(block_plate(dim=dim, strict=False))
        yield
