"""Module ``infer`` of the backend: sumout's objectives, made with Pyro's arguments."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import inf
from typing import Any

from sumout import infer
from sumout.poutine.util import enable_validation, is_validation_enabled
from sumout_contrib.pyroapi.lookup import handed_on, names

__all__ = [
    "JitTraceEnum_ELBO",
    "JitTrace_ELBO",
    "TraceEnum_ELBO",
    "Trace_ELBO",
    "enable_validation",
    "is_validation_enabled",
]

_SAMPLERS = (
    "It has no samplers: sum discrete sites out with infer.potential_fn, and give that to Pyro's NUTS."
)
_INSTEAD = {
    "HMC": _SAMPLERS,
    "MCMC": _SAMPLERS,
    "NUTS": _SAMPLERS,
    "JitTraceGraph_ELBO": "Use Trace_ELBO.",
    "JitTraceMeanField_ELBO": "Use Trace_ELBO, which has the same expectation.",
    "TraceGraph_ELBO": "Use Trace_ELBO, whose gradient is unbiased for sites of every kind too.",
    "TraceMeanField_ELBO": "Use Trace_ELBO, which has the same expectation.",
}


class _PyroArguments(infer.ELBO):
    """The arguments of Pyro's objectives.

    Those of ``sumout.infer.ELBO`` mean the same here. ``max_iarange_nesting`` is the old name of
    ``max_plate_nesting``. The others are about compilation (``ignore_jit_warnings``, ``jit_options``) or about
    another objective (``tail_adaptive_beta``), and change nothing.
    """

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float | None = inf,
        max_iarange_nesting: float | None = None,
        vectorize_particles: bool = False,
        strict_enumeration_warning: bool = True,
        ignore_jit_warnings: bool = False,
        jit_options: Mapping[str, Any] | None = None,
        retain_graph: bool | None = None,
        tail_adaptive_beta: float = -1.0,
    ) -> None:
        super().__init__(
            num_particles=num_particles,
            max_plate_nesting=max_plate_nesting if max_iarange_nesting is None else max_iarange_nesting,
            vectorize_particles=vectorize_particles,
            strict_enumeration_warning=strict_enumeration_warning,
            retain_graph=retain_graph,
        )
        self.ignore_jit_warnings = ignore_jit_warnings


class Trace_ELBO(_PyroArguments, infer.Trace_ELBO):
    """``sumout.infer.Trace_ELBO``, with Pyro's arguments."""


class TraceEnum_ELBO(_PyroArguments, infer.TraceEnum_ELBO):
    """``sumout.infer.TraceEnum_ELBO``, with Pyro's arguments."""


class _NotCompiled(_PyroArguments):
    """A promise of speed that is not kept: the same estimates, without compilation, and a warning that says so."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.ignore_jit_warnings:
            name = type(self).__name__
            warnings.warn(
                f"{name} is {name.removeprefix('Jit')} in sumout: the same estimates, not compiled. "
                "Silence this with ignore_jit_warnings=True.",
                stacklevel=2,
            )


class JitTrace_ELBO(_NotCompiled, Trace_ELBO):
    """`Trace_ELBO`: the same estimates, not compiled."""


class JitTraceEnum_ELBO(_NotCompiled, TraceEnum_ELBO):
    """`TraceEnum_ELBO`: the same estimates, not compiled."""


def __getattr__(name: str) -> Any:
    return handed_on("infer", name, infer, _INSTEAD)


def __dir__() -> list[str]:
    return sorted({*__all__, *names(infer)})
