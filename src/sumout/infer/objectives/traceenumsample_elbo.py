"""The evidence lower bound, and samples of what was summed out, from one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sumout.errors import ModelError
from sumout.infer.objectives.pair import Args, Kwargs, Program
from sumout.infer.objectives.posterior import sample_of_model
from sumout.infer.objectives.runs import PairRun
from sumout.infer.objectives.traceenum_elbo import TraceEnum_ELBO


class TraceEnumSample_ELBO(TraceEnum_ELBO):
    """``TraceEnum_ELBO`` that remembers its last run, to draw from the posterior of what was summed out in it.

    The arguments are those of ``ELBO``; there is one particle.

    Raises:
        ModelError: if there is more than one particle.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> @sumout.infer.config_enumerate
    ... def model(x):
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Bernoulli(z), obs=x)
    ...     return z
    >>> elbo = TraceEnumSample_ELBO()
    >>> round(elbo.loss(model, lambda x: None, torch.tensor(1.0)), 4)
    0.6931
    >>> elbo.sample_saved()
    tensor(1.)
    """

    def __init__(self, num_particles: int = 1, *args: Any, **kwargs: Any) -> None:
        if num_particles != 1:
            raise ModelError(
                f"TraceEnumSample_ELBO has num_particles={num_particles}; it draws from the posterior of one run. "
                "Leave "
                "num_particles out."
            )
        super().__init__(num_particles, *args, **kwargs)
        self._saved: Callable[[], Any] | None = None

    def _estimate(
        self, model: Program, guide: Program, args: Args, kwargs: Kwargs, nesting: int | None
    ) -> Tensor:
        runs = self._runs_of(model, guide, args, kwargs, nesting or 0)
        self._saved = lambda: self._sampled(model, runs, args, kwargs)
        return self._summed(runs)

    @staticmethod
    def _sampled(model: Program, runs: list[PairRun], args: Args, kwargs: Kwargs) -> Any:
        with torch.no_grad():
            return sample_of_model(model, runs, args, kwargs)

    def sample_saved(self) -> Any:
        """Runs the model with the guide's values of the last loss, and what was summed out drawn given these.

        Returns:
            What the model returns; its sites are seen by the handlers around, as ``trace``.

        Raises:
            ModelError: if there was no loss yet.
            EnumerationError, ImpossibleEvidenceError: as ``TraceEnum_ELBO.sample_posterior``, and if the guide
                enumerated.
        """
        if self._saved is None:
            raise ModelError(
                "There is no run to draw from yet. Compute a loss first, e.g. elbo.loss(model, guide)."
            )
        return self._saved()
