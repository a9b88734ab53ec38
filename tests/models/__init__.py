"""Named programs of every kind of structure, for tests and benchmarks.

``MODELS`` has them by name. A program is written in a *language* (``models.language``): ``sumout_language()`` is ours;
the same programs run in any other that has its names. All numbers are float64. Programs take no arguments, and are
small enough for every joint assignment of their discrete sites to be visited.

>>> sorted(MODELS)[:3]
['bayesian_hmm', 'bayesian_lda', 'bayesian_mixture']
"""

from __future__ import annotations

from models import basic, captures, chains, coupled, graders, mixtures, networks, plates
from models.language import (
    APART,
    MODELS,
    Build,
    Model,
    Program,
    at,
    chain_tables,
    pyro_language,
    sumout_language,
    vector,
)

__all__ = [
    "APART",
    "MODELS",
    "Build",
    "Model",
    "Program",
    "at",
    "basic",
    "captures",
    "chain_tables",
    "chains",
    "coupled",
    "graders",
    "mixtures",
    "networks",
    "plates",
    "pyro_language",
    "sumout_language",
    "vector",
]
