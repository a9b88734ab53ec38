"""Parallel enumeration: a discrete site takes all its values at once, along a tensor dimension of its own."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, SupportsIndex

from torch import Tensor

from sumout.distributions.families import is_distribution
from sumout.effects.enumerate_site import finite_support, samples
from sumout.effects.finite import BOUNDED, COUNTS, allow_impossible, make_finite
from sumout.effects.frame import CondIndepStackFrame
from sumout.effects.handlers.sequential import SequentialMessenger
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.effects.stack import state
from sumout.errors import EnumerationError, ModelError

Owners = dict[int, str]
"""Negative batch dimension -> the enumerated site whose values run along it; shared, so never changed."""

MAX_DIMS = 64  # torch's limit
MAX_KEPT = 16
_FEW = 16


class _Dims:
    """Which dimension belongs to which site in one run of a program.

    A site outside of ``markov`` keeps its dimension to the end. Sites inside give theirs to later sites that
    cannot see them. Sites one step out of reach keep theirs too: a program that reaches further back than its
    history says then meets a dimension that nobody in reach owns, which can be told, and not another site's.
    The sites of a loop's last steps keep theirs as well, so that a program can go on from where a chain
    arrived, until a loop over a plate moves on to its next element, or when they are too many (``MAX_KEPT``).
    """

    def __init__(self, first: int, owners: Mapping[int, str]) -> None:
        self.first = first
        self.lasting: Owners = dict(owners)
        self.leftmost = min(owners, default=first + 1)
        self.kept: dict[int, tuple[CondIndepStackFrame, ...]] = {}
        """Those of ``lasting`` that belong to last steps -> the elements of looped plates they are in."""
        self.depths: dict[str, int] = {}
        """Sites in markov -> the number of chains they lie in."""
        self.sizes: dict[int, int] = {}
        """The number of values that run along each dimension."""
        self.passed: dict[str, Owners] = {}
        """Sites in markov -> the dimensions of their values."""

    def visible(self, msg: Message) -> Owners:
        """The owners of all dimensions that the site may use."""
        if self.kept:
            self._forget_other_elements(msg.cond_indep_stack)
        scope = msg.infer.get("_markov_scope")
        if scope is None:
            return self.lasting
        self.depths[msg.name or ""] = msg.infer["_markov_depth"]
        return {**self.lasting, **self._in_reach(scope)}

    def _in_reach(self, scope: Mapping[str, int], missing: int = 0) -> Owners:
        """The dimensions of the sites that are in reach of all the chains they lie in but ``missing``."""
        owners: Owners = {}
        depths, passed = self.depths, self.passed
        for name, depth in scope.items():
            if name in passed and depths[name] - depth <= missing:
                for dim, owner in passed[name].items():
                    if owners.setdefault(dim, owner) != owner and not missing:
                        raise EnumerationError(
                            f"The values of sites {owners[dim]!r} and {owner!r} run along one dim, {dim}, and one site "
                            "depends on both: markov gave the dim of what was out of reach away. Raise `history`, "
                            "or leave markov out."
                        )
        return owners

    def _forget_other_elements(self, plates: tuple[CondIndepStackFrame, ...]) -> None:
        gone = [dim for dim, loops in self.kept.items() if loops and not set(loops) <= set(plates)]
        if gone:
            for dim in gone:
                del self.kept[dim]
            self.lasting = {dim: name for dim, name in self.lasting.items() if dim not in gone}
            self.leftmost = min(self.lasting, default=self.first + 1)

    def allocate(self, msg: Message, owners: Owners) -> int:
        """A dimension for the values of the site, which sees the given owners."""
        infer, batch_shape = msg.infer, msg.batch_shape
        in_markov = "_markov_scope" in infer
        last = in_markov and infer["_markov_last"] and len(self.kept) < MAX_KEPT
        taken: Collection[int] = ()
        dim = self.leftmost - 1
        if in_markov:
            # The last step looks too: once dimensions are forgotten, some in reach lie left of ``leftmost``.
            taken = owners.keys() | self._in_reach(infer["_markov_near_scope"], missing=1).keys()
            if not last:
                dim = self.first
        rank = len(batch_shape)
        # A dimension in which the distribution varies is one that a site out of reach owned, or that nobody
        # declared.
        while dim in taken or (rank >= -dim and batch_shape[dim] != 1):
            dim -= 1
        self.leftmost = min(self.leftmost, dim)
        if last:
            self.kept[dim] = tuple(frame for frame in msg.cond_indep_stack if frame.dim is None)
        if last or not in_markov:
            self.lasting = {**self.lasting, dim: msg.name or ""}
        return dim

    def pass_on(self, msg: Message) -> None:
        """Notes along which dimensions the value of a site in markov runs: those that see it see them."""
        value = msg.value
        if not isinstance(value, Tensor):
            return
        if msg.enum_dim is not None and not msg.infer.get("expand"):
            self.passed[msg.name or ""] = {msg.enum_dim: msg.name or ""}
            return
        rank = value.dim() - msg.plain_fn.event_dim
        if rank < -self.first:
            return
        shape = value.shape[:rank]
        runs_along = {
            dim: name for dim, name in (msg.enum_dims or {}).items() if rank >= -dim and shape[dim] > 1
        }
        if runs_along:
            self.passed[msg.name or ""] = runs_along


class _Run(threading.local):
    """The run that is going on in this thread."""

    dims: _Dims | None = None
    sequential: Sequence[SequentialMessenger] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Run, ()  # a copy is not entered


class EnumMessenger(Messenger):
    """Gives every site marked ``infer={"enumerate": "parallel"}`` or ``"auto"`` all its values, along a dimension of
    its own.

    Observed sites and others are left alone. Each sample site is told whose the dimensions are: ``enum_dims``
    maps dimensions of its log-probability to names of enumerated sites, ``enum_dim`` is its own. A site that
    asks for ``num_samples`` in ``infer`` has that many samples in the place of all values, and may then be
    continuous; ``tmc`` and ``expand`` say how they are drawn (``sumout.effects.enumerate_site``).

    Args:
        first_available_dim: the first batch dimension, counted from the right, that no plate uses; this one
            and all left of it are used. Inside another ``enum`` it may be left out: the two share their
            dimensions.
        owners: dimensions among these that are taken: the values of sites that an earlier run enumerated run along
            them, and are replayed in this one.

    Raises:
        ModelError: if it is no negative integer.
        EnumerationError: when the program runs, if a marked site has no finite support or asks for samples in
            a way that does not exist, a plate uses the dimensions meant for enumeration, or there are more
            dimensions than torch can take.

    >>> import sumout.distributions as dist
    >>> from sumout.effects.primitives.sample import sample
    >>> with EnumMessenger(first_available_dim=-2):
    ...     sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
    tensor([[0.],
            [1.]])
    """

    most_values: int | None = None
    """So many values a tensor may have that depends on all sites in sight; no limit if ``None``."""

    def __init__(
        self, first_available_dim: int | None = None, owners: Mapping[int, str] | None = None
    ) -> None:
        super().__init__()
        self.first_available_dim = None if first_available_dim is None else _checked_dim(first_available_dim)
        self.owners = owners or {}
        self._run = _Run()

    def _begin(self) -> None:
        super()._begin()
        self._run.sequential = sequential_around()
        if self.first_available_dim is not None:
            self._run.dims = _Dims(self.first_available_dim, self.owners)
        else:
            around = [frame for frame in state.stack if isinstance(frame, EnumMessenger)]
            self._run.dims = around[-1]._run.dims if around else None

    @property
    def first_dim(self) -> int | None:
        """The first dimension that this run enumerates along, counted from the right; ``None`` if it does not."""
        return None if self._run.dims is None else self._run.dims.first

    def _pyro_sample(self, msg: Message) -> None:
        if not is_distribution(msg.plain_fn):
            return
        run = self._run
        wanted = "enumerate" in msg.infer and is_wanted(msg, run.sequential)
        dims = run.dims
        if dims is None:
            if wanted:
                raise EnumerationError(
                    f"Site {msg.name!r} is to be enumerated, but enum was given no first_available_dim. "
                    "Give -1 minus the number of nested plates."
                )
            return
        for frame in msg.cond_indep_stack:
            if frame.dim is not None and frame.dim <= dims.first:
                raise EnumerationError(
                    f"Plate {frame.name!r} uses dim {frame.dim} at site {msg.name!r}, but enumeration "
                    f"uses the dimensions from {dims.first} leftwards. "
                    f"Give enum(first_available_dim={frame.dim - 1}), or an objective max_plate_nesting={-frame.dim}."
                )
        owners = dims.visible(msg)
        if msg.is_observed and type(msg.plain_fn) in BOUNDED:
            allow_impossible(msg, dims.first)
        if wanted:
            value = _values(msg)
            dim = dims.allocate(msg, owners)
            owners = {**owners, dim: msg.name or ""}
            if self.most_values is not None:
                dims.sizes[dim] = len(value)
                if len(owners) > _FEW:
                    _check_room(msg, [dims.sizes.get(each, 1) for each in owners], self.most_values)
            msg.value = _move(msg, value, dim)
            msg.enum_dim = dim
            msg.done = True
        msg.enum_dims = owners if msg.enum_dims is None else {**owners, **msg.enum_dims}

    def _pyro_post_sample(self, msg: Message) -> None:
        dims = self._run.dims
        if dims is not None and msg.name in dims.depths and is_distribution(msg.plain_fn):
            dims.pass_on(msg)


def sequential_around() -> list[SequentialMessenger]:
    """The handlers around that give sites one of their values in each run."""
    return [frame for frame in state.stack if isinstance(frame, SequentialMessenger)]


def is_wanted(msg: Message, sequential: Sequence[SequentialMessenger]) -> bool:
    """Whether a site is to have all its values at once: it is latent, and does not have one value in each run."""
    mark = msg.infer.get("enumerate")
    if mark not in _MARKS or msg.done or msg.is_observed:
        return False
    if not sequential:
        return bool(mark != "sequential")
    return not any(frame.takes(msg) for frame in sequential)


_MARKS = ("parallel", "auto", "sequential")


def _checked_dim(first_available_dim: SupportsIndex) -> int:
    try:
        dim = operator.index(first_available_dim)
    except TypeError:
        dim = 0
    if dim >= 0:
        raise ModelError(
            f"enum has first_available_dim={first_available_dim!r}; it is a negative integer, as dimensions are "
            "counted from the right. Give -1 minus the number of nested plates."
        )
    return dim


def _values(msg: Message) -> Tensor:
    """All values of the site, or those it was given, or samples of it, along a new leftmost dimension."""
    infer = msg.infer
    if "_values" in infer:
        given: Tensor = infer["_values"]
        return given
    if infer.get("num_samples") is not None:
        return samples(msg)
    # Without expanding, the values are the same for all elements of the plates around.
    expand = infer.get("expand", False)
    if "truncate" in infer or type(msg.plain_fn) in COUNTS:
        make_finite(msg)
    return finite_support(msg.fn if expand else msg.plain_fn, msg.name, expand)


class NoRoomError(EnumerationError):
    """There are more enumerated sites in sight than tensors have dimensions for, or memory room."""


def _check_room(msg: Message, sizes: list[int], most: int) -> None:
    if math.prod(sizes) > most:
        raise NoRoomError(
            f"At site {msg.name!r} {len(sizes)} enumerated sites are in sight, whose values at once could fill the "
            "memory."
        )


def _move(msg: Message, value: Tensor, dim: int) -> Tensor:
    """The values along ``dim``, which is counted in the batch shape."""
    event_shape = msg.plain_fn.event_shape
    if -dim + len(event_shape) > MAX_DIMS:
        raise NoRoomError(
            f"Site {msg.name!r} would be enumerated along dim {dim}, and torch has {MAX_DIMS} dimensions at "
            "most. Declare which sites depend on which with markov, so that dimensions can be used again: "
            "for t in markov(range(T)): ... (Queries and objectives of sumout.infer go on without dimensions.)"
        )
    size, rank = value.shape[0], value.dim() - 1 - len(event_shape)
    if value.numel() == size * event_shape.numel():  # nothing varies along the batch
        moved = value.reshape(size, *[1] * (-1 - dim), *event_shape)
    elif -dim > rank:
        moved = value.reshape(size, *[1] * (-1 - dim - rank), *value.shape[1:])
    else:
        moved = value.transpose(0, 1 + rank + dim)[0]
    # Marks the values as all the categories in order, for which Categorical.log_prob needs no gather.
    mark = getattr(value, "_pyro_categorical_support", None)
    if mark is not None:
        moved._pyro_categorical_support = mark  # type: ignore[attr-defined]
    return moved


enum = wrap(EnumMessenger)
