"""Moving location and scale out of a site's distribution, in part or in full."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

import sumout.distributions as dist
from sumout.effects import get_mask
from sumout.effects.primitives.param import param
from sumout.effects.primitives.sample import sample
from sumout.errors import ModelError
from sumout.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult, determined, sum_rightmost
from sumout.settings import settings

constraints = dist.constraints


def has_real_support(fn: Any) -> bool:
    """Whether the values of a distribution are all real tensors of its shape.

    >>> has_real_support(dist.Normal(0.0, 1.0)), has_real_support(dist.LogNormal(0.0, 1.0))
    (True, False)
    """
    support = fn.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return bool(support == constraints.real)


@functools.cache
def _made_with(family: Any) -> tuple[str, ...]:
    """The names of the arguments that distributions of a family are made with, but location and scale."""
    others = ("self", "loc", "scale", "validate_args")
    return tuple(name for name in inspect.signature(family.__init__).parameters if name not in others)


class LocScaleReparam(Reparam):
    """Writes ``x ~ F(loc, scale)``, for a location-scale family ``F``, by a site with some of ``loc`` and ``scale``:
    with ``c = centered``::

        x_decentered ~ F(c * loc, scale**c),    x = loc + scale**(1 - c) * (x_decentered - c * loc)

    Gorinova, Moore, Hoffman (2019), "Automatic Reparameterisation of Probabilistic Programs", section 4.1. The best
    centering depends on how much the data say of ``x``. Where it is learned, it is the parameter ``x_centered``.

    The density of an observed site is kept too: the Jacobian stands in the site itself.

    Args:
        centered: a number in [0, 1], or a tensor of such that broadcasts with ``loc``: 0 decenters fully, 1 changes
            nothing. By default it is learned for each element of an event, from 0.5 on.
        shape_params: names of further parameters of the family, which are left as they are; by default all that it
            is made with.

    Raises:
        ModelError: if ``centered`` is none of these; when the program runs, if the site's family has no ``loc`` and
            ``scale`` or its values are not real.

    >>> import torch, sumout
    >>> @sumout.poutine.reparam(config={"x": LocScaleReparam(centered=0.0)})
    ... def model():
    ...     return sumout.sample("x", dist.Normal(torch.tensor(3.0), 2.0))
    >>> trace = sumout.poutine.trace(model).get_trace()
    >>> trace.nodes["x_decentered"]["fn"]
    Normal(loc: 0.0, scale: 1.0)
    >>> bool(trace.nodes["x"]["value"] == 3.0 + 2.0 * trace.nodes["x_decentered"]["value"])
    True
    """

    def __init__(
        self, centered: float | Tensor | None = None, shape_params: Sequence[str] | None = None
    ) -> None:
        if centered is not None and not isinstance(centered, (int, float, Tensor)):
            raise ModelError(
                f"LocScaleReparam has centered={centered!r}; it is a number in [0, 1], a tensor or None."
            )
        if isinstance(shape_params, str) or not all(isinstance(each, str) for each in shape_params or ()):
            raise ModelError(f"LocScaleReparam has shape_params={shape_params!r}; it is a list of names.")
        if settings.validation and centered is not None:
            inside = (centered >= 0) & (centered <= 1)
            if not (inside.all() if isinstance(inside, Tensor) else inside):
                raise ModelError(f"LocScaleReparam has centered={centered!r}; each element lies in [0, 1].")
        self.centered = centered
        self.shape_params = shape_params

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, value, is_observed = msg["name"], msg["value"], msg["is_observed"]
        centered = self.centered
        if isinstance(centered, (int, float)) and centered == 1:
            return {"fn": msg["fn"], "value": value, "is_observed": is_observed}
        fn, event_dim = self._unwrap(msg["fn"])
        self._check(msg, fn)
        loc, scale = fn.loc, fn.scale
        if centered is None:
            event_shape = msg["fn"].event_shape
            centered = param(
                f"{name}_centered",
                lambda: loc.new_full(event_shape, 0.5),
                constraint=constraints.unit_interval,
            )
        shape_params = {each: getattr(fn, each) for each in self._shape_params(fn)}
        decentered_fn = type(fn)(**shape_params, loc=centered * loc, scale=scale**centered)
        decentered = None
        if value is not None:
            decentered = centered * loc + (value - loc) * scale ** (centered - 1)
        decentered = sample(
            f"{name}_decentered",
            self._wrap(decentered_fn, event_dim),
            obs=decentered,
            infer={"is_observed": is_observed},
        )
        if value is None:
            value = loc + scale ** (1 - centered) * (decentered - centered * loc)
        log_density = None
        if is_observed and get_mask() is not False:
            log_density = sum_rightmost(((centered - 1) * scale.log()).expand(fn.batch_shape), event_dim)
        return determined(value, event_dim, log_density)

    def _shape_params(self, fn: Any) -> Iterable[str]:
        if self.shape_params is not None:
            return self.shape_params
        family: Any = type(fn)
        return [each for each in _made_with(family) if hasattr(fn, each)]

    def _check(self, msg: ReparamMessage, fn: Any) -> None:
        if not {"loc", "scale"} <= set(getattr(fn, "arg_constraints", ())):
            raise self._misfit(msg, "it has no loc and scale", "Leave the site out of reparam's config.")
        if not has_real_support(fn):
            raise self._misfit(
                msg,
                "it is no location-scale family, for its values are not all the reals",
                f"Use TransformReparam, then LocScaleReparam at '{msg['name']}_base'.",
            )
