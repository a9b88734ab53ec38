"""What is asked of programs and graphs: exact queries and training objectives.

Reading order: ``enumerate`` and ``program`` (a run with its discrete sites summed out), ``solve``, ``question`` (what
the queries have in common), ``readout``, ``joint`` and ``result`` (the answers), ``log_evidence`` and a module for each
other query, ``rows``, ``row_batches`` and ``row_answers`` (tables of evidence); then ``pair`` and ``estimator`` (a
guide beside a model), ``elbo``, ``trace_elbo``, ``traceenum_elbo`` and ``svi``; ``reparam`` stands by itself.
"""

from sumout.infer import reparam
from sumout.infer.elbo import ELBO
from sumout.infer.entropy import entropy
from sumout.infer.enumerate import config_enumerate
from sumout.infer.expectation import expectation
from sumout.infer.factor_beliefs import factor_beliefs
from sumout.infer.joint import Joint
from sumout.infer.k_best import k_best
from sumout.infer.log_evidence import log_evidence
from sumout.infer.map_assignment import map_assignment
from sumout.infer.marginal_map import marginal_map
from sumout.infer.marginals import marginals
from sumout.infer.max_marginals import max_marginals
from sumout.infer.mutual_information import mutual_information
from sumout.infer.posterior_samples import posterior_samples
from sumout.infer.result import (
    Assignment,
    Beliefs,
    BestAssignments,
    MarginalAssignment,
    Marginals,
    MaxMarginals,
    PosteriorSamples,
)
from sumout.infer.svi import SVI
from sumout.infer.trace_elbo import Trace_ELBO
from sumout.infer.traceenum_elbo import TraceEnum_ELBO

__all__ = [
    "ELBO",
    "SVI",
    "Assignment",
    "Beliefs",
    "BestAssignments",
    "Joint",
    "MarginalAssignment",
    "Marginals",
    "MaxMarginals",
    "PosteriorSamples",
    "TraceEnum_ELBO",
    "Trace_ELBO",
    "config_enumerate",
    "entropy",
    "expectation",
    "factor_beliefs",
    "k_best",
    "log_evidence",
    "map_assignment",
    "marginal_map",
    "marginals",
    "max_marginals",
    "mutual_information",
    "posterior_samples",
    "reparam",
]
