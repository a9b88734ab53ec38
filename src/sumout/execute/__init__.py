"""From a plan and a graph's tables to numbers.

Reading order: ``kernels`` (one operation and its adjoint), ``sweep`` (a plan forwards and backwards),
``max_marginals`` (another way backwards), ``walk`` (a plan in reverse, settling variables), of which ``assign`` (the
best assignment) and ``sample`` (posterior samples) are two; ``execute`` (all together).
"""

from sumout.execute.execute import LOG_SUM_EXP, MAX_SUM, Marginal, Result, Semiring, execute, sample
from sumout.execute.sample import Samples
from sumout.execute.walk import Choice

__all__ = [
    "LOG_SUM_EXP",
    "MAX_SUM",
    "Choice",
    "Marginal",
    "Result",
    "Samples",
    "Semiring",
    "execute",
    "sample",
]
