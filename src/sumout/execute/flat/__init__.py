"""Small plans on the CPU as a handful of array operations: clusters of steps, level by level, on flat arrays.

On a small network, calling an operation takes longer than the operation. Here, steps are merged into clusters, and all
clusters that are equally far from the root are worked on at once, whatever their shapes: what they need is gathered by
an index made beforehand, multiplied, and summed in segments. Observed states enter as offsets of an index. The calls
are numpy's, which cost a quarter of torch's.

Numbers are plain probabilities. That is safe as long as no product of positive entries underflows: a bound on the least
positive entry of every result is known beforehand. Where it would come near underflow, results are scaled to a maximum
of one and looked at; if they are not what the bound assumes from there on, there is no answer, and a sweep in
logarithms has to give it.

Reading order: ``positions`` (where entries lie), ``clusters`` (which steps are one), ``scaling`` (where results are
scaled), ``layout`` (the arrays), ``program`` (running them).
"""

from sumout.execute.flat.program import FlatProgram
from sumout.execute.flat.scaling import TooFar

__all__ = ["FlatProgram", "TooFar"]
