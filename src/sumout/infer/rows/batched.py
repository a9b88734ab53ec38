"""Factor graphs that stand for many at once: factors with dimensions that are neither summed nor multiplied."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from sumout.execute import LOG_SUM_EXP, Semiring
from sumout.factors import FactorGraph
from sumout.infer.solving.solve import plan_for, solve
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


def solve_elements(graph: BatchedGraph, semiring: Semiring = LOG_SUM_EXP) -> Tensor:
    """The answer for each element of a batch, its dimensions those of the batch.

    Where plates are written out, or a plan runs in slices, a batch is no dimension, and elements are solved one by one.
    """
    wants_grad = torch.is_grad_enabled() and any(each.data.requires_grad for each in graph.factors)
    plan = plan_for(graph, backward=wants_grad)
    if graph.batch and (plan.unrolled or plan.sliced):
        values = [solve(element_of(graph, element), semiring).value for element in elements_of(graph)]
        return torch.stack(values).reshape(tuple(graph.batch.values()))
    value = solve(graph, semiring, plan=plan).value
    return value.expand(tuple(graph.batch.values()))


def elements_of(graph: BatchedGraph) -> Iterator[dict[str, int]]:
    """The elements of a batch, in order."""
    for index in itertools.product(*map(range, graph.batch.values())):
        yield dict(zip(graph.batch, index, strict=True))


def element_of(graph: BatchedGraph, element: Mapping[str, int]) -> FactorGraph:
    """The graph of one element of a batch."""
    factors = []
    for factor in graph.factors:
        index = tuple([element.get(name, slice(None)) for name in factor.inputs])
        inputs = tuple([name for name in factor.inputs if name not in element])
        factors.append(replace(factor, inputs=inputs, data=factor.data[index]))
    return FactorGraph(tuple(factors), graph.variables, graph.plates)
