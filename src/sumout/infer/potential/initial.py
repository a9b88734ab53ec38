"""Where a chain begins: functions of a latent site that give its first value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sumout.distributions import biject_to
from sumout.effects import Message
from sumout.errors import ModelError

Init = Callable[[Message], Tensor]
"""Gives a constrained value for a latent site, of the shape that it would draw."""


def init_to_uniform(site: Message | None = None, radius: float = 2.0) -> Any:
    """Uniform within ``radius`` of zero after the site is unconstrained.

    Called without a site it gives a strategy, as all of these do: ``init_to_uniform(radius=0.1)``.

    >>> import sumout.distributions as dist
    >>> site = Message(type="sample", name="rate", fn=dist.Gamma(2.0, 1.0))
    >>> bool(0.13 < init_to_uniform(site) < 7.4)  # exp(-2), exp(2)
    True
    """
    if site is None:
        return partial(init_to_uniform, radius=radius)
    transform = biject_to(site.fn.support)
    like = transform.inv(site.fn.sample())
    return transform(torch.empty_like(like).uniform_(-radius, radius))


def init_to_sample(site: Message | None = None) -> Any:
    """A draw from the prior.

    >>> import sumout.distributions as dist
    >>> init_to_sample(Message(type="sample", name="z", fn=dist.Delta(torch.tensor(3.0))))
    tensor(3.)
    """
    return init_to_sample if site is None else site.fn.sample()


def init_to_median(site: Message | None = None, num_samples: int = 15) -> Any:
    """The median of some draws from the prior, taken of each unconstrained number by itself.

    >>> import sumout.distributions as dist
    >>> site = Message(type="sample", name="z", fn=dist.Normal(100.0, 1.0))
    >>> bool((init_to_median(site, num_samples=1001) - 100).abs() < 0.5)
    True
    """
    if site is None:
        return partial(init_to_median, num_samples=num_samples)
    transform = biject_to(site.fn.support)
    draws = torch.stack([site.fn.sample() for _ in range(num_samples)])
    return transform(transform.inv(draws).median(0).values)


def init_to_value(
    site: Message | None = None,
    values: Mapping[str, Any] | None = None,
    fallback: Init = init_to_uniform,
) -> Any:
    """Given values by name of site, constrained.

    Args:
        site: a latent site; without it a strategy is given.
        values: numbers or tensors that can be expanded to the site's shape.
        fallback: the strategy for other sites.

    Raises:
        ModelError: if a value has another shape or lies outside of the site's support.

    >>> import sumout.distributions as dist
    >>> init_to_value(values={"z": 2.0})(Message(type="sample", name="z", fn=dist.Normal(torch.zeros(2), 1.0)))
    tensor([2., 2.])
    """
    values = {} if values is None else values
    if site is None:
        return partial(init_to_value, values=values, fallback=fallback)
    if site.name is None or site.name not in values:
        return fallback(site)
    like: Tensor = site.fn.sample()
    value = torch.as_tensor(values[site.name], dtype=like.dtype, device=like.device)
    try:
        value = value.expand(like.shape)
    except RuntimeError:
        raise ModelError(
            f"Site {site.name!r} has shape {tuple(like.shape)} and is to begin at a value of shape "
            f"{tuple(value.shape)}."
        ) from None
    if not bool(site.fn.support.check(value).all()):
        raise ModelError(
            f"Site {site.name!r} is to begin at {value}, outside of its support {site.fn.support}. Give the "
            "constrained value."
        )
    return value.clone()
