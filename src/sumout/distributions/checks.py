"""Checks of distributions' arguments in few passes over the numbers, with the outcome of torch's.

Torch checks each argument with some five small operations, recorded for derivatives that nobody takes: two thirds of
what a distribution of a small model costs. The least and the largest number tell the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.distribution import COERCIONS
from torch import Tensor
from torch.distributions import constraints

_TOLERANCE = 1e-6
"""How far from one torch lets the numbers of a simplex sum to."""


def _ends(value: Tensor) -> tuple[float, float]:
    """The least and the largest number; NaN if any is."""
    if not any(value.stride()):  # It is one number, repeated.
        only: float = (value.as_strided((), ()) if value.dim() else value).item()
        return only, only
    low, high = torch.aminmax(value)
    return low.item(), high.item()


_MOST_ROWS, _MOST_STATES = 2**12, 2**9


def _on_simplex(value: Tensor, divided: bool) -> bool:
    """Whether each row is; ``divided`` tells that rows were divided by their sums."""
    if value.dim() == 0 or not _ends(value)[0] >= 0:
        return False
    states = value.shape[-1]
    rows = value.numel() // states
    if divided and rows <= _MOST_ROWS and states <= _MOST_STATES and value.element_size() >= 4:
        # Then a row without NaN sums to one but for rounding, or to zero where its sum was infinite: the whole tells.
        return value.sum().item() > rows - 0.5
    low, high = _ends(value.sum(-1))
    return 1 - low < _TOLERANCE and high - 1 < _TOLERANCE


_BY_ENDS: Mapping[type, Callable[[Any, float, float], bool]] = {
    type(constraints.positive): lambda bound, low, high: low > bound.lower_bound,
    type(constraints.nonnegative): lambda bound, low, high: low >= bound.lower_bound,
    type(constraints.unit_interval): lambda bounds, low, high: (
        bounds.lower_bound <= low <= high <= bounds.upper_bound
    ),
    type(constraints.real): lambda _, low, high: low == low,
}
"""Whether all numbers from the least to the largest are in the set."""

_SIMPLEX, _VECTOR = type(constraints.simplex), type(constraints.real_vector)
_CHOLESKY = type(constraints.lower_cholesky)
_BOOLEAN = type(constraints.boolean)


def _quickly_holds(constraint: Any, value: Tensor, divided: bool = False) -> bool:
    """False also where a closer look is needed; see ``_on_simplex``."""
    while type(constraint) is _VECTOR and value.dim() >= constraint.reinterpreted_batch_ndims:
        constraint = constraint.base_constraint
    by_ends = _BY_ENDS.get(type(constraint))
    try:
        if by_ends is not None:
            return bool(by_ends(constraint, *_ends(value.detach())))
        if type(constraint) is _BOOLEAN:
            value = value.detach()
            return torch.equal(value, value.clamp(0, 1).ceil_())
        if type(constraint) is _CHOLESKY:
            if value.dim() == 2 and value.numel() <= _FEW:
                return _is_small_cholesky(value.tolist())
            return bool(constraint.check(value.detach()).all())  # type: ignore[no-untyped-call]
        return type(constraint) is _SIMPLEX and _on_simplex(value.detach(), divided)
    except RuntimeError:  # Where vmap hides the numbers, or bounds are many: torch says so.
        return False


_FEW = 256
"""Numbers that Python looks at in less time than it takes to call torch."""


def _is_small_cholesky(rows: list[list[float]]) -> bool:
    """Whether a matrix is lower triangular with a positive diagonal, and has no NaN."""
    for place, row in enumerate(rows):
        below = sum(row[: place + 1])
        if not row[place] > 0 or below != below or any(row[place + 1 :]):
            return False
    return True


def quickly_holds(constraint: Any, value: Tensor) -> bool:
    """Whether all numbers are in the set for sure, in few passes over them; false also for sets that are not known."""
    return _is_plain(value) and _quickly_holds(constraint, value)


def holds(constraint: Any, value: Tensor) -> bool:
    """Whether all of a tensor's numbers, or events, are in the set: ``constraint.check(value).all()``.

    Raises:
        ValueError: as ``constraint.check`` does, for a value that has too few dimensions.

    >>> holds(constraints.unit_interval, torch.tensor([0.0, 0.5])), holds(constraints.positive, torch.tensor(torch.nan))
    (True, False)
    """
    return quickly_holds(constraint, value) or bool(constraint.check(value).all())


def _is_plain(value: Tensor) -> bool:
    """Whether its numbers can be looked at; on a device each look waits for all that is going on there."""
    return (
        (type(value) is Tensor or type(value) is torch.nn.Parameter)
        and value.is_cpu
        and value.layout is torch.strided
        and value.is_floating_point()
        and value.numel() > 0
    )


def lie_between(value: Tensor, low: float, high: float) -> bool:
    """Whether all numbers are known to lie there: what is recorded for other numbers, or on a device, is not asked.

    >>> lie_between(torch.tensor([0.1, 0.5]), 0.0, 1.0), lie_between(torch.tensor([0.1, 1.5]), 0.0, 1.0)
    (True, False)
    """
    if not _is_plain(value) or torch._C._get_tracing_state() is not None or torch.compiler.is_compiling():
        return False
    try:
        least, largest = _ends(value.detach())
    except RuntimeError:  # Where a transform hides the numbers, as vmap does.
        return False
    return low <= least and largest <= high


_SIMPLE: Mapping[type, tuple[str, ...]] = {
    dist.Bernoulli: ("probs", "logits"),
    dist.Categorical: ("probs", "logits"),
    dist.Exponential: ("rate",),
    dist.Gamma: ("concentration", "rate"),
    dist.Laplace: ("loc", "scale"),
    dist.MultivariateNormal: ("loc", "covariance_matrix", "precision_matrix", "scale_tril"),
    dist.Normal: ("loc", "scale"),
    dist.Poisson: ("rate",),
}
"""Families whose constructor does nothing with ``validate_args`` but to check each argument by itself, with the names
of the arguments before it."""

_EXACT = 1e-4, 1e4
"""Between these, Python's numbers are positive and finite in all types of tensors, too."""


