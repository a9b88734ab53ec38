"""Derivatives: of what was recorded, and PyTorch's function transforms (``torch.func``), under which that differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    if torch._C._get_tracing_state() is not None:
        return True
    return _functorch.get_interpreter_stack() is not None and any(
        _functorch.is_functorch_wrapped_tensor(table) for table in tables
    )


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


def derivatives(
    outputs: Sequence[Tensor], grads: Sequence[Tensor], tables: Sequence[Tensor], create_graph: bool
) -> list[Tensor | None]:
    """What comes back to each table from ``grads`` at the outputs; ``None`` for tables without a gradient.

    >>> x, y = torch.ones(2, requires_grad=True), torch.ones(2)
    >>> derivatives([(x * y).sum()], [torch.tensor(3.0)], [x, y], create_graph=False)
    [tensor([3., 3.]), None]
    """
    used = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
    found = iter(
        torch.autograd.grad(
            [out for out, _ in used],
            [table for table in tables if table.requires_grad],
            [grad for _, grad in used],
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    return [next(found) if table.requires_grad else None for table in tables]
