"""Choosing reparameterizers for a whole program, by the kinds of its sites."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch

import sumout.distributions as dist
from sumout.distributions.families import is_distribution
from sumout.effects.handlers import reparam
from sumout.effects.handlers.reparameterizer import choice
from sumout.errors import ModelError
from sumout.infer.reparam.loc_scale import LocScaleReparam, has_real_support
from sumout.infer.reparam.projected_normal import ProjectedNormalReparam
from sumout.infer.reparam.reparam import Reparam
from sumout.infer.reparam.softmax import GumbelSoftmaxReparam
from sumout.infer.reparam.stable import LatentStableReparam, StableReparam, SymmetricStableReparam
from sumout.infer.reparam.transform import TransformReparam


class Strategy(ABC):
    """Base of all strategies; a subclass defines ``configure``.

    ``config`` maps the names of the sites met so far to what was chosen for them, so that all runs choose alike. It
    may itself be given to ``reparam`` as the config.

    >>> class OnlyNormals(Strategy):
    ...     def configure(self, msg):
    ...         return LocScaleReparam(0.0) if type(msg["fn"]) is dist.Normal else None
    """

    def __init__(self) -> None:
        self.config: dict[str, Reparam | None] = {}

    @abstractmethod
    def configure(self, msg: Any) -> Reparam | None:
        """Chooses for a sample site that is met for the first time; auxiliary sites are asked about too."""

    def __call__(self, fn: Any) -> Any:
        """The program ``fn`` reparameterized: ``strategy(fn)`` is ``reparam(fn, config=strategy)``.

        Of a site, it gives what is chosen for it.
        """
        if isinstance(fn, Mapping):
            return choice(self, fn)  # type: ignore[arg-type]
        program: Callable[..., Any] = reparam(fn, config=self)
        return program


class MinimalReparam(Strategy):
    """Reparameterizes only sites that inference cannot treat otherwise: those of ``Stable``, whose density is slow to
    compute, and latent ones of ``ProjectedNormal``, whose values lie on a sphere.

    >>> import sumout
    >>> @MinimalReparam()
    ... def model():
    ...     sumout.sample("z", dist.Normal(0.0, 1.0))
    ...     sumout.sample("x", dist.Stable(torch.tensor(1.5), 0.0), obs=torch.tensor(2.0))
    >>> sumout.poutine.trace(model).get_trace().stochastic_nodes
    ['z', 'x_uniform', 'x_exponential']
    """

    def configure(self, msg: Any) -> Reparam | None:
        return _minimal(msg["fn"], msg["is_observed"])


class AutoReparam(Strategy):
    """Reparameterizes all latent sites for which there is a common good choice: transformed distributions by
    ``TransformReparam``, ``RelaxedOneHotCategorical`` by ``GumbelSoftmaxReparam``, location-scale families with real
    values by ``LocScaleReparam``, and for the rest what ``MinimalReparam`` chooses.

    What it chooses may change between versions; keep its ``config`` to keep a choice.

    Args:
        centered: for ``LocScaleReparam``: a number in [0, 1], or None to learn it.

    Raises:
        ModelError: if ``centered`` is neither.

    >>> import sumout
    >>> strategy = AutoReparam(centered=0.0)
    >>> @strategy
    ... def model():
    ...     sumout.sample("x", dist.LogNormal(3.0, 2.0))
    >>> sumout.poutine.trace(model).get_trace().stochastic_nodes
    ['x_base_decentered']
    >>> {name: type(each).__name__ for name, each in strategy.config.items()}
    {'x': 'TransformReparam', 'x_base': 'LocScaleReparam', 'x_base_decentered': 'NoneType'}
    """

    def __init__(self, *, centered: float | None = None) -> None:
        if centered is not None and not isinstance(centered, (int, float)):
            raise ModelError(f"AutoReparam has centered={centered!r}; it is a number in [0, 1] or None.")
        super().__init__()
        self.centered = centered

    def configure(self, msg: Any) -> Reparam | None:
        name, is_observed = msg["name"], msg["is_observed"]
        fn = _unwrapped(msg["fn"])
        if not is_observed:
            straight_through = isinstance(fn, dist.RelaxedOneHotCategoricalStraightThrough)
            if isinstance(fn, dist.RelaxedOneHotCategorical) and not straight_through:
                return GumbelSoftmaxReparam()
            if _is_transformed(fn):
                return TransformReparam()
            loc_and_scale = {"loc", "scale"} <= set(getattr(fn, "arg_constraints", ()))
            if loc_and_scale and has_real_support(fn) and not name.endswith("_decentered"):
                return LocScaleReparam(self.centered)
        return _minimal(fn, is_observed)


def _minimal(fn: Any, is_observed: bool) -> Reparam | None:
    fn = _unwrapped(fn)
    if _is_transformed(fn):
        # The base becomes a site, about which the strategy is asked in turn.
        return None if _minimal(fn.base_dist, is_observed) is None else TransformReparam()
    is_stable = isinstance(fn, dist.Stable) and not isinstance(fn, dist.StableWithLogProb)
    if is_stable and fn.coords == "S0":
        if not is_observed:
            return LatentStableReparam()
        return StableReparam() if fn.skew.requires_grad or fn.skew.any() else SymmetricStableReparam()
    if isinstance(fn, dist.ProjectedNormal) and not is_observed:
        return ProjectedNormalReparam()
    return None


def _unwrapped(fn: Any) -> Any:
    """The distribution under those wrappers that reparam and all reparameterizers see through."""
    while isinstance(fn, dist.MaskedDistribution):
        fn = fn.base_dist
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return fn


def _is_transformed(fn: Any) -> bool:
    """Whether the distribution is a transformed one with a base that can be a site."""
    return isinstance(fn, torch.distributions.TransformedDistribution) and is_distribution(fn.base_dist)
