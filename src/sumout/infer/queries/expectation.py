"""Expected values of functions of hidden variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sumout.errors import ModelError
from sumout.infer.answers.joint import Joint
from sumout.infer.queries.joint_posterior import joint_posterior
from sumout.infer.queries.question import Question, Target, group_of

Function = Callable[..., Tensor] | Tensor
"""A function of the values of some variables, or its table."""


def expectation(
    target: Target,
    sites: str | Iterable[str],
    function: Function,
    *,
    max_plate_nesting: int | None = None,
    enumeration: str = "parallel",
) -> Callable[..., Tensor]:
    """The posterior expectation of a function of some variables.

    Args:
        target: a program, or a ``FactorGraph``.
        sites: the name or names of the variables that the function takes.
        function: a table with one dimension for each variable, over its states, and any more for several results; or
            a callable. The callable is called once, with a tensor of values for each variable, all of the shape of
            such a table (then the site's event shape): the values that a program's site would draw, the indices of
            states for a graph. It returns the table.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``, also a table of rows, which are a first dimension).
        It returns the expected value for each element of the variables' plates, shape ``(*batch_shape, *results)``.
        Differentiable, also by what ``function`` is made of. What the function gives for impossible states does not
        count, be it infinite. Where a program has some of the sites in some runs only, it is that given that all are
        there.

    Raises:
        ModelError: if the table does not have the size of the variables.
        EvidenceError, PlanError: as in ``marginals``.
        ImpossibleEvidenceError: if the observations have probability zero.
        EnumerationError, MemoryLimitError: as in ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     a = sumout.sample("a", dist.Bernoulli(0.5))
    ...     b = sumout.sample("b", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Bernoulli((a + b) / 2), obs=x)
    >>> expectation(model, ["a", "b"], lambda a, b: a + b)(torch.tensor(1.0))
    tensor(1.5000)
    >>> expectation(model, "a", torch.tensor([10.0, 20.0]))(torch.tensor(1.0))
    tensor(17.5000)
    """
    question = Question(target, max_plate_nesting, enumeration)
    names = group_of(sites)

    def query(*args: Any, **kwargs: Any) -> Tensor:
        return _expected(joint_posterior(question, names, args, kwargs), function)

    return query


def _expected(table: Joint, function: Function) -> Tensor:
    batch = len(table.batch_shape)
    sizes = table.probs.shape[batch:]
    values = torch.as_tensor(function(*_grid(table)) if callable(function) else function)
    if tuple(values.shape[: len(sizes)]) != tuple(sizes):
        listed = ", ".join(f"{name}: {size}" for name, size in zip(table.names, sizes, strict=True))
        raise ModelError(
            f"The function's table has shape {tuple(values.shape)}, but its first dimensions are the states of the "
            f"variables ({listed}). A callable's result is to depend on all of them: broadcast it if it does not."
        )
    values = values.to(table.probs.dtype)
    results = values.ndim - len(sizes)
    probs = table.probs.reshape(*table.probs.shape, *[1] * results)
    products = probs * torch.where(probs > 0, values, 0.0)
    return products.sum(tuple(range(batch, batch + len(sizes))))


def _grid(table: Joint) -> list[Tensor]:
    """The values of each variable in all joint states."""
    sizes = table.probs.shape[len(table.batch_shape) :]
    grid = []
    for place, name in enumerate(table.names):
        support = table.supports[name]
        event = support.shape[1:]
        shape = [size if at == place else 1 for at, size in enumerate(sizes)]
        grid.append(support.reshape(*shape, *event).expand(*sizes, *event))
    return grid
