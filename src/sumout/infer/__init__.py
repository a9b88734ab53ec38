"""What is asked of programs and graphs: exact queries and training objectives.

Reading order: ``enumerate`` and ``program`` (a run with its discrete sites summed out), ``queries``, ``readout``
and ``result`` (the answers); then ``elbo``, ``trace_elbo``, ``traceenum_elbo`` and ``svi``.
"""

from sumout.infer.enumerate import config_enumerate
from sumout.infer.queries import log_evidence, map_assignment, marginals
from sumout.infer.result import Assignment, Marginals

__all__ = ["Assignment", "Marginals", "config_enumerate", "log_evidence", "map_assignment", "marginals"]