_DECOMPOSED = "covariance_matrix", "precision_matrix"
"""Arguments that are decomposed before they are checked."""


def _numbers(value: Tensor) -> Tensor:
    """Those that a value which is not known yet has for checks."""
    return getattr(value, "probe", value)


def quickly_made(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A distribution whose arguments were checked, as its constructor makes it; ``None`` if that is to do so.

    It is, too, where an argument is not valid: the error is the constructor's.
    """
    names = _SIMPLE.get(cls)
    if names is None or len(args) > len(names) or "validate_args" in kwargs or not cls._validate_args:
        return None
    given = dict(zip(names, args, strict=False), **kwargs)
    if cls is dist.MultivariateNormal and any(given.get(each) is not None for each in _DECOMPOSED):
        return None
    for each in given.values():
        if isinstance(each, Tensor) and not _is_plain(_numbers(each)):
            return None
    fn = type.__call__(cls, *args, **kwargs, validate_args=False)
    attributes, categories = fn.__dict__, cls is dist.Categorical
    del attributes["_validate_args"]  # It is the class's again, as where nothing is said.
    of_arguments = cls.arg_constraints
    for name, value in given.items():
        if value is None or (type(value) is float and _is_usual(of_arguments[name], value)):
            continue
        if categories or not isinstance(value, Tensor):
            value = attributes[name]
        if not _quickly_holds(of_arguments[name], _numbers(value), divided=categories):
            return None
    if categories and given.get("probs") is not None and attributes["probs"].requires_grad:
        attributes["_given"] = given["probs"], given["probs"]._version, fn._param, fn._param._version
    return fn


def _is_usual(constraint: Any, value: float) -> bool:
    by_ends = _BY_ENDS.get(type(constraint))
    low, high = _EXACT
    return by_ends is not None and (value == 0 or low < value < high) and by_ends(constraint, value, value)


def unnormalized(fn: Any) -> Tensor | None:
    """The probabilities that a Categorical was given, before it divided them by their sum, if it still knows them.

    Many of them are normalized in one operation; so are their derivatives.

    >>> unnormalized(dist.Categorical(torch.ones(2))) is None
    True
    """
    known = fn.__dict__.get("_given")
    if known is None or fn._param is not known[2] or not fn._param.requires_grad:
        return None
    probs: Tensor = known[0]
    return probs if (probs._version, fn._param._version) == known[1::2] else None


def make_quickly(where: Callable[[], Any]) -> None:
    """Lets Pyro make distributions by ``quickly_made`` wherever ``where()`` is true: it asks for each that is made."""

    def coerce(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return quickly_made(cls, args, kwargs) if cls in _SIMPLE and where() else None

    COERCIONS.insert(0, coerce)
