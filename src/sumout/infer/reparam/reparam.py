"""What every reparameterizer is, and what most of them return."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import innermost, is_distribution
from sumout.errors import ModelError


class ReparamMessage(TypedDict):
    """The site that is to be reparameterized; ``value`` is observed, or set by a handler, or ``None``."""

    name: str
    fn: Any
    value: Tensor | None
    is_observed: bool


class ReparamResult(TypedDict):
    """What becomes of the site."""

    fn: Any
    value: Tensor | None
    is_observed: bool


class _Inputs(threading.local):
    args_kwargs: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Inputs, ()  # a copy is not at work


class Reparam:
    """Base of all reparameterizers; a subclass defines ``apply``.

    >>> import sumout
    >>> class ScaleReparam(Reparam):
    ...     '''A normal site centred at zero as its scale times standard noise.'''
    ...     def apply(self, msg):
    ...         fn, event_dim = self._unwrap(msg["fn"])
    ...         noise = self._wrap(dist.Normal(torch.zeros_like(fn.loc), 1.0), event_dim)
    ...         value = fn.scale * sumout.sample(msg["name"] + "_noise", noise)
    ...         return determined(value, event_dim)
    >>> @sumout.poutine.reparam(config={"x": ScaleReparam()})
    ... def model():
    ...     return sumout.sample("x", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    >>> sumout.poutine.trace(model).get_trace().nodes["x_noise"]["fn"].event_shape
    torch.Size([3])
    """

    @property
    def args_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """What the handled function was called with in this thread; ``None`` in a ``with`` block."""
        inputs: _Inputs = vars(self).setdefault("_inputs", _Inputs())
        return inputs.args_kwargs

    @args_kwargs.setter
    def args_kwargs(self, args_kwargs: tuple[tuple[Any, ...], dict[str, Any]] | None) -> None:
        vars(self).setdefault("_inputs", _Inputs()).args_kwargs = args_kwargs

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        """Makes the auxiliary sites and returns what becomes of the site itself.

        By default it calls ``self(name, fn, value)``, as reparameterizers were first written, which returns the
        new ``fn`` and value.
        """
        warnings.warn(
            f"{type(self).__name__} defines __call__(name, fn, obs), the old form of a reparameterizer. "
            "Define apply(msg).",
            DeprecationWarning,
            stacklevel=2,
        )
        legacy: Callable[..., tuple[Any, Tensor | None]] = self  # type: ignore[assignment]
        fn, value = legacy(msg["name"], msg["fn"], msg["value"])
        is_new = msg["value"] is None and value is not None
        return {"fn": fn, "value": value, "is_observed": msg["is_observed"] or is_new}

    def _unwrap(self, fn: Any) -> tuple[Any, int]:
        """The distribution whose batch was reinterpreted as events, and how many event dimensions it had."""
        event_dim: int = fn.event_dim
        while isinstance(fn, torch.distributions.Independent):
            fn = fn.base_dist
        return fn, event_dim

    def _wrap(self, fn: Any, event_dim: int) -> Any:
        """``fn`` with so many event dimensions, taken of its batch."""
        return fn.to_event(event_dim - fn.event_dim) if fn.event_dim < event_dim else fn

    def _misfit(self, msg: ReparamMessage, rule: str, remedy: str) -> ModelError:
        """The error that the site's distribution is not one that this reparameterizer treats."""
        found = type(innermost(msg["fn"]) if is_distribution(msg["fn"]) else msg["fn"]).__name__
        return ModelError(
            f"{type(self).__name__} does not fit site {msg['name']!r}, which is {found}: {rule}. {remedy}"
        )

    def _must_be_latent(self, msg: ReparamMessage) -> None:
        if msg["is_observed"]:
            raise ModelError(
                f"{type(self).__name__} cannot treat the observed site {msg['name']!r}: which of the auxiliary values "
                "gave it is not known. Leave the site out of reparam's config, or choose another reparameterizer."
            )


def determined(value: Tensor, event_dim: int, log_density: Tensor | None = None) -> ReparamResult:
    """The result of a reparameterizer where the auxiliary sites, or data, determine the site's value.

    Args:
        value: the value.
        event_dim: how many event dimensions the site has.
        log_density: of batch shape, what the site adds to the log-probability; by default nothing.

    >>> result = determined(torch.ones(3, 2), 1)
    >>> result["is_observed"], result["fn"].batch_shape, result["fn"].log_prob(torch.ones(3, 2))
    (True, torch.Size([3]), tensor([0., 0., 0.]))
    """
    if log_density is None:
        fn = dist.Delta(value, event_dim=event_dim).mask(False)
    else:
        rank = value.dim() - event_dim
        batch_shape = np.broadcast_shapes(value.shape[:rank], log_density.shape)
        point = value if value.shape[:rank] == batch_shape else value.expand(batch_shape + value.shape[rank:])
        fn = dist.Delta(point, log_density.expand(batch_shape), event_dim=event_dim)
    return {"fn": fn, "value": value, "is_observed": True}


def sum_rightmost(value: Tensor, dims: int) -> Tensor:
    """The sum over so many dimensions from the right.

    >>> sum_rightmost(torch.ones(2, 3), 1)
    tensor([3., 3.])
    """
    return value.sum(tuple(range(-dims, 0))) if dims else value
