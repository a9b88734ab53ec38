"""Distributions whose support differs along the batch, or is cut off, for all values of enumerated sites at once."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import innermost
from sumout.effects.hidden import Hidden
from sumout.effects.message import Message
from sumout.errors import EnumerationError

FINEST = 1e-12
"""Masses below this are not told apart: that is how far sums of probabilities can be trusted."""
MOST_VALUES = 2**16
COUNTS = frozenset([dist.Binomial, dist.BetaBinomial])
"""Families with finitely many values, which may be other ones for each element of a batch."""
BOUNDED: dict[type, tuple[str, ...]] = {
    dist.Binomial: ("total_count",),
    dist.BetaBinomial: ("total_count",),
    dist.Uniform: ("low", "high"),
}
"""Families whose support depends on parameters, with these."""


class Finite(dist.TorchDistribution):  # type: ignore[misc]
    """A distribution of numbers; values out of its support have probability zero, as they are in that of others.

    Args:
        base: a distribution of single numbers.
        values: those that are listed, shape ``(number,)``.

    >>> counts = Finite(dist.Binomial(torch.tensor([1.0, 2.0]), 0.5), torch.arange(3.0))
    >>> counts.log_prob(counts.enumerate_support(expand=False)).exp()
    tensor([[0.5000, 0.2500],
            [0.5000, 0.5000],
            [0.0000, 0.2500]])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's name for it)

    def __init__(self, base: Any, values: Tensor | None = None) -> None:
        self.base_dist = copy.copy(base)
        self.base_dist._validate_args = False
        self.values = values
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    @property
    def has_enumerate_support(self) -> bool:
        return self.values is not None

    def expand(self, batch_shape: Any, _instance: Any = None) -> Finite:
        """The same with a larger batch shape."""
        return Finite(self.base_dist.expand(batch_shape), self.values)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws from the base distribution."""
        drawn: Tensor = self.base_dist.sample(torch.Size(sample_shape))
        return drawn

    def log_prob(self, value: Tensor) -> Tensor:
        """The base distribution's, and ``-inf`` out of its support."""
        inside = self.base_dist.support.check(value)
        log_prob: Tensor = self.base_dist.log_prob(torch.where(inside, value, torch.zeros_like(value)))
        return torch.where(inside, log_prob, torch.full_like(log_prob, -torch.inf))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The listed values, with ones in the place of the batch shape unless expanded."""
        if self.values is None:
            raise NotImplementedError("its values are not listed")
        values = self.values.reshape(-1, *[1] * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values


def make_finite(msg: Message) -> None:
    """Gives a site that is to be enumerated a distribution with finitely many values, the same for all of its batch.

    It does so for binomial counts of different totals, and where ``infer`` has ``truncate``: a largest value, or a
    probability that may be lost at the most. The probability that is lost is then found in ``infer["lost_mass"]``.

    Raises:
        EnumerationError: if the site cannot be cut off so.
    """
    fn = msg.plain_fn
    truncate = msg.infer.get("truncate")
    if truncate is not None:
        last, lost = _cut(msg, truncate)
        msg.infer["lost_mass"] = lost
    elif type(fn) in COUNTS and not _is_one_number(fn.total_count):
        last = int(_all_values(fn.total_count).max())
    else:
        return
    like = _all_values(_a_parameter(fn))
    values = torch.arange(last + 1, dtype=like.dtype, device=like.device)
    msg.plain_fn, msg._fn = Finite(fn, values), None


def allow_impossible(msg: Message, first_dim: int) -> None:
    """Lets an observed value be impossible for some values of enumerated sites, on which the support depends.

    Args:
        msg: an observed site.
        first_dim: the first dimension, counted from the right, that enumerated values run along.
    """
    bounds = BOUNDED.get(type(msg.plain_fn), ())
    if any(_is_enumerated(vars(msg.plain_fn)[each], first_dim) for each in bounds):
        msg.plain_fn, msg._fn = Finite(msg.plain_fn), None


def _is_enumerated(bound: Any, first_dim: int) -> bool:
    if isinstance(bound, Hidden):
        return True
    return isinstance(bound, Tensor) and any(size > 1 for size in bound.shape[: bound.dim() + 1 + first_dim])


def _a_parameter(fn: Any) -> Tensor:
    found = (each for each in vars(innermost(fn)).values() if isinstance(each, Tensor))
    return next((each for each in found if each.is_floating_point()), torch.zeros(()))


def _all_values(value: Tensor) -> Tensor:
    return value.raw if isinstance(value, Hidden) else value


def _is_one_number(value: Any) -> bool:
    numbers = _all_values(value)
    return not isinstance(numbers, Tensor) or bool((numbers == numbers.flatten()[0]).all())


def _cut(msg: Message, truncate: Any) -> tuple[int, float]:
    """The last value, and the mass beyond it, at the most over the batch and all values of other sites."""
    fn, name = msg.plain_fn, msg.name
    integers = getattr(fn.support, "is_discrete", False) and fn.event_dim == 0
    if not integers or not bool(_all_values(fn.support.check(_zero(fn))).all()):
        raise EnumerationError(
            f"Site {name!r} has truncate={truncate!r}, and {type(innermost(fn)).__name__} has not the values 0, 1, 2, "
            "and so on. Only such counts can be cut off."
        )
    if isinstance(truncate, int) and not isinstance(truncate, bool) and truncate >= 0:
        return truncate, _lost(fn, truncate)
    if not (isinstance(truncate, float) and FINEST <= truncate < 1):
        raise EnumerationError(
            f"Site {name!r} has truncate={truncate!r}: it is the largest value, an integer of at least 0, or the "
            f"probability that may be lost, a float from {FINEST} to 1."
        )
    last = 1
    while _lost(fn, last) > truncate:
        last *= 2
        if last > MOST_VALUES:
            raise EnumerationError(
                f"Site {name!r} has truncate={truncate!r}, for which more than {MOST_VALUES} values are needed. Allow "
                "for a larger loss, or give the largest value."
            )
    low = last // 2
    while low + 1 < last:
        middle = (low + last) // 2
        low, last = (middle, last) if _lost(fn, middle) > truncate else (low, middle)
    return last, _lost(fn, last)


def _zero(fn: Any) -> Tensor:
    return torch.zeros((), dtype=_all_values(_a_parameter(fn)).dtype)


def _lost(fn: Any, last: int) -> float:
    """The probability of values beyond the last; where it cannot be told from zero, what it may be at the most."""
    like = _all_values(_a_parameter(fn))
    values = torch.arange(last + 1, dtype=like.dtype, device=like.device)
    with torch.no_grad():
        logs = Finite(fn, values).log_prob(values.reshape(-1, *[1] * len(fn.batch_shape)))
        kept = _all_values(torch.logsumexp(logs.double(), 0)).min()
    rounding = FINEST if like.dtype == torch.float64 else 1e-6
    return max(-math.expm1(min(float(kept), 0.0)), rounding)
