"""Weighting log-probabilities."""

from __future__ import annotations

from torch import Tensor

from sumout.poutine.scale_messenger import ScaleMessenger
from sumout_contrib.classic.poutine import Poutine, Program


class ScalePoutine(Poutine, ScaleMessenger):
    """Multiplies log-probabilities, for data that were subsampled or stratified.

    Args:
        fn: a program.
        scale: a positive number, or a tensor of such that broadcasts with the batch shape of the sites.

    Raises:
        ModelError: if it is not positive.

    >>> import torch
    >>> import sumout
    >>> from sumout.distributions import Normal
    >>> from sumout_contrib.classic.trace_poutine import TracePoutine
    >>> def fn():
    ...     sumout.sample("x", Normal(0.0, 1.0), obs=torch.tensor(0.0))
    >>> TracePoutine(ScalePoutine(fn, 2.0)).get_trace().log_pdf()
    tensor(-1.8379)
    """

    def __init__(self, fn: Program | None, scale: float | Tensor) -> None:
        Poutine.__init__(self, fn)
        ScaleMessenger.__init__(self, scale)
