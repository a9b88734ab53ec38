"""Factor graphs that stand for many at once: factors with dimensions that are neither summed nor multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sumout.factors import FactorGraph
from sumout.plan import Structure


@dataclass(frozen=True, eq=False, repr=False)
class BatchedGraph(FactorGraph):
    """A graph for each element of the dimensions in ``batch`` (name to size), which factors may have as inputs.

    Its answers have these dimensions first.

    >>> import torch
    >>> from sumout.execute import execute
    >>> from sumout.factors import Factor, Variable
    >>> from sumout.plan import make_plan
    >>> table = torch.tensor([[0.5, 0.25], [0.1, 0.2], [0.3, 0.3]]).log()
    >>> graph = BatchedGraph((Factor("f", ("row", "x"), table),), {"x": Variable(2)}, batch={"row": 3})
    >>> execute(make_plan(graph.structure), graph).value.exp()
    tensor([0.7500, 0.3000, 0.6000])
    """

    batch: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def structure(self) -> Structure:
        """As of a ``FactorGraph``, with the batch."""
        plain = FactorGraph(self.factors, self.variables, self.plates).structure
        return plain._replace(sizes=(*plain.sizes, *self.batch.items()), batch=tuple(self.batch))
