"""What is asked of programs and graphs: exact queries and training objectives.

Reading order: ``programs`` (a run with its discrete sites summed out, and the comparison with plain runs), ``solving``
(a graph's plan found and executed: whole, in slices, over processes, or prepared for many questions), ``answers`` (what
comes back), ``rows`` (tables of evidence), ``queries`` (one question a file), ``objectives`` (a guide beside a model,
ELBOs, SVI); ``reparam`` stands by itself.
"""

from sumout.infer import reparam
from sumout.infer.answers.joint import Joint
from sumout.infer.answers.result import (
    Assignment,
    Beliefs,
    BestAssignments,
    MarginalAssignment,
    Marginals,
    MaxMarginals,
    PosteriorSamples,
)
from sumout.infer.objectives.elbo import ELBO
from sumout.infer.objectives.svi import SVI
from sumout.infer.objectives.trace_elbo import Trace_ELBO
from sumout.infer.objectives.traceenum_elbo import TraceEnum_ELBO
from sumout.infer.programs.enumerate import config_enumerate
from sumout.infer.queries.entropy import entropy
from sumout.infer.queries.expectation import expectation
from sumout.infer.queries.factor_beliefs import factor_beliefs
from sumout.infer.queries.k_best import k_best
from sumout.infer.queries.log_evidence import log_evidence
from sumout.infer.queries.map_assignment import map_assignment
from sumout.infer.queries.marginal_map import marginal_map
from sumout.infer.queries.marginals import marginals
from sumout.infer.queries.max_marginals import max_marginals
from sumout.infer.queries.mutual_information import mutual_information
from sumout.infer.queries.posterior_samples import posterior_samples
from sumout.infer.solving.spread import spread

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
    "spread",
]
