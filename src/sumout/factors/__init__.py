"""Factor graphs: log-space tables over named variables and plates.

`FactorGraph` is what a program is lowered to and what a network file is read into; queries plan from its
``structure`` and contract its tables. Each module here is one thing to do with a graph: check it, show it,
build it from tables, condition it on evidence, write it as a funsor expression, read it from one.
"""

from __future__ import annotations

from sumout.factors.evidence import Evidence, resolve_evidence
from sumout.factors.graph import FactorGraph
from sumout.factors.parts import Factor, GraphData, Plate, Variable

__all__ = ["Evidence", "Factor", "FactorGraph", "GraphData", "Plate", "Variable", "resolve_evidence"]
