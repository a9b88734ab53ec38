"""The evidence lower bound with discrete sites of model and guide summed out exactly."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from sumout.effects.handlers import BlockMessenger, infer_config
from sumout.infer.objectives.components import model_terms, summed_over_runs
from sumout.infer.objectives.elbo import ELBO
from sumout.infer.objectives.expectation import expectation
from sumout.infer.objectives.pair import Args, Kwargs, Program
from sumout.infer.objectives.posterior import marginals_of, sample_of_model
from sumout.infer.objectives.runs import PairRun, pair_runs
from sumout.infer.programs.graphs import scale_of_runs


class TraceEnum_ELBO(ELBO):
    """``E_q[log Σ p(x, y, z) - log q(z)]``, with the sum over ``y`` and what can be of the expectation made exactly.

    Sites of the model marked ``infer={"enumerate": "parallel"}`` (see ``config_enumerate``) that the guide lacks,
    ``y``, are summed out. Sites of the guide that are marked so have all their values at once, each weighted with its
    probability; the guide draws the others, once, or ``num_samples`` times where that is marked. Without draws the loss
    is exact. Sites marked ``"sequential"`` have one value at a time, and the programs are run for each; ``"auto"``
    leaves the choice to what the programs do with the values.

    The guide may enumerate in another way than the model: chains of another history, vectorized or not. Where what the
    model sums out ties the guide's sites in all elements of a plate together, the plate is written out. Subsampled
    plates and masks keep their meaning; a scale multiplies the logarithm of the model's sum, and may differ from
    element to element of a plate around it. The arguments are those of ``ELBO``.

    The methods raise what ``lower`` and ``make_plan`` raise; ``EnumerationError`` for what a program does with
    enumerated values that has no meaning; ``MemoryLimitError`` before anything is allocated.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> @sumout.infer.config_enumerate
    ... def model(x):
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    >>> loss = TraceEnum_ELBO().loss(model, lambda x: None, torch.tensor(1.0))
    >>> round(loss, 4)  # -log(0.5 * 0.2 + 0.5 * 0.8)
    0.6931
    >>> @sumout.infer.config_enumerate
    ... def posterior(x):
    ...     sumout.sample("z", dist.Bernoulli(0.8))
    >>> round(TraceEnum_ELBO().loss(model, posterior, torch.tensor(1.0)), 4)
    0.6931

    Source: Obermeyer, Bingham, Jankowiak, Phan and Chen, *Tensor variable elimination for plated factor
    graphs* (2019), section 4.
    """

    _needs_nesting = True

    def _estimate(
        self, model: Program, guide: Program, args: Args, kwargs: Kwargs, nesting: int | None
    ) -> Tensor:
        return self._summed(self._runs_of(model, guide, args, kwargs, nesting or 0))

    def _runs_of(
        self, model: Program, guide: Program, args: Args, kwargs: Kwargs, nesting: int
    ) -> list[PairRun]:
        runs = pair_runs(model, guide, args, kwargs, -1 - nesting, self)
        if self.strict_enumeration_warning:
            _warn_if_nothing_is_enumerated(runs)
        return runs

    def _summed(self, runs: list[PairRun]) -> Tensor:
        if len(runs) == 1:
            return self._expected(runs[0])
        return torch.stack([self._expected(run) for run in runs]).sum()

    def _expected(self, run: PairRun) -> Tensor:
        guide, models = run.guide, run.models
        # Where sites stand matters to the scores of what was drawn.
        places = models[0].places if guide.scores else {}
        terms = [model_terms(each.graph, guide, places, bool(guide.scores), each.powers) for each in models]
        plates = models[0].graph.plates
        of_model = terms[0]
        if len(terms) > 1:
            scale = scale_of_runs([(each.graph, each.sites) for each in models])
            of_model = [summed_over_runs(terms, guide, plates, scale)]
        return expectation([*of_model, *guide.terms], guide, plates, places)

    def compute_marginals(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The marginals of the enumerated sites, given the observations and one draw of the guide.

        Those of sites that the model sums out are posterior; where they depend on sites that the guide enumerates, they
        are means over these. Those of the guide's sites are the guide's. A site that is in some runs only, as
        sequential sites decide, has the marginal given that it is there.

        Returns:
            A ``sumout.distributions`` object for each site, with the batch shape of its plates.

        Raises:
            ValueError: if there is more than one particle.
            EnumerationError: if a latent site of the model is neither enumerated nor in the guide.
            ImpossibleEvidenceError: if the observations and the draw have probability zero.
        """
        self._refuse_particles("compute_marginals")
        return marginals_of(self._runs(model, guide, args, kwargs))

    def sample_posterior(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """Runs the model with one draw of the guide and the sites that it sums out drawn from their joint posterior.

        Sites that the guide enumerates are drawn from the guide too.

        Returns:
            What the model returns; its sites are seen by the handlers around, as ``trace``.

        Raises:
            ValueError, EnumerationError, ImpossibleEvidenceError: as ``compute_marginals``.
        """
        self._refuse_particles("sample_posterior")
        unmarked = infer_config(guide, config_fn=lambda site: {"enumerate": None})
        runs = self._runs(model, unmarked, args, kwargs)
        return sample_of_model(model, runs, args, kwargs)

    def _runs(self, model: Program, guide: Program, args: Args, kwargs: Kwargs) -> list[PairRun]:
        """A run that no handler outside sees."""
        with BlockMessenger(), torch.no_grad():
            nesting = self._nesting(model, guide, args, kwargs)
            return pair_runs(model, guide, args, kwargs, -1 - nesting, self)

    def _refuse_particles(self, method: str) -> None:
        if self.num_particles > 1:
            raise ValueError(
                f"{method} takes one draw of the guide; this has num_particles={self.num_particles}."
            )


def _warn_if_nothing_is_enumerated(runs: list[PairRun]) -> None:
    first = runs[0]
    if (
        len(runs) == len(first.models) == 1
        and not first.guide.variables
        and not first.models[0].graph.variables
    ):
        warnings.warn(
            "TraceEnum_ELBO found no site to enumerate. Mark discrete sites of the guide, or of the model that the "
            "guide lacks (config_enumerate), or use Trace_ELBO.",
            stacklevel=7,
        )
