"""Priors for params."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sumout.poutine.lift_messenger import LiftMessenger
from sumout_contrib.classic.poutine import Poutine, Program


class LiftPoutine(Poutine, LiftMessenger):
    """Replaces ``param`` sites by samples from a prior.

    Args:
        fn: a program.
        prior: a distribution or another function that draws, or a dict of such by the name of the param.

    >>> import torch
    >>> import sumout
    >>> from sumout.distributions import Normal
    >>> from sumout_contrib.classic.trace_poutine import TracePoutine
    >>> def fn():
    ...     return sumout.param("w", torch.tensor(0.0))
    >>> TracePoutine(LiftPoutine(fn, {"w": Normal(0.0, 1.0)})).get_trace().stochastic_nodes
    ['w']
    """

    def __init__(self, fn: Program | None, prior: Callable[..., Any] | Mapping[str, Any]) -> None:
        Poutine.__init__(self, fn)
        LiftMessenger.__init__(self, prior)
