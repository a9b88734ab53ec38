"""What is asked of programs and graphs: exact queries and training objectives.

Reading order: ``enumerate`` and ``program`` (a run with its discrete sites summed out), ``solve``, ``queries``,
``readout`` and ``result`` (the answers); then ``pair`` and ``estimator`` (a guide beside a model), ``elbo``,
``trace_elbo``, ``traceenum_elbo`` and ``svi``.
"""

from sumout.infer import reparam
from sumout.infer.elbo import ELBO
from sumout.infer.enumerate import config_enumerate
from sumout.infer.queries import log_evidence, map_assignment, marginals
from sumout.infer.result import Assignment, Marginals
from sumout.infer.svi import SVI
from sumout.infer.trace_elbo import Trace_ELBO
from sumout.infer.traceenum_elbo import TraceEnum_ELBO

__all__ = [
    "ELBO",
    "SVI",
    "Assignment",
    "Marginals",
    "TraceEnum_ELBO",
    "Trace_ELBO",
    "config_enumerate",
    "log_evidence",
    "map_assignment",
    "marginals",
    "reparam",
]
