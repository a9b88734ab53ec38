"""Pyro's distributions, re-exported: the one place that imports them.

Everything of ``pyro.distributions`` is here under the same name, with ``constraints``, ``transforms`` and
``kl``; `Vindex` is Pyro's broadcasting indexing, ``Vindex(x)[..., i, :]``. Of our own are `BetaNegativeBinomial` and
`GammaGamma`, the posterior predictive distributions that Pyro lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyro.distributions as _pyro_distributions
from pyro.distributions import *  # noqa: F403  (a re-export of the whole namespace)
from pyro.distributions.hmm import Vindex
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.transforms import biject_to, transform_to

from sumout.distributions.compound import BetaNegativeBinomial, GammaGamma

__all__ = [
    *_pyro_distributions.__all__,
    "BetaNegativeBinomial",
    "GammaGamma",
    "TorchDistributionMixin",
    "Vindex",
    "biject_to",
    "transform_to",
]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # Pyro is untyped: each of its names is taken as Any
