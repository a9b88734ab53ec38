"""From a plan and a graph's tables to numbers.

Reading order: ``kernels`` (one operation and its adjoint), ``sweep`` (a plan forwards and backwards),
``assign`` (the best assignment), ``execute`` (all together).
"""

from sumout.execute.assign import Choice
from sumout.execute.execute import LOG_SUM_EXP, MAX_SUM, Marginal, Result, Semiring, execute

__all__ = ["LOG_SUM_EXP", "MAX_SUM", "Choice", "Marginal", "Result", "Semiring", "execute"]
