"""What the engine knows of each family of distributions.

``PARAMETERS`` lists families whose log-density is elementwise in the value and the named parameters (each
tuple is one way to parametrize them): many sites of such a family can be scored as one.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist

PARAMETERS: dict[type, tuple[tuple[str, ...], ...]] = {
    dist.Bernoulli: (("probs",), ("logits",)),
    dist.Exponential: (("rate",),),
    dist.Gamma: (("concentration", "rate"),),
    dist.Geometric: (("probs",), ("logits",)),
    dist.Laplace: (("loc", "scale"),),
    dist.Normal: (("loc", "scale"),),
    dist.Poisson: (("rate",),),
    dist.StudentT: (("df", "loc", "scale"),),
}


def elementwise_parameters(fn: Any) -> tuple[str, ...] | None:
    """The names of the parameters that ``fn`` was made with, if its family's density is elementwise in them.

    ``None`` for other families, and where both forms of a parameter are present, one computed from the other.

    >>> elementwise_parameters(dist.Normal(0.0, 1.0))
    ('loc', 'scale')
    >>> elementwise_parameters(dist.Uniform(0.0, 1.0)) is None
    True
    """
    found = [names for names in PARAMETERS.get(type(fn), ()) if all(name in fn.__dict__ for name in names)]
    return found[0] if len(found) == 1 else None
