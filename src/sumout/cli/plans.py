"""The plan of a question, found and not run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from sumout.cli.network import Question
from sumout.errors import MemoryLimitError
from sumout.infer import plan_of
from sumout.plan import EliminationPlan
from sumout.settings import settings

Query = Callable[..., Any]
"""What a function of ``sumout.infer`` returns."""

Asks = Callable[[Question, Collection[str]], Query]
"""The query that answers a question in which some nodes are observed, in all rows if there are rows."""

_ENDLESS = 2**62


class Planned(NamedTuple):
    """A plan, and what it is worth.

    Attributes:
        plan: what the query would run, in slices if it does not fit into memory otherwise; the whole, if none fits.
        width: the induced width of the plan that is not cut into slices.
        bytes: the memory that the plan takes.
        limit: that which there is.
        refusal: why the query would be refused, if it would.
    """

    plan: EliminationPlan
    width: int
    bytes: int
    limit: int
    refusal: str | None


def planned(question: Question, asks: Asks, backward: bool, rows: bool) -> Planned:
    """The plan of a question.

    Args:
        question: the network and the evidence.
        asks: gives the query that answers it.
        backward: whether that keeps its forward sweep.
        rows: whether it takes a table of evidence; if not, the first row counts.
    """
    observed = question.observed if rows and question.observed.count else question.observed.part(slice(1))
    many = rows and question.observed.many and observed.count
    find = plan_of(asks(question, observed.always))
    evidence = observed.columns if many else question.evidence
    with settings.override(memory_limit=_ENDLESS):
        plan = whole = find(evidence=evidence)
    limit, refusal = settings.memory_limit, None
    try:
        plan = find(evidence=evidence)
    except MemoryLimitError as error:
        refusal = str(error)
    factors = question.graph.factors
    itemsize = factors[0].data.element_size() if factors else 8
    return Planned(plan, whole.width, plan.bytes(itemsize, backward), limit, refusal)
