"""The function forms of all handlers."""

from __future__ import annotations

from sumout.effects.handlers import (
    block,
    broadcast,
    condition,
    do,
    enum,
    equalize,
    escape,
    infer_config,
    lift,
    markov,
    mask,
    queue,
    reparam,
    replay,
    scale,
    seed,
    substitute,
    trace,
    uncondition,
    vectorized_markov,
    wrap,
)
from sumout.infer.collapsing.handler import collapse

__all__ = [
    "block",
    "broadcast",
    "collapse",
    "condition",
    "do",
    "enum",
    "equalize",
    "escape",
    "infer_config",
    "lift",
    "markov",
    "mask",
    "queue",
    "reparam",
    "replay",
    "scale",
    "seed",
    "substitute",
    "trace",
    "uncondition",
    "vectorized_markov",
    "wrap",
]
