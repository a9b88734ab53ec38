"""The statement ``param``, and the store behind it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sumout.distributions import constraints
from sumout.effects.message import Message
from sumout.effects.params import Init, ParamStore
from sumout.effects.stack import apply_stack, state


def _stored(name: str, init_tensor: Init | None = None, *, constraint: Any, event_dim: int | None) -> Tensor:
    return state.params.get_param(name, init_tensor, constraint, event_dim)


def param(
    name: str,
    init_tensor: Init | None = None,
    constraint: Any = constraints.real,
    event_dim: int | None = None,
) -> Tensor:
    """A parameter, which keeps its value from run to run and is changed by optimizers.

    Args:
        name: the parameter.
        init_tensor: its first value, or a function that makes it; not looked at when the parameter exists.
        constraint: the set that its values lie in.
        event_dim: how many of its rightmost dimensions are no batch dimensions. Where it is given, a plate
            around checks the batch dimensions against its size, and cuts them down to its subsample.

    Returns:
        The value, a differentiable function of the leaf tensor ``param(...).unconstrained()``.

    Raises:
        KeyError: if there is no such parameter yet and no ``init_tensor``.
        ModelError: if ``init_tensor`` lies outside of the constraint.

    >>> import torch
    >>> with get_param_store().scope():
    ...     param("rate", torch.tensor(2.0), constraints.positive).item()
    2.0
    """
    args: tuple[Any, ...] = (name,) if init_tensor is None else (name, init_tensor)
    if not state.stack:
        return _stored(*args, constraint=constraint, event_dim=event_dim)
    kwargs = {"constraint": constraint, "event_dim": event_dim}
    msg = Message.sent("param", name, _stored, args, kwargs, None, False, {})
    apply_stack(msg)
    value: Tensor = msg.value
    return value


def get_param_store() -> ParamStore:
    """The store that ``param`` reads and writes.

    >>> list(get_param_store())
    []
    """
    return state.params


def clear_param_store() -> None:
    """Forgets all parameters, as at the start of an independent training run.

    >>> clear_param_store()
    """
    state.params.clear()
