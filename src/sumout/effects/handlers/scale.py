"""Weighting log-probabilities."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from torch import Tensor

from sumout.effects.handlers.fitting import check_fits
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.errors import ModelError
from sumout.settings import settings


class ScaleMessenger(Messenger):
    """Multiplies the log-probabilities of sites; scales of nested handlers multiply.

    Args:
        scale: a positive number, or a tensor of such that broadcasts to the batch shape of the sites, with the
            plates that they lie in and the enumerated dimensions.

    Raises:
        ModelError: if it is neither, or not positive; at a site that it does not fit. A tensor is looked at only while
            ``settings.validation`` is on.

    >>> import torch
    >>> from sumout.distributions import Normal
    >>> from sumout.effects.handlers.trace import trace
    >>> from sumout.effects.primitives import sample
    >>> def model():
    ...     sample("x", Normal(0.0, 1.0), obs=torch.tensor(0.0))
    >>> trace(scale(model, scale=2.0)).get_trace().log_prob_sum()
    tensor(-1.8379)
    """

    _has_shape = False

    def __init__(self, scale: float | Tensor) -> None:
        if isinstance(scale, Tensor):
            positive = not settings.validation or bool(torch.all(scale > 0))
        elif _is_number(scale):
            positive = scale > 0
        else:
            raise ModelError(
                f"A scale is a number or a tensor, not {type(scale).__name__}: {scale!r}. Convert it, e.g. with "
                "torch.as_tensor."
            )
        if not positive:
            raise ModelError(f"A scale is positive, not {scale!r}. To leave sites out use mask(mask=False).")
        self.scale = scale
        self._has_shape = isinstance(scale, Tensor) and scale.numel() > 1

    def _process_message(self, msg: Message) -> None:
        msg.scale = self.scale * msg.scale

    def _pyro_post_sample(self, msg: Message) -> None:
        if self._has_shape and settings.validation:
            check_fits("scale", self.scale, msg)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real)


scale = wrap(ScaleMessenger)
