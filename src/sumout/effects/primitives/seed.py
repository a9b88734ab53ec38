"""The statement ``set_rng_seed``."""

from __future__ import annotations

import random

import numpy as np
import torch


def set_rng_seed(rng_seed: int) -> None:
    """Seeds the random number generators of torch, numpy and Python.

    >>> set_rng_seed(0)
    >>> first = torch.rand(3)
    >>> set_rng_seed(0)
    >>> bool((torch.rand(3) == first).all())
    True
    """
    torch.manual_seed(rng_seed)
    random.seed(rng_seed)
    np.random.seed(rng_seed % 2**32)
