"""Factor beliefs: the joint posterior of the variables of each factor."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

import torch
from torch import Tensor

from sumout.factors import FactorGraph
from sumout.infer.answers.joint import Joint
from sumout.infer.answers.readout import joint, joint_of
from sumout.infer.answers.result import Beliefs
from sumout.infer.queries.question import Question, Target, refuse_impossible, sites_of
from sumout.infer.queries.row_answers import hidden_in, marginals_of_rows
from sumout.infer.rows.read import EvidenceTable
from sumout.infer.rows.weights import plain
from sumout.infer.solving.solve import solve
from sumout.plan import EliminationPlan


def factor_beliefs(
    target: Target, *, max_plate_nesting: int | None = None, enumeration: str = "parallel"
) -> Callable[..., Beliefs]:
    """The joint posterior of the hidden variables of every factor, from one forward and one backward sweep.

    For a program, a factor is what a site (observed or not) says about the hidden sites that it depends on.

    Args:
        target: a program, or a ``FactorGraph``.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``, also a table of rows) that returns ``Beliefs``: a
        ``Joint`` table for each factor, by the factor's name. Its names are the factor's variables, in the order of its
        table; its batch shape is that of the rows and their plates. A factor with nothing hidden has the table of one
        number, 1.

    Raises:
        ImpossibleEvidenceError: if the observations have probability zero.
        EnumerationError: as in ``log_evidence``, and if sites are enumerated sequentially: what depends on these, a
            program decides, and no factor tells.
        PlanError, MemoryLimitError: as in ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(y):
    ...     x = sumout.sample("x", dist.Bernoulli(0.5))
    ...     z = sumout.sample("z", dist.Bernoulli(0.2 + 0.6 * x))
    ...     sumout.sample("y", dist.Bernoulli(0.2 + 0.6 * z), obs=y)
    >>> belief = factor_beliefs(model)(torch.tensor(1.0))["z"]
    >>> belief.names, belief.probs
    (('x', 'z'), tensor([[0.1600, 0.1600],
            [0.0400, 0.6400]]))

    Source: Kschischang, Frey and Loeliger, *Factor graphs and the sum-product algorithm* (2001), equation 6.
    """
    question = Question(target, max_plate_nesting, enumeration)

    def query(*args: Any, **kwargs: Any) -> Beliefs:
        rows = question.table(args, kwargs)
        if rows is not None:
            return _of_rows(*rows)
        graph, trace = question(*args, **kwargs)
        scopes = _scopes(graph, graph.variables)
        asked = tuple(dict.fromkeys(scope for scope in scopes.values() if scope))
        result = solve(graph, marginals=asked)
        refuse_impossible(graph, result.value)
        of_program = sites_of(trace)
        tables = {scope: joint(graph, of_program, scope, result.marginal(scope)) for scope in asked}
        return _beliefs(graph, scopes, tables, result.plan, result.value)

    return query


def _of_rows(graph: FactorGraph, table: EvidenceTable) -> Beliefs:
    """The beliefs of all rows of a table; what is observed in all of them is not among a factor's names."""
    scopes = _scopes(graph, hidden_in(graph, table))
    asked = tuple(dict.fromkeys(scope for scope in scopes.values() if scope))
    tables, plan, log_evidence = marginals_of_rows(graph, table, asked)
    joints = {scope: joint_of(graph, {}, scope, tables[scope]) for scope in asked}
    return _beliefs(graph, scopes, joints, plan, log_evidence)


def _scopes(graph: FactorGraph, hidden: Container[str]) -> dict[str, tuple[str, ...]]:
    return {
        factor.name: tuple([name for name in factor.inputs if name in graph.variables and name in hidden])
        for factor in plain(graph).factors
    }


def _beliefs(
    graph: FactorGraph,
    scopes: Mapping[str, tuple[str, ...]],
    tables: Mapping[tuple[str, ...], Joint],
    plan: EliminationPlan,
    log_evidence: Tensor,
) -> Beliefs:
    nothing = Joint((), torch.ones_like(log_evidence), {})
    values = {name: tables[scope] if scope else nothing for name, scope in scopes.items()}
    return Beliefs(values, plan, graph.states, log_evidence)
