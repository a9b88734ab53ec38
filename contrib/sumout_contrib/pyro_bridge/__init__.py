"""Programs written for Pyro, run by sumout: ``infer.marginals(as_sumout(pyro_model))(data)``.

Two stacks of handlers are joined to one while a wrapped program runs: Pyro's handlers, those of the program, are
inside; sumout's, those around the program, are outside. A statement such as ``pyro.sample`` travels through
Pyro's stack first. ``Bridge``, which stands at its far end, sends it on through sumout's as a site of
sumout's own, and puts what came of it into Pyro's message, so that Pyro's handlers see the result. The other
way round, ``Door`` shows sites of sumout's own to the handlers of Pyro's that are inside.
"""

from __future__ import annotations

from sumout_contrib.pyro_bridge.program import as_sumout

__all__ = ["as_sumout"]
