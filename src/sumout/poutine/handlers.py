"""The function forms of all handlers."""

from __future__ import annotations

from sumout.effects.handlers import (
    block,
    broadcast,
    condition,
    enum,
    infer_config,
    markov,
    mask,
    replay,
    scale,
    seed,
    trace,
    uncondition,
    wrap,
)

__all__ = [
    "block",
    "broadcast",
    "condition",
    "enum",
    "infer_config",
    "markov",
    "mask",
    "replay",
    "scale",
    "seed",
    "trace",
    "uncondition",
    "wrap",
]
