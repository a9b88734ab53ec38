"""The statement ``sample``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sumout.distributions import Delta
from sumout.effects.handlers.mask import MaskMessenger
from sumout.effects.handlers.plate import PlateMessenger
from sumout.effects.message import Message
from sumout.effects.stack import apply_stack, state
from sumout.errors import ModelError


def sample(
    name: str,
    fn: Any,
    *args: Any,
    obs: Any = None,
    obs_mask: Tensor | bool | None = None,
    infer: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Draws a random value, or observes one; handlers around it may record, replace or enumerate the value.

    Args:
        name: the site, unique in a program's run.
        fn: a distribution, or another function that draws; called with ``args`` and ``kwargs``.
        obs: the observed value, shape ``fn.batch_shape + fn.event_shape`` or one that broadcasts with it.
        obs_mask: true where ``obs`` is data; elsewhere a value is drawn. Of a shape that broadcasts with
            ``fn.batch_shape``. The site is then split in two, ``<name>_observed`` and ``<name>_unobserved``.
        infer: what is asked of inference at this site, e.g. ``{"enumerate": "parallel"}``.

    Returns:
        The value: a tensor of shape ``fn.batch_shape + fn.event_shape`` unless a handler gives another one.

    Raises:
        ModelError: if ``fn`` cannot be called or ``obs_mask`` does not broadcast.

    >>> import sumout.distributions as dist
    >>> sample("z", dist.Normal(torch.zeros(3), 1.0)).shape
    torch.Size([3])
    """
    if obs_mask is not None:
        return _sample_partly_observed(name, fn, args, kwargs, obs, torch.as_tensor(obs_mask), infer)
    if infer is None:
        infer, is_observed = {}, obs is not None
    else:
        infer = infer.copy()
        is_observed = infer.pop("is_observed", obs is not None)
    if not callable(fn):
        raise ModelError(
            f"Site {name!r} samples from {type(fn).__module__}.{type(fn).__name__}, which cannot be called. "
            f"Use the distribution of the same name in sumout.distributions."
        )
    if not state.stack:
        if obs is None:
            return fn(*args, **kwargs)
        if not infer.get("_deterministic"):
            warnings.warn(
                f"trying to observe a value outside of inference at {name}", RuntimeWarning, stacklevel=2
            )
        return obs
    msg = Message.sent("sample", name, fn, args, kwargs, obs, is_observed, infer)
    apply_stack(msg)
    return msg.value


def _sample_partly_observed(
    name: str,
    fn: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    obs: Any,
    obs_mask: Tensor,
    infer: dict[str, Any] | None,
) -> Tensor:
    fn = _expanded(name, fn, obs_mask)
    with MaskMessenger(mask=obs_mask):
        observed = sample(f"{name}_observed", fn, *args, obs=obs, infer=infer, **kwargs)
    with MaskMessenger(mask=~obs_mask):
        unobserved = sample(f"{name}_unobserved", fn, *args, infer=infer, **kwargs)
    value = torch.where(obs_mask.reshape(obs_mask.shape + (1,) * fn.event_dim), observed, unobserved)
    both = Delta(value, event_dim=fn.event_dim).mask(False)
    recorded: Tensor = sample(name, both, obs=value, infer={"_deterministic": True})
    return recorded


def _expanded(name: str, fn: Any, obs_mask: Tensor) -> Any:
    """The distribution with an element for each of the mask, except along plates, which do that themselves."""
    own = tuple(fn.batch_shape)
    try:
        wanted = np.broadcast_shapes(obs_mask.shape, own)
    except ValueError as error:
        raise ModelError(
            f"Site {name!r} has obs_mask of shape {tuple(obs_mask.shape)}; it must broadcast with the batch "
            f"shape {own}."
        ) from error
    if wanted == own:
        return fn
    plates = {frame.dim for frame in state.stack if isinstance(frame, PlateMessenger) and frame.size > 0}
    own = (1,) * (len(wanted) - len(own)) + own
    dims = range(-len(wanted), 0)
    shape = [own[dim] if dim in plates else wanted[dim] for dim in dims]
    return fn if shape == list(own) else fn.expand(shape)
