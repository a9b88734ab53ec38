"""Discrete sites drawn from their exact posterior while a program runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sumout.errors import ModelError
from sumout.infer.sampling.posterior import DiscretePosterior, check_program, replayed


def infer_discrete(
    fn: Callable[..., Any] | None = None,
    first_available_dim: int | None = None,
    temperature: int = 1,
    *,
    enumeration: str = "parallel",
) -> Callable[..., Any]:
    """A program whose discrete latent sites take values from their joint posterior given everything else.

    All latent sites of finite support that no handler gives a value, but for those marked
    ``infer={"enumerate": None}``, are drawn together, exactly. "Everything else" is what is observed, and the values
    of other latent sites: those that handlers give (``condition``, ``replay``; inside or outside), or else values
    drawn from the prior. Sites marked ``"sequential"`` take one value after another, as a program needs that decides
    by them in Python; the program then runs once for each of their joint values.

    The handled program runs with the drawn values: in a trace of it each site has one value, and its log-probability
    is the joint one's. It works as a function and as a decorator, with and without arguments.

    Args:
        fn: the model.
        first_available_dim: the first dimension, counted from the right, that no plate uses; found by a trial run if
            ``None``.
        temperature: 1 for posterior samples, 0 for a most probable joint assignment.
        enumeration: how sites without a mark are enumerated, as in ``log_evidence``.

    Raises:
        ValueError: for another temperature.
        ModelError: if ``fn`` is no function, or ``first_available_dim`` not negative.
        ImpossibleEvidenceError: when the program runs, if the observations have probability zero.
        EnumerationError: if a latent site of infinite support depends on enumerated sites, and others depend on it.
        PlanError, MemoryLimitError: as ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> from sumout.poutine import trace
    >>> def model(x):
    ...     with sumout.plate("data", len(x)):
    ...         z = sumout.sample("z", dist.Bernoulli(0.3))
    ...         sumout.sample("x", dist.Normal(4 * z, 1.0), obs=x)
    >>> drawn = trace(infer_discrete(model, temperature=0)).get_trace(torch.tensor([0.1, 3.9]))
    >>> drawn.nodes["z"]["value"], drawn.nodes["z"]["log_prob"].exp()
    (tensor([0., 1.]), tensor([0.7000, 0.3000]))

    Source: as ``posterior_samples`` and ``map_assignment``.
    """
    if fn is None:
        return functools.partial(
            infer_discrete,
            first_available_dim=first_available_dim,
            temperature=temperature,
            enumeration=enumeration,
        )
    check_program(fn, "infer_discrete")
    if first_available_dim is not None and first_available_dim >= 0:
        raise ModelError(
            f"infer_discrete has first_available_dim={first_available_dim}; dimensions are counted from the right. "
            "Give -1 minus the number of nested plates, or leave it out."
        )
    nesting = None if first_available_dim is None else -1 - first_available_dim
    posterior = DiscretePosterior(fn, nesting, temperature, enumeration)

    @functools.wraps(fn, updated=())
    def drawn(*args: Any, **kwargs: Any) -> Any:
        return replayed(fn, posterior.trace(*args, **kwargs))(*args, **kwargs)

    return drawn
