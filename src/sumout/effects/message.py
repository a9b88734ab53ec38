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
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from sumout.effects.frame import CondIndepStackFrame
from sumout.effects.freshness import Kept, Snapshot
from sumout.effects.scoring import derive

DERIVED = dict.fromkeys(("unscaled_log_prob", "log_prob", "log_prob_sum", "score_parts", "packed"))
"""Keys whose values belong to the present contents of a site; ``packed`` is only ever assigned."""


@dataclass(slots=True, eq=False, repr=False)
class Message(MutableMapping[str, Any]):
    """A site: one call of a primitive.

    ``scale`` multiplies and ``mask`` filters the log-probability; ``cond_indep_stack`` records the plates,
    outermost first. ``done``, ``stop`` and ``continuation`` steer the handlers: the value is settled, outer
    handlers do not see the site, a function is called last. ``enum_dim`` is the tensor dimension that an
    enumerated site's values run along, ``enum_dims`` names every enumerated dimension visible at the site.

    >>> site = Message(type="sample", name="z", value=1.0)
    >>> site["value"], site.get("colour"), "colour" in site
    (1.0, None, False)
    """

    type: str = ""
    name: str | None = None
    fn: Any = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    is_observed: bool = False
    infer: dict[str, Any] = field(default_factory=dict)
    scale: float | Tensor = 1.0
    mask: bool | Tensor | None = None
    cond_indep_stack: tuple[CondIndepStackFrame, ...] = ()
    done: bool = False
    stop: bool = False
    continuation: Callable[[Message], None] | None = None
    enum_dim: int | None = None
    enum_dims: dict[int, str] | None = None
    _expanded: tuple[Any, Any] | None = None
    _extra: dict[str, Any] | None = None
    _kept: Kept | None = None

    @classmethod
    def of(cls, contents: Mapping[str, Any]) -> Message:
        """A site from a mapping of its fields and any other keys; ``infer`` and ``kwargs`` are copied."""
        site = cls()
        for key, value in contents.items():
            if key not in DERIVED:
                site[key] = dict(value) if key in ("infer", "kwargs") else value
        for key in DERIVED:
            if key in contents:
                site[key] = contents[key]
        return site

    def copy(self) -> Message:
        """A site of its own with the same contents; ``infer``, ``kwargs`` and unknown keys are copied too."""
        new = Message.__new__(Message)
        new.type = self.type
        new.name = self.name
        new.fn = self.fn
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
        new._expanded = self._expanded
        new._extra = None if self._extra is None else self._extra.copy()
        kept = self._kept
        new._kept = None if kept is None else Kept(kept.snapshot, kept.values.copy(), kept.provisional)
        return new

    __copy__ = copy

    def expand_fn(self, batch_shape: Sequence[int]) -> None:
        """Expands the distribution, and keeps the original: the same density without the repetition."""
        plain = self.plain_fn
        self.fn = self.fn.expand(batch_shape)
        self._expanded = self.fn, plain

    @property
    def plain_fn(self) -> Any:
        """``fn`` as it was before ``expand_fn``; ``fn`` itself where another was put in its place since."""
        expanded = self._expanded
        return expanded[1] if expanded is not None and expanded[0] is self.fn else self.fn

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


_FIELDS = dict.fromkeys(each.name for each in fields(Message) if not each.name.startswith("_"))
_BLANK = Message()
