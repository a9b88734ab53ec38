"""Handlers: functions that change what the statements of a program do.

Each is a function of a program, a decorator and a context manager, and they compose. This package holds
public names only; everything is defined in ``sumout.effects``.
"""

from __future__ import annotations

from sumout.effects.handlers import (
    block,
    block_plate,
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
from sumout.effects.messenger import Messenger, block_messengers
from sumout.effects.primitives import enable_validation, is_validation_enabled
from sumout.effects.stack import NonlocalExit, get_mask, get_plates
from sumout.effects.trace import Trace
from sumout.infer.collapsing.handler import collapse
from sumout.poutine import (  # noqa: F401  (imported so that sumout.poutine.runtime and the others are there)
    block_messenger,
    broadcast_messenger,
    collapse_messenger,
    condition_messenger,
    do_messenger,
    enum_messenger,
    equalize_messenger,
    escape_messenger,
    guide,
    guide_messenger,
    handlers,
    indep_messenger,
    infer_config_messenger,
    lift_messenger,
    markov_messenger,
    mask_messenger,
    messenger,
    plate_messenger,
    reentrant_messenger,
    reparam_messenger,
    replay_messenger,
    runtime,
    scale_messenger,
    seed_messenger,
    subsample_messenger,
    substitute_messenger,
    trace_messenger,
    trace_struct,
    uncondition_messenger,
    util,
)

__all__ = [
    "Messenger",
    "NonlocalExit",
    "Trace",
    "block",
    "block_messengers",
    "block_plate",
    "broadcast",
    "collapse",
    "condition",
    "do",
    "enable_validation",
    "enum",
    "equalize",
    "escape",
    "get_mask",
    "get_plates",
    "infer_config",
    "is_validation_enabled",
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
