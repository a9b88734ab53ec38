"""What is asked of programs and graphs: exact queries and training objectives.

Reading order: ``programs`` (a run with its discrete sites summed out, and the comparison with plain runs),
``solving`` (a graph's plan found and executed: whole, in slices, over processes, or prepared for many questions),
``answers`` (what comes back), ``rows`` (tables of evidence, weights of cases), ``queries`` (one question a file),
``objectives`` (a guide beside a model, ELBOs, SVI); ``reparam`` stands by itself.
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
from sumout.infer.objectives.losses import LossHistory
from sumout.infer.objectives.recorded import (
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceMarkovEnum_ELBO,
    JitTraceMeanField_ELBO,
    JitTraceTMC_ELBO,
)
from sumout.infer.objectives.svi import SVI
from sumout.infer.objectives.trace_elbo import Trace_ELBO, TraceGraph_ELBO
from sumout.infer.objectives.trace_mean_field_elbo import TraceMeanField_ELBO
from sumout.infer.objectives.traceenum_elbo import TraceEnum_ELBO
from sumout.infer.objectives.traceenumsample_elbo import TraceEnumSample_ELBO
from sumout.infer.objectives.tracemarkovenum_elbo import TraceMarkovEnum_ELBO
from sumout.infer.objectives.tracetmc_elbo import TraceTMC_ELBO
from sumout.infer.potential.initial import init_to_median, init_to_sample, init_to_uniform, init_to_value
from sumout.infer.potential.potential import Potential
from sumout.infer.potential.potential_fn import potential_fn
from sumout.infer.programs.enumerate import config_enumerate
from sumout.infer.programs.truncation import lost_mass
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
from sumout.infer.sampling.importance import Importance
from sumout.infer.sampling.infer_discrete import infer_discrete
from sumout.infer.sampling.predictive import Predictive
from sumout.infer.sampling.psis import Smoothed, psis
from sumout.infer.sampling.weighted import WeightedSamples
from sumout.infer.solving.rehearsal import plan_of
from sumout.infer.solving.spread import spread

__all__ = [
    "ELBO",
    "SVI",
    "Assignment",
    "Beliefs",
    "BestAssignments",
    "Importance",
    "JitTraceEnum_ELBO",
    "JitTraceMarkovEnum_ELBO",
    "JitTraceMeanField_ELBO",
    "JitTraceTMC_ELBO",
    "JitTrace_ELBO",
    "Joint",
    "LossHistory",
    "MarginalAssignment",
    "Marginals",
    "MaxMarginals",
    "PosteriorSamples",
    "Potential",
    "Predictive",
    "Smoothed",
    "TraceEnumSample_ELBO",
    "TraceEnum_ELBO",
    "TraceGraph_ELBO",
    "TraceMarkovEnum_ELBO",
    "TraceMeanField_ELBO",
    "TraceTMC_ELBO",
    "Trace_ELBO",
    "WeightedSamples",
    "config_enumerate",
    "entropy",
    "expectation",
    "factor_beliefs",
    "infer_discrete",
    "init_to_median",
    "init_to_sample",
    "init_to_uniform",
    "init_to_value",
    "k_best",
    "log_evidence",
    "lost_mass",
    "map_assignment",
    "marginal_map",
    "marginals",
    "max_marginals",
    "mutual_information",
    "plan_of",
    "posterior_samples",
    "potential_fn",
    "psis",
    "reparam",
    "spread",
]
