"""Mutual information: what one group of variables says about another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from sumout.errors import EvidenceError
from sumout.infer.queries.entropy import table_entropy
from sumout.infer.queries.joint_posterior import joint_posterior
from sumout.infer.queries.question import Question, Target, group_of


def mutual_information(
    target: Target,
    a: str | Iterable[str],
    b: str | Iterable[str],
    *,
    max_plate_nesting: int | None = None,
    enumeration: str = "parallel",
) -> Callable[..., Tensor]:
    """The mutual information of two groups of variables in nats, given the observations.

    It is what observing one group would teach about the other on average: ``H(a) + H(b) - H(a, b)``. It is 0 where
    they are independent.

    Args:
        target: a program, or a ``FactorGraph``.
        a: the name or names of the first group.
        b: the name or names of the second; all are in one joint table.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``, also a table of rows) that returns one number for
        each row and each element of the plates of the groups. Differentiable. Where a program has some of them in some
        runs only, it is that given that all are there.

    Raises:
        EvidenceError: for a name that is not summed out, or is in both groups.
        PlanError: as in ``marginals``.
        ImpossibleEvidenceError: if the observations have probability zero.
        EnumerationError, MemoryLimitError: as in ``log_evidence``.

    >>> from sumout.factors import FactorGraph
    >>> graph = FactorGraph.from_tables({"f": (["x", "y"], [[0.5, 0.0], [0.0, 0.5]]), "z": (["z"], [0.5, 0.5])})
    >>> mutual_information(graph, "x", "y")(), mutual_information(graph, "x", ["z"])()
    (tensor(0.6931), tensor(0.))

    Source: Cover and Thomas, *Elements of Information Theory* (2006), equation 2.45.
    """
    question = Question(target, max_plate_nesting, enumeration)
    first, second = group_of(a), group_of(b)
    both = [name for name in first if name in second]
    if both:
        raise EvidenceError(
            f"{both[0]!r} is in both groups, {first} and {second}: mutual information is of two groups that share no "
            f"variable. What is not known of {both[0]!r} alone is its entropy: infer.entropy(target, {both[0]!r})."
        )

    group = (*first, *second)

    def query(*args: Any, **kwargs: Any) -> Tensor:
        table = joint_posterior(question, group, args, kwargs)
        of_first = table_entropy(table.marginal(*first).probs, len(first))
        of_second = table_entropy(table.marginal(*second).probs, len(second))
        return (of_first + of_second - table_entropy(table.probs, len(group))).clamp(min=0.0)

    return query
