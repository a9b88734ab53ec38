"""A tensor with one value for each combination of values of some enumerated sites, which it shows as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from sumout.effects.hidden.axes import Axes
from sumout.errors import EnumerationError

Self = TypeVar("Self", bound="Hidden")
Make = Callable[[Tensor, Axes], "Hidden"]


class Hidden(Tensor):
    """The shape is that of one value; ``raw`` holds them all, with the dimensions of ``axes`` in front.

    What functions make of it is said by the subclass ``HiddenTensor``.
    """

    raw: Tensor
    axes: Axes

    @classmethod
    def of(cls: type[Self], raw: Tensor, axes: Axes) -> Self:
        """The value whose first dimensions are ``axes``."""
        new: Self = Tensor._make_wrapper_subclass(
            cls, raw.shape[len(axes) :], dtype=raw.dtype, device=raw.device, requires_grad=raw.requires_grad
        )
        new.raw, new.axes = raw, axes
        return new

    @property
    def visible_rank(self) -> int:
        """The number of dimensions of one value."""
        return self.raw.dim() - len(self.axes)

    @property
    def visible_shape(self) -> Sequence[int]:
        """The shape of one value."""
        return self.raw.shape[len(self.axes) :]

    def spread(self, axes: Axes, rank: int) -> Tensor:
        """All values along ``axes``, with size one along those that these do not vary along, and ``rank`` others."""
        raw, own = self.raw, self.axes
        if own == axes:
            if raw.dim() == len(axes) + rank:
                return raw
            shape = [*raw.shape[: len(axes)], *[1] * (len(axes) + rank - raw.dim()), *raw.shape[len(axes) :]]
        else:
            visible = raw.shape[len(own) :]
            sizes = [axis.size if axis in own else 1 for axis in axes]
            shape = [*sizes, *[1] * (rank - len(visible)), *visible]
        return raw.reshape(shape)

    def one(self) -> Tensor:
        """One of the values: what it is but for numbers."""
        return self.raw[(0,) * len(self.axes)] if self.axes else self.raw


def check_history(value: Tensor) -> None:
    """Refuses values that torch's C code connected with others behind the back of these rules.

    Raises:
        EnumerationError: for what a ``torch.autograd.Function`` made.
    """
    with torch._C.DisableTorchFunctionSubclass():
        if value.grad_fn is not None:
            raise EnumerationError(
                f"A value of enumerated sites went through {value.grad_fn.name()}, a torch.autograd.Function, whose "
                "gradient is not known for all values at once. Write it in torch's own functions, or enumerate the "
                "sites sequentially: infer={'enumerate': 'sequential'}."
            )
