"""PyTorch's function transforms (``torch.func``): what is recorded in another way under them, and what is not."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad


def transformed(tables: Iterable[Tensor]) -> bool:
    """Whether some tables are seen through ``torch.func.grad``, ``jacrev``, ``jvp`` or the like, or operations
    recorded.

    These, and ``torch.jit.trace``, do not look into an ``autograd.Function`` of the older form: each operation is then
    recorded by itself.

    >>> def f(x):
    ...     print(transformed([x]))
    ...     return x.sum()
    >>> _ = f(torch.ones(2)), torch.func.grad(f)(torch.ones(2))
    False
    True
    """
    recorded = torch._C._get_tracing_state() is not None
    return recorded or any(_functorch.is_functorch_wrapped_tensor(table) for table in tables)


def forward_derivatives() -> bool:
    """Whether tensors may have tangents (forward-mode differentiation)."""
    return bool(forward_ad._current_level >= 0)


def in_vmap() -> bool:
    """Whether a function is being mapped over a dimension that its tensors do not show.

    >>> torch.vmap(lambda x: x + in_vmap())(torch.zeros(2))
    tensor([1., 1.])
    """
    stack = _functorch.get_interpreter_stack()
    return stack is not None and any(each.key() == _functorch.TransformType.Vmap for each in stack)
