"""The first generation of Pyro's handlers: classes that take the program first, and a trace that is a graph.

Each class is a messenger of ``sumout.poutine`` joined with `Poutine`, and works on the same messages: old and
new handlers nest in each other. A module here has the name that it had in that generation.

>>> from sumout import sample
>>> from sumout.distributions import Normal
>>> def fn():
...     return sample("b", Normal(sample("a", Normal(0.0, 1.0)), 1.0))
>>> fn_inner = TracePoutine(fn)
>>> fn_outer = TracePoutine(BlockPoutine(TracePoutine(fn), hide=["a"]))
>>> trace_inner = fn_inner.get_trace()
>>> trace_outer = fn_outer.get_trace()
>>> "a" in trace_inner
True
>>> "a" in trace_outer
False
>>> "b" in trace_inner
True
>>> "b" in trace_outer
True

Raises:
    MissingExtraError: at import, where networkx is not installed.
"""

from __future__ import annotations

from sumout.poutine import NonlocalExit
from sumout_contrib.classic.block_poutine import BlockPoutine
from sumout_contrib.classic.condition_poutine import ConditionPoutine
from sumout_contrib.classic.escape_poutine import EscapePoutine
from sumout_contrib.classic.indep_poutine import CondIndepStackFrame, IndepPoutine
from sumout_contrib.classic.lift_poutine import LiftPoutine
from sumout_contrib.classic.poutine import Poutine
from sumout_contrib.classic.replay_poutine import ReplayPoutine
from sumout_contrib.classic.scale_poutine import ScalePoutine
from sumout_contrib.classic.trace import Trace
from sumout_contrib.classic.trace_poutine import TracePoutine

__all__ = [
    "BlockPoutine",
    "CondIndepStackFrame",
    "ConditionPoutine",
    "EscapePoutine",
    "IndepPoutine",
    "LiftPoutine",
    "NonlocalExit",
    "Poutine",
    "ReplayPoutine",
    "ScalePoutine",
    "Trace",
    "TracePoutine",
]
