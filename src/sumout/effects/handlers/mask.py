"""Leaving sites, or elements of them, out of the log-probability."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from torch import Tensor
from torch import bool as boolean

from sumout.effects.handlers.fitting import check_fits
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.errors import ModelError
from sumout.settings import settings


class MaskMessenger(Messenger):
    """Counts only the elements of sites where the mask is true; masks of nested handlers are combined.

    Args:
        mask: a boolean, or a boolean tensor that broadcasts to the batch shape of the sites, with the plates
            that they lie in and the enumerated dimensions.

    Raises:
        ModelError: if it is neither; under validation, at a site that it does not fit.

    >>> import torch
    >>> from sumout.distributions import Normal
    >>> from sumout.effects.handlers.trace import trace
    >>> from sumout.effects.primitives import sample
    >>> def model():
    ...     sample("x", Normal(0.0, 1.0).expand([2]), obs=torch.zeros(2))
    >>> trace(mask(model, mask=torch.tensor([True, False]))).get_trace().nodes["x"]["log_prob"]
    tensor([-0.9189,  0.0000])
    """

    _has_shape = False

    def __init__(self, mask: bool | Tensor) -> None:
        if isinstance(mask, Tensor):
            if mask.dtype != boolean:
                raise ModelError(f"A mask is of dtype bool, not {mask.dtype}. Convert it: mask != 0.")
        elif not _is_number(mask) or mask not in (True, False):
            raise ModelError(
                f"A mask is a bool or a tensor of dtype bool, not {mask!r}. Convert it, e.g. with torch.as_tensor."
            )
        self.mask = mask if isinstance(mask, Tensor) else bool(mask)
        self._has_shape = isinstance(mask, Tensor) and mask.numel() > 1

    def _process_message(self, msg: Message) -> None:
        msg.mask = self.mask if msg.mask is None else msg.mask & self.mask
        if msg.type == "get_mask":
            msg.value = msg.mask

    def _pyro_post_sample(self, msg: Message) -> None:
        if self._has_shape and settings.validation:
            check_fits("mask", self.mask, msg)


def _is_number(value: Any) -> bool:
    return isinstance(value, (numbers.Real, np.bool_))


mask = wrap(MaskMessenger)
