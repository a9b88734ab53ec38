"""From a plan and a graph's tables to numbers.

Reading order: ``kernels`` (one operation and its adjoint), ``algebra`` (what is done at a group of steps: sums or
maxima of logarithms), ``sweep`` (a plan forwards and backwards, in any algebra), ``log_sweep`` (sweeps in logarithms
that are right for all numbers); ``walk`` (a plan in reverse, settling variables), of which ``assign`` (the best
assignment) and ``sample`` (posterior samples) are two; ``execute`` (all together). Quicker ways for tables that stay as
they are: ``linear`` (sweeps on probabilities), ``flat`` (small plans as a handful of array operations). Beside these:
``gaussian`` (real variables), ``transforms`` (PyTorch's function transforms), ``calibrate`` (a device's rates),
``per_plan`` (what is kept of a plan).
"""

from sumout.execute.execute import LOG_SUM_EXP, MAX_SUM, Marginal, Result, Semiring, execute, sample
from sumout.execute.log_sweep import unchecked
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
    "unchecked",
]
