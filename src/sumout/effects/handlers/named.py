"""What handlers that hold something by name of site have in common: names that no site had are reported.

A misspelt name in ``condition(model, data={"smkoe": 1})`` would otherwise change nothing, silently.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from sumout.effects.handlers.wrap import form_name
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger, level_outside
from sumout.effects.trace import Trace, site_is_subsample
from sumout.errors import ModelError, nearest
from sumout.settings import settings

_MOST = 5
"""So many names are told; who mixed up two programs need not read them all."""


class _Run(threading.local):
    """The names that the run which is going on in this thread has met, and the function that adds one.

    Without validation there is neither.
    """

    seen: list[str | None] | None = None
    saw: Callable[[str | None], None] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Run, ()  # a copy is not entered


class _Muted(threading.local):
    by = 0


_muted = _Muted()


@contextmanager
def unused_names_allowed() -> Iterator[None]:
    """Runs that begin inside report no unused names: for trial runs, which the run proper repeats.

    >>> from sumout.effects.handlers.condition import condition
    >>> with unused_names_allowed(), condition(data={"z": 1.0}):
    ...     pass
    """
    _muted.by += 1
    try:
        yield
    finally:
        _muted.by -= 1


class NamedMessenger(Messenger):
    """A handler that holds something by name of site.

    A subclass says in ``_names`` which names it holds and calls ``_saw(msg)`` in the hook for every site of the
    kind that it holds them for. While ``settings.validation`` is on, a run that ends without an exception and has
    not met all names gives one ``UserWarning`` with the names left and the nearest of those met. Sites that a
    ``block`` inside hides are not met.

    >>> class RenameMessenger(NamedMessenger):
    ...     def _names(self):
    ...         return ["z"]
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error")
    ...     with RenameMessenger():
    ...         pass
    Traceback (most recent call last):
    UserWarning: rename found no sample site named 'z'. Correct the name or leave it out. ...
    """

    _kind = "sample"
    """The type of the sites, as the report calls them."""

    reports_unused = True

    def __init__(self) -> None:
        super().__init__()
        self._run = _Run()

    def _names(self) -> Iterable[str]:
        """The names under which something is held."""
        return ()

    def _expected(self, name: str) -> bool:
        """Whether a run without a site of this name is reported; asked of such names only."""
        return True

    def _saw(self, msg: Message) -> None:
        """Notes that the run has a site of this name. The busiest handlers have it written out in their hooks."""
        if saw := self._run.saw:
            saw(msg.name)

    def _begin(self) -> None:
        super()._begin()
        # As in Pyro, a subclass need not call __init__.
        run: _Run = vars(self).get("_run") or vars(self).setdefault("_run", _Run())
        run.seen = run.saw = None
        if settings.validation and self.reports_unused and not _muted.by:
            run.seen = []
            run.saw = run.seen.append

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        run = self._run
        seen, run.seen, run.saw = run.seen, None, None
        result = super().__exit__(exc_type, exc, trace)
        if seen is not None and exc_type is None:
            met = frozenset(seen)
            unused = [name for name in self._names() if name not in met and self._expected(name)]
            if unused:
                warnings.warn(self._report(unused, seen), stacklevel=level_outside())
        return result

    def _report(self, unused: list[str], seen: list[str | None]) -> str:
        known = [name for name in dict.fromkeys(seen) if name is not None]
        told = [f"{name!r}.{nearest(str(name), known)}" for name in unused[:_MOST]]
        more = f" Nor {len(unused) - _MOST} more." if len(unused) > _MOST else ""
        several = len(unused) > 1
        hint = "" if "Did you mean" in "".join(told) else " Sites that a block inside hides are not found."
        return (
            f"{form_name(type(self))} found no {self._kind} site named {' Nor '.join(told)}{more} "
            f"Correct the name{'s' * several} or leave {'them' if several else 'it'} out.{hint}"
        )


def is_drawn(trace: Trace, name: str) -> bool:
    """Whether a trace has a latent sample site of this name that a model should have too."""
    site = trace.nodes[name]
    return (
        site.type == "sample"
        and not site.is_observed
        and not site.infer.get("is_auxiliary")
        and not site_is_subsample(site)
    )


def check_data(handler: type[Messenger], data: Any, example: str) -> None:
    """Refuses what does not hold values by name.

    Raises:
        ModelError: naming the handler.
    """
    if not (isinstance(data, Trace) or (hasattr(data, "keys") and hasattr(data, "__getitem__"))):
        raise ModelError(
            f"{form_name(handler)} takes values by name of site and was given {type(data).__name__}. "
            f"Give a dict, e.g. {example}."
        )
