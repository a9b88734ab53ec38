"""The statements that programs are written with, one a file."""

from __future__ import annotations

from sumout.effects.primitives.barrier import barrier
from sumout.effects.primitives.deterministic import deterministic
from sumout.effects.primitives.factor import factor
from sumout.effects.primitives.markov import markov
from sumout.effects.primitives.module import module
from sumout.effects.primitives.param import clear_param_store, get_param_store, param
from sumout.effects.primitives.plate import plate, plate_stack
from sumout.effects.primitives.sample import sample
from sumout.effects.primitives.subsample import subsample
from sumout.effects.primitives.validation import enable_validation, is_validation_enabled, validation_enabled
from sumout.effects.random_state import set_rng_seed

__all__ = [
    "barrier",
    "clear_param_store",
    "deterministic",
    "enable_validation",
    "factor",
    "get_param_store",
    "is_validation_enabled",
    "markov",
    "module",
    "param",
    "plate",
    "plate_stack",
    "sample",
    "set_rng_seed",
    "subsample",
    "validation_enabled",
]
