"""From a record with hidden values to one with dimensions: each site has its own, for what it depends on.

What reads a trace finds there what positional enumeration would have left: ``enum_dims`` says whose values run along
which dimension of the site, to the left of its plates. Only that the same dimension is another site's elsewhere.
"""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import is_distribution
from sumout.effects.hidden.axes import Axes, Axis, merged
from sumout.effects.hidden.elementwise import common_shape
from sumout.effects.hidden.value import Hidden
from sumout.effects.message import Message
from sumout.effects.scoring import unscaled_log_prob
from sumout.effects.trace import Trace
from sumout.errors import EnumerationError

MAX_DIMS = 64  # torch's limit
OutOfReach = Callable[[str, Axes], Sequence[Axis]]
Convert = Callable[[Any, int], Any]
"""Gives a value, which has so many event dimensions, its dimensions."""


class Tabulated(dist.MaskedDistribution):  # type: ignore[misc]
    """A site's distribution of which the log-probability of the site's value is known, and the values that it takes."""

    arg_constraints: Mapping[str, Any] = {}

    def __init__(self, base: Any, value: Any, log_prob: Tensor, event_shape: torch.Size) -> None:
        self.base_dist = base
        self._value, self._log_prob = value, log_prob
        self._mask = None
        torch.distributions.Distribution.__init__(self, log_prob.shape, event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Tabulated:
        """The same along more dimensions."""
        log_prob = self._log_prob.expand(torch.Size(batch_shape))
        return Tabulated(self.base_dist, self._value, log_prob, self.event_shape)

    def log_prob(self, value: Any) -> Tensor:
        """That of the site's value.

        Raises:
            EnumerationError: for another one.
        """
        if value is not self._value and not torch.equal(torch.as_tensor(value), torch.as_tensor(self._value)):
            raise EnumerationError(
                f"The log-probability of a {type(self.base_dist).__name__} is known for all values of the enumerated "
                "sites at once, but only at the value that its site has. Run the program again with the other value."
            )
        return self._log_prob

    @property
    def has_enumerate_support(self) -> bool:
        return bool(self.base_dist.has_enumerate_support)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values, with ones in the place of the batch shape."""
        values: Tensor = self.base_dist.enumerate_support(expand=False)
        return values.reshape(len(values), *[1] * len(self.batch_shape), *self.event_shape)


def positional(trace: Trace, rank: int, out_of_reach: OutOfReach) -> Trace:
    """A copy of a trace in which the values of sample sites have dimensions.

    Args:
        trace: recorded with hidden values.
        rank: the number of dimensions of plates.
        out_of_reach: those of some axes that a site must not depend on.

    Raises:
        EnumerationError: if a site depends on such a one, or on more than torch has dimensions for.
    """
    new = trace.shallow_copy()
    for name, site in trace.nodes.items():
        if site.type == "sample" and is_distribution(site.plain_fn):
            new.nodes[name] = _positional_site(site, rank, out_of_reach)
    return new


def _positional_site(site: Message, rank: int, out_of_reach: OutOfReach) -> Message:
    fn = site.plain_fn
    own = next((axis for axis in _axes_of(site.value) if axis.site == site.name), None)
    parts = _tensors(fn, 0)
    if parts is None:
        log_prob = unscaled_log_prob(site, fn)
        axes = merged([_axes_of(log_prob), _axes_of(site.value)])
    else:
        axes = merged([_axes_of(each) for each in (site.value, *parts)])
    axes = merged([axes, _axes_of(site.mask), _axes_of(site.scale)])
    if not axes:
        return site
    beyond = out_of_reach(site.name or "", axes)
    if beyond:
        raise _too_far(site, beyond[0])
    events = fn.event_dim
    rank = max(rank, len(fn.batch_shape), _rank(site.value) - events, _rank(site.mask))
    if rank + events + len(axes) > MAX_DIMS:
        raise EnumerationError(
            f"Site {site.name!r} depends on {len(axes)} enumerated sites at once, more than a table can have "
            "dimensions. Let it depend on fewer, for instance through sites of partial sums."
        )
    dims = {axis: -(rank + len(axes) - place) for place, axis in enumerate(axes)}

    def convert(value: Any, event_dims: int) -> Any:
        return value.spread(axes, rank + event_dims) if isinstance(value, Hidden) else value

    new = site.copy()
    plates = None if new._plates_shape is None else list(new._plates_shape)
    new.value = convert(site.value, events)
    if parts is None:
        new.plain_fn = Tabulated(fn, new.value, convert(log_prob, 0), fn.event_shape)
        new.args, new.kwargs = (), {}
    else:
        new.plain_fn = _converted(fn, convert, 0)
    if plates is not None:
        batch = list(new.plain_fn.batch_shape)
        plates = [1] * (len(batch) - len(plates)) + plates
        batch = [1] * (len(plates) - len(batch)) + batch
        new.expand_fn([max(sizes) for sizes in zip(batch, plates, strict=True)])
    else:
        new.fn = new.plain_fn
    new.mask, new.scale = convert(site.mask, 0), convert(site.scale, 0)
    new.enum_dims = {dim: axis.site for axis, dim in dims.items()}
    new.enum_dim = None if own is None or site.enum_dim is None else dims[own]
    new._kept = None
    return new


def _axes_of(value: Any) -> Axes:
    return value.axes if isinstance(value, Hidden) else ()


def _rank(value: Any) -> int:
    if isinstance(value, Hidden):
        return value.visible_rank
    return value.dim() if isinstance(value, Tensor) else 0


def _too_far(site: Message, axis: Axis) -> EnumerationError:
    return EnumerationError(
        f"Site {site.name!r} depends on site {axis.site!r}, which it does not see: inside markov a site sees "
        "`history` steps back, and after the loop those of the last steps. Raise `history` if the dependence is "
        "meant, or leave markov out."
    )


_SIMPLE = (numbers.Number, str, torch.Size, type(None), torch.dtype)


def _tensors(fn: Any, depth: int) -> list[Tensor] | None:
    """All tensors of a distribution whose places in the batch are known; ``None`` for other distributions."""
    if type(fn) is dist.Independent:
        return _tensors(fn.base_dist, depth + 1)
    if type(fn) is dist.OneHotCategorical:
        return _tensors(fn._categorical, depth)
    found = []
    event = 1 if type(fn) is dist.Categorical else 0
    rank = len(fn.batch_shape)
    for key, value in vars(fn).items():
        if isinstance(value, Tensor):
            shape = value.visible_shape if isinstance(value, Hidden) else value.shape
            if len(shape) != rank + event or tuple(shape[:rank]) != tuple(fn.batch_shape):
                return None
            found.append(value)
        elif not isinstance(value, _SIMPLE) and not key.startswith("_cache"):
            return None
    return found


def _converted(fn: Any, convert: Convert, events: int) -> Any:
    """The distribution with tensors that have dimensions; ``events`` of its batch are an event further out."""
    new = copy.copy(fn)
    if type(fn) is dist.Independent:
        inner = fn.reinterpreted_batch_ndims
        new.base_dist = _converted(fn.base_dist, convert, events + inner)
        shape = new.base_dist.batch_shape
        new._batch_shape = shape[: len(shape) - inner]
        return new
    if type(fn) is dist.OneHotCategorical:
        new._categorical = _converted(fn._categorical, convert, events)
        new._batch_shape = new._categorical.batch_shape
        return new
    event = 1 if type(fn) is dist.Categorical else 0
    made: dict[int, Any] = {}
    shapes = []
    for key, value in _held(fn):
        if id(value) not in made:
            made[id(value)] = convert(value, events + event)
        new.__dict__[key] = made[id(value)]
        shapes.append(made[id(value)].shape[: made[id(value)].dim() - event])
    new._batch_shape = torch.Size(common_shape(shapes))
    return new


def _held(fn: Any) -> Iterator[tuple[str, Tensor]]:
    return ((key, value) for key, value in vars(fn).items() if isinstance(value, Tensor))
