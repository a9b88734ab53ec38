"""Stable variables by noise whose density is known."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.effects.primitives.sample import sample
from sumout.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult, determined
from sumout.infer.reparam.stable_noise import HALF_PI, log_positive_stable, skew_shift, standard_stable
from sumout.settings import settings


class _StableFamily(Reparam):
    """What the reparameterizers of stable sites have in common."""

    def _stable(self, msg: ReparamMessage) -> tuple[Any, int]:
        fn, event_dim = self._unwrap(msg["fn"])
        if not isinstance(fn, dist.Stable):
            raise self._misfit(msg, "it is not Stable", "Leave the site out of reparam's config.")
        if isinstance(fn, dist.StableWithLogProb):
            raise self._misfit(msg, "which says that its own density is to be used", "Make it Stable.")
        if fn.coords != "S0":
            raise self._misfit(
                msg,
                f"it has coords={fn.coords!r}, which are not continuous in the parameters",
                "Use Stable with coords='S0' and loc + scale * skew * tan(pi * stability / 2) for loc.",
            )
        return fn, event_dim

    def _noise(self, name: str, fn: Any, event_dim: int) -> tuple[Tensor, Tensor]:
        """The sites ``<name>_uniform`` and ``<name>_exponential``."""
        ones = torch.ones_like(fn.stability)
        uniform = sample(
            f"{name}_uniform", self._wrap(dist.Uniform(-HALF_PI * ones, HALF_PI * ones), event_dim)
        )
        exponential = sample(f"{name}_exponential", self._wrap(dist.Exponential(ones), event_dim))
        return uniform, exponential

    def _normal(self, loc: Tensor, scale: Tensor, log_s: Tensor, event_dim: int) -> Any:
        """``Normal(loc, scale * sqrt(2 s))``."""
        scale = (scale * (log_s / 2).exp()).clamp(min=torch.finfo(log_s.dtype).tiny)
        return self._wrap(dist.Normal(loc, math.sqrt(2.0) * scale), event_dim)


class LatentStableReparam(_StableFamily):
    """Writes ``x ~ Stable(...)`` as a function of noise without parameters: of ``x_uniform`` on (-pi/2, pi/2) and
    ``x_exponential`` of rate one, by the method of Chambers, Mallows, Stuck (1976), "A Method for Simulating Stable
    Random Variables".

    For latent sites only, as two noise values lead to one ``x``; for observed ones see ``StableReparam``.

    Raises:
        ModelError: when the program runs, if the site is not ``Stable`` with ``coords="S0"``, or observed.

    >>> import sumout
    >>> @sumout.poutine.reparam(config={"x": LatentStableReparam()})
    ... def model():
    ...     return sumout.sample("x", dist.Stable(torch.tensor(1.5), 0.3))
    >>> sumout.poutine.trace(model).get_trace().stochastic_nodes
    ['x_uniform', 'x_exponential']
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        fn, event_dim = self._stable(msg)
        self._must_be_latent(msg)
        standard = standard_stable(fn.stability, fn.skew, *self._noise(msg["name"], fn, event_dim))
        return determined(fn.loc + fn.scale * standard, event_dim)


class SymmetricStableReparam(_StableFamily):
    """Writes a stable ``x`` without skew as a scale mixture of normals, ``x ~ Normal(loc, scale * sqrt(2 s))``,
    where ``s`` is the positive stable variable of index ``stability / 2``, a function of noise without parameters
    (``x_uniform``, ``x_exponential``).

    Samorodnitsky, Taqqu (1994), "Stable Non-Gaussian Random Processes", proposition 1.3.1; Kanter (1975), "Stable
    Densities Under Change of Scale and Total Variation Inequalities". It treats latent and observed sites.

    Raises:
        ModelError: when the program runs, if the site is not ``Stable`` with ``coords="S0"``; under validation, if
            it is skewed.

    >>> import sumout
    >>> @sumout.poutine.reparam(config={"x": SymmetricStableReparam()})
    ... def model():
    ...     return sumout.sample("x", dist.Stable(torch.tensor(1.5), 0.0), obs=torch.tensor(2.0))
    >>> type(sumout.poutine.trace(model).get_trace().nodes["x"]["fn"]).__name__
    'Normal'
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        fn, event_dim = self._stable(msg)
        if settings.validation and bool((fn.skew != 0).any()):
            raise self._misfit(msg, "its skew is not zero everywhere", "Use StableReparam.")
        log_s = log_positive_stable(fn.stability / 2, *self._noise(msg["name"], fn, event_dim))
        normal = self._normal(fn.loc, fn.scale, log_s, event_dim)
        return {"fn": normal, "value": msg["value"], "is_observed": msg["is_observed"]}


class StableReparam(_StableFamily):
    """Writes any stable ``x`` as the sum of a symmetric and a totally skewed stable variable of the same stability,
    with the scales ``(1 - |skew|)**(1 / stability)`` and ``|skew|**(1 / stability)`` times its own: the former
    as in ``SymmetricStableReparam`` (noise ``x_z_uniform``, ``x_z_exponential``), the latter as in
    ``LatentStableReparam`` (``x_t_uniform``, ``x_t_exponential``). Given the noise ``x`` is normal.

    Zolotarev (1986), "One-dimensional Stable Distributions", property 2.3.a. It treats latent and observed sites.

    Raises:
        ModelError: when the program runs, if the site is not ``Stable`` with ``coords="S0"``.

    >>> import sumout
    >>> @sumout.poutine.reparam(config={"x": StableReparam()})
    ... def model():
    ...     return sumout.sample("x", dist.Stable(torch.tensor(1.5), 0.3), obs=torch.tensor(2.0))
    >>> sumout.poutine.trace(model).get_trace().stochastic_nodes
    ['x_z_uniform', 'x_z_exponential', 'x_t_uniform', 'x_t_exponential']
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name = msg["name"]
        fn, event_dim = self._stable(msg)
        stability, scale = fn.stability, fn.scale
        log_s = log_positive_stable(stability / 2, *self._noise(f"{name}_z", fn, event_dim))
        total = standard_stable(
            stability, torch.ones_like(stability), *self._noise(f"{name}_t", fn, event_dim)
        )
        # Both parts stay, however small, so that gradients exist at skew 0 and at full skew.
        eps = torch.finfo(stability.dtype).eps
        share = fn.skew.abs().clamp(min=eps, max=1 - eps)
        sign = torch.ones_like(share).copysign(fn.skew)
        skewed = sign * (share ** (1 / stability) * total) + skew_shift(stability, sign * share)
        symmetric_scale = scale * (1 - share) ** (1 / stability)
        normal = self._normal(fn.loc + scale * skewed, symmetric_scale, log_s, event_dim)
        return {"fn": normal, "value": msg["value"], "is_observed": msg["is_observed"]}
