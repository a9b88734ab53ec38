"""The one object that travels through all handlers: a site, from its call to its place in a trace.

It is a slots dataclass, because handlers read and write it at every site, and a mapping, because programs
and libraries around handlers index sites like dictionaries. Known names are attributes; any other key
lives in a dictionary made when it is first needed.

Log-probabilities are derived: ``site["log_prob"]`` is computed when it is read, kept as long as what it was
computed from is the same, and made anew after that. Like the keys of a ``defaultdict``, they are listed
only once they were read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sumout.effects.frame import CondIndepStackFrame
from sumout.effects.freshness import Kept, Snapshot
from sumout.effects.scoring import derive

DERIVED = dict.fromkeys(("unscaled_log_prob", "log_prob", "log_prob_sum", "score_parts", "packed"))
"""Keys whose values belong to the present contents of a site; ``packed`` is only ever assigned."""


_new = object.__new__


@dataclass(slots=True, eq=False, repr=False, init=False)
class Message(MutableMapping[str, Any]):
    """A site: one call of a primitive.

    ``scale`` multiplies and ``mask`` filters the log-probability; ``cond_indep_stack`` records the plates,
    outermost first. ``done``, ``stop`` and ``continuation`` steer the handlers: the value is settled, outer
    handlers do not see the site, a function is called last. ``enum_dim`` is the tensor dimension that an
    enumerated site's values run along, ``enum_dims`` names every enumerated dimension visible at the site.

    ``fn`` is the distribution along all plates, ``plain_fn`` as the program gave it: the same density without
    the repetition. The former is made when it is first asked for; an enumerated or observed site seldom is.

    Any other keyword becomes a key.

    >>> site = Message(type="sample", name="z", value=1.0)
    >>> site["value"], site.get("colour"), "colour" in site
    (1.0, None, False)
    """

    type: str
    name: str | None
    plain_fn: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    value: Any
    is_observed: bool
    infer: dict[str, Any]
    scale: float | Tensor
    mask: bool | Tensor | None
    cond_indep_stack: tuple[CondIndepStackFrame, ...]
    done: bool
    stop: bool
    continuation: Callable[[Message], None] | None
    enum_dim: int | None
    enum_dims: dict[int, str] | None
    _plates_shape: Sequence[int] | None
    _fn: Any
    _extra: dict[str, Any] | None
    _kept: Kept | None

    def __init__(
        self,
        type: str = "",
        name: str | None = None,
        fn: Any = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        value: Any = None,
        is_observed: bool = False,
        infer: dict[str, Any] | None = None,
        scale: float | Tensor = 1.0,
        mask: bool | Tensor | None = None,
        cond_indep_stack: tuple[CondIndepStackFrame, ...] = (),
        done: bool = False,
        stop: bool = False,
        continuation: Callable[[Message], None] | None = None,
        enum_dim: int | None = None,
        enum_dims: dict[int, str] | None = None,
        **more: Any,
    ) -> None:
        kwargs, infer = {} if kwargs is None else kwargs, {} if infer is None else infer
        self._fill(type, name, fn, args, kwargs, value, is_observed, infer)
        self.scale = scale
        self.mask = mask
        self.cond_indep_stack = cond_indep_stack
        self.done = done
        self.stop = stop
        self.continuation = continuation
        self.enum_dim = enum_dim
        self.enum_dims = enum_dims
        if more:
            self._add(more)

    def _fill(
        self,
        type: str,
        name: str | None,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        value: Any,
        is_observed: bool,
        infer: dict[str, Any],
    ) -> None:
        self.type = type
        self.name = name
        self.plain_fn = fn
        self.args = args
        self.kwargs = kwargs
        self.value = value
        self.is_observed = is_observed
        self.infer = infer
        self.scale = 1.0
        self.mask = self.continuation = self.enum_dim = self.enum_dims = None
        self.cond_indep_stack = ()
        self.done = self.stop = False
        self._plates_shape = self._fn = self._extra = self._kept = None

    @staticmethod
    def sent(
        type: str,
        name: str | None,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        value: Any,
        is_observed: bool,
        infer: dict[str, Any],
    ) -> Message:
        """A site as a primitive sends it; the same as by the constructor, in half the time."""
        site = _new(Message)
        site._fill(type, name, fn, args, kwargs, value, is_observed, infer)
        return site

    def _add(self, contents: Mapping[str, Any]) -> None:
        """Derived values come last: they belong to the rest."""
        for key, value in contents.items():
            if key not in DERIVED:
                self[key] = value
        for key in DERIVED:
            if key in contents:
                self[key] = contents[key]

    @property
    def fn(self) -> Any:
        """The distribution, or the function that draws; of the batch shape of the plates."""
        if self._plates_shape is None:
            return self.plain_fn
        if self._fn is None:
            plain = self.plain_fn
            self._fn = plain.expand(self._plates_shape)
            if self._fn.has_rsample != plain.has_rsample:
                self._fn.has_rsample = plain.has_rsample  # set on the instance, which expand() forgets
        return self._fn

    @fn.setter
    def fn(self, fn: Any) -> None:
        self.plain_fn = fn
        self._plates_shape = self._fn = None

    @property
    def batch_shape(self) -> Sequence[int]:
        """The batch shape of ``fn``, found without making it."""
        shape: Sequence[int] = self.plain_fn.batch_shape if self._plates_shape is None else self._plates_shape
        return shape

    def expand_fn(self, batch_shape: Sequence[int]) -> None:
        """Gives ``fn`` a larger batch shape."""
        self._plates_shape, self._fn = batch_shape, None

    @classmethod
    def of(cls, contents: Mapping[str, Any]) -> Message:
        """A site from a mapping of its fields and any other keys; ``infer`` and ``kwargs`` are copied."""
        site = cls()
        own = {key: dict(contents.get(key) or {}) for key in ("infer", "kwargs")}
        site._add({**contents, **own})
        return site

    def copy(self) -> Message:
        """A site of its own with the same contents; ``infer``, ``kwargs`` and unknown keys are copied too."""
        new = Message.__new__(Message)
        new.type = self.type
        new.name = self.name
        new.plain_fn = self.plain_fn
        new._plates_shape = self._plates_shape
        new._fn = self._fn
        new.args = self.args
        new.kwargs = self.kwargs.copy()
        new.value = self.value
        new.is_observed = self.is_observed
        new.infer = self.infer.copy()
        new.scale = self.scale
        new.mask = self.mask
        new.cond_indep_stack = self.cond_indep_stack
        new.done = self.done
        new.stop = self.stop
        new.continuation = self.continuation
        new.enum_dim = self.enum_dim
        new.enum_dims = self.enum_dims
        new._extra = None if self._extra is None else self._extra.copy()
        kept = self._kept
        new._kept = None if kept is None else Kept(kept.snapshot, kept.values.copy(), kept.provisional)
        return new

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        return Message.of, (dict(self),)

    def _listed(self) -> dict[str, Any]:
        """The derived values that belong to the present contents."""
        kept = self._kept
        return {} if kept is None or not kept.snapshot.holds(self) else kept.values

    def _derive(self, key: str) -> Any:
        kept = self._kept
        known = kept.usable() if kept is not None and kept.snapshot.holds(self) else {}
        if key in known:
            return known[key]
        if self.type != "sample" or key == "packed":
            raise KeyError(key)
        values = derive(self, key, known)
        snapshot = Snapshot.of(self)  # after scoring: distributions keep what they compute
        lasting = snapshot.exact and torch.is_grad_enabled()
        provisional = frozenset() if lasting else frozenset(values.keys() - known.keys())
        self._kept = Kept(snapshot, values, provisional)
        return values[key]

    def __getitem__(self, key: str) -> Any:
        if key in _FIELDS:
            return getattr(self, key)
        if key in DERIVED:
            return self._derive(key)
        if self._extra is None:
            raise KeyError(key)
        return self._extra[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key in _FIELDS:
            setattr(self, key, value)
        elif key in DERIVED:
            values = {**self._listed(), key: value}
            provisional = frozenset() if self._kept is None else self._kept.provisional & values.keys()
            self._kept = Kept(Snapshot.of(self), values, provisional - {key})
        else:
            if self._extra is None:
                self._extra = {}
            self._extra[key] = value

    def __delitem__(self, key: str) -> None:
        if key in _FIELDS:
            raise TypeError(f"{key!r} is part of every site and cannot be removed; assign to it instead.")
        if key in DERIVED:
            del self._listed()[key]
        elif self._extra is None:
            raise KeyError(key)
        else:
            del self._extra[key]

    def __contains__(self, key: object) -> bool:
        if key in _FIELDS:
            return True
        return key in self._listed() if key in DERIVED else key in (self._extra or ())

    def __iter__(self) -> Iterator[str]:
        yield from _FIELDS
        yield from self._extra or ()
        yield from tuple(self._listed())

    def __len__(self) -> int:
        return len(_FIELDS) + len(self._extra or ()) + len(self._listed())

    def __or__(self, other: Mapping[str, Any]) -> Message:
        """A copy brought up to date with another mapping, as with dictionaries."""
        if not isinstance(other, Mapping):
            return NotImplemented
        new = self.copy()
        new.update(other)
        return new

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """A dictionary of both, in which this site's entries hold."""
        return {**other, **self} if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Mapping[str, Any]) -> Message:
        self.update(other)
        return self

    def __repr__(self) -> str:
        """What differs from an empty site, without the marks that steer handlers; large tensors by shape."""
        shown = [f"{key}={_brief(self[key])}" for key in self if key in ("type", "name") or self._is_set(key)]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _is_set(self, key: str) -> bool:
        if key in ("done", "stop", "continuation"):
            return False
        if key not in _FIELDS:
            return True
        value, blank = self[key], getattr(_BLANK, key)
        return type(value) is not type(blank) or bool(value != blank)


def _brief(value: Any) -> str:
    if isinstance(value, Tensor) and value.numel() > 8:
        return f"<tensor of shape {tuple(value.shape)}>"
    if type(value) is tuple or type(value) is list:
        inside = ", ".join(map(_brief, value))
        return f"[{inside}]" if type(value) is list else f"({inside}{',' * (len(value) == 1)})"
    if type(value) is dict:
        return "{" + ", ".join(f"{key!r}: {_brief(each)}" for key, each in value.items()) + "}"
    return repr(value)


_FIELDS = dict.fromkeys(
    each.name.replace("plain_fn", "fn") for each in fields(Message) if not each.name.startswith("_")
)
"""The keys of every site, in order; ``fn`` stands for itself and ``plain_fn``."""
_BLANK = Message()
