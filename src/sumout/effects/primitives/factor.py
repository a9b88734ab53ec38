"""The statement ``factor``."""

from __future__ import annotations

from torch import Tensor

from sumout.distributions import Unit
from sumout.effects.primitives.sample import sample
from sumout.effects.stack import state


def factor(name: str, log_factor: Tensor | float, *, has_rsample: bool | None = None) -> None:
    """Multiplies the density by ``exp(log_factor)``. Outside of all handlers nothing happens.

    Args:
        name: the site.
        log_factor: the natural logarithm of the factor, a scalar or of a shape that broadcasts with the
            plates.
        has_rsample: in a guide, whether the factor comes from reparametrized sampling.

    >>> factor("prefer", -1.5)
    """
    if not state.stack:
        return
    fn = Unit(log_factor, has_rsample=has_rsample)
    sample(name, fn, obs=fn.sample(), infer={"is_auxiliary": True})
