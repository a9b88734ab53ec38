"""The potential of a program, as it is or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sumout.infer.potential.compiled import CompiledPotential
from sumout.infer.potential.initial import Init, init_to_uniform
from sumout.infer.potential.potential import Potential


def potential_fn(
    model: Callable[..., Any],
    *args: Any,
    init: Init = init_to_uniform,
    compile: bool | str = False,
    max_plate_nesting: int | None = None,
    enumeration: str = "parallel",
    **kwargs: Any,
) -> Potential:
    """The potential of a model, for Hamiltonian Monte Carlo, with all discrete latent sites summed out.

    It goes into Pyro's sampler as ``NUTS(potential_fn=potential, transforms=potential.transforms)`` and
    ``MCMC(..., initial_params=potential.initial_params)``, and into any other that takes a function of a vector as
    ``potential.flat``. The discrete sites' posterior given the samples comes from
    ``Predictive(model, samples, infer_discrete=True)``.

    Args:
        model: a program. Its params keep the values that they have.
        args, kwargs: its arguments.
        init: where a chain begins: ``init_to_uniform``, ``init_to_median``, ``init_to_sample``,
            ``init_to_value(values={...})``, or a function of a site. Tried until potential and gradient are finite.
        compile: whether calls run compiled code: ten to twenty times faster, but the first call takes as long as
            ``torch.compile`` does, seconds to minutes. Data and params are then those of that call. ``"record"``
            records the tensor operations and does not compile them: that takes a few seconds, needs no C++ compiler,
            and saves a third to a half of a call. Any other name is a backend of ``torch.compile``.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Raises:
        ModelError: if a latent site has neither a continuous nor a finite support, or one that depends on sites that
            are summed out; if a plate is subsampled; if no values to begin at are found; with ``compile``, at the first
            call, if the program looks at the values of its sites.
        EnumerationError, PlanError, MemoryLimitError: as ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     scale = sumout.sample("scale", dist.LogNormal(0.0, 1.0))
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Normal(4 * z, scale), obs=x)
    >>> potential = potential_fn(model, torch.tensor(1.0))
    >>> potential({"scale": torch.tensor(0.0)})  # scale = 1; the Jacobian of exp is 1 there
    tensor(3.0129)
    """
    potential = Potential(model, args, kwargs, init, max_plate_nesting, enumeration)
    if not compile:
        return potential
    return CompiledPotential(potential, "inductor" if compile is True else compile)
