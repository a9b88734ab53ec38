"""sumout: exact inference for probabilistic programs whose discrete structure can be summed out."""

from sumout import distributions, infer, io, optim, poutine
from sumout.distributions import Vindex
from sumout.effects.handlers import condition, do, vectorized_markov
from sumout.effects.primitives import (
    barrier,
    clear_param_store,
    deterministic,
    enable_validation,
    factor,
    get_param_store,
    markov,
    module,
    param,
    plate,
    plate_stack,
    sample,
    set_rng_seed,
    subsample,
    validation_enabled,
)
from sumout.factors import FactorGraph
from sumout.settings import settings

__version__ = "0.1.0"

__all__ = [
    "FactorGraph",
    "Vindex",
    "barrier",
    "clear_param_store",
    "condition",
    "deterministic",
    "distributions",
    "do",
    "enable_validation",
    "factor",
    "get_param_store",
    "infer",
    "io",
    "markov",
    "module",
    "optim",
    "param",
    "plate",
    "plate_stack",
    "poutine",
    "sample",
    "set_rng_seed",
    "settings",
    "subsample",
    "validation_enabled",
    "vectorized_markov",
]
