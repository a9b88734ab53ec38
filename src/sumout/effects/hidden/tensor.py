"""The tensors that programs see where dimensions for enumerated values ran out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from sumout.effects.hidden.axes import merged
from sumout.effects.hidden.decisions import depends
from sumout.effects.hidden.rules import rule_for
from sumout.effects.hidden.value import Hidden

_SAME = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
_COPY = torch.ops.aten._to_copy.default
_CLONE = torch.ops.aten.clone.default


class HiddenTensor(Hidden):
    """All values of enumerated sites at once, with the shape of one.

    Functions of torch give for each combination of values what they give for one. Those that need to know the value
    itself raise.

    >>> import torch
    >>> from sumout.effects.hidden import Axis
    >>> z = HiddenTensor.of(torch.arange(3), (Axis(0, "z", 3),))
    >>> z.shape, (z + 1).raw, torch.eye(3)[z].raw[2]
    (torch.Size([]), tensor([1, 2, 3]), tensor([0., 0., 1.]))
    >>> z > 2
    <torch.bool of shape () for each value of z (3 values)>
    >>> bool(z > 1)
    Traceback (most recent call last):
    sumout.errors.ControlFlowError: Python decides on the value of enumerated site 'z' ...
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if len(types) > 1 and not all(map(_is_known, types)):
            return NotImplemented
        return rule_for(func)(cls.of, args, {} if kwargs is None else kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What comes from C code, past the rules: copies alone."""
        value = args[0] if args else None
        if isinstance(value, Hidden):
            if func is _COPY:
                return cls.of(func(value.raw, *args[1:], **(kwargs or {})), value.axes)
            if func in (*_SAME, _CLONE):
                raw: Tensor = value.raw
                return cls.of(raw.clone() if func is _CLONE else raw.detach(), value.axes)
        leaves, _ = tree_flatten((args, kwargs))
        raise depends(merged(leaf.axes for leaf in leaves if isinstance(leaf, Hidden)), func)


def _is_known(kind: type) -> bool:
    """Whether tensors of a type stand for their numbers; those with rules of their own may stand for something else."""
    return issubclass(kind, Hidden) or kind.__torch_function__ in _PLAIN  # type: ignore[attr-defined]


_PLAIN = (Tensor.__torch_function__, torch._C._disabled_torch_function_impl)


def hidden(raw: Tensor, axes: Any) -> Tensor:
    """The value whose first dimensions are ``axes``; without any, the tensor itself."""
    return HiddenTensor.of(raw, axes) if axes else raw
