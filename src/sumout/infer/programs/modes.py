"""How the values of enumerated sites look to a program, and what to do where a program cannot take them so.

=============  ===========================================================================================
``DIMS``       a tensor dimension for each site, to the left of the plates': quick, as torch does the work
``HIDDEN``     the shape of one value; of size one along the plates that a site is in
``SHAPED``     the shape of one value; along plates too
=============  ===========================================================================================

A program is run in the first. Where dimensions run out, or memory might, or the program moves them, so that it fails or
means something else than with one value each, it is run in the next. The mode that a program needed is remembered.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from sumout.effects import NonlocalExit, Trace
from sumout.effects.handlers import EnumMessenger
from sumout.effects.handlers.enum import NoRoomError
from sumout.effects.handlers.enum_hidden import HiddenEnumMessenger
from sumout.effects.handlers.sequential import Places
from sumout.effects.random_state import TorchState
from sumout.errors import ControlFlowError, DuplicateSiteError, EnumerationError, PlateError, SumoutError

T = TypeVar("T")


class _BoundedEnumMessenger(EnumMessenger):
    most_values = 2**22


class Mode(Enum):
    """See the top of this file."""

    DIMS = 0
    HIDDEN = 1
    SHAPED = 2

    def handler(self, first_available_dim: int) -> EnumMessenger | HiddenEnumMessenger:
        """The handler that enumerates in this mode."""
        if self is Mode.DIMS:
            return _BoundedEnumMessenger(first_available_dim)
        return HiddenEnumMessenger(first_available_dim, shaped=self is Mode.SHAPED)


def finished(handler: EnumMessenger | HiddenEnumMessenger, trace: Trace) -> Trace:
    """The record of a run under a mode's handler, with dimensions for values."""
    return handler.finish(trace) if isinstance(handler, HiddenEnumMessenger) else trace


class NestingError(EnumerationError):
    """``max_plate_nesting`` was given and is too small: that is the same in all modes."""


_needed: weakref.WeakKeyDictionary[Any, Mode] = weakref.WeakKeyDictionary()


def in_a_mode_that_works(key: Any, attempt: Callable[[Mode], T]) -> T:
    """What an attempt gives in the first mode in which it does not fail.

    Args:
        key: what the mode is remembered for: a program, or an objective.
        attempt: runs a program in a mode and checks what came of it.

    Raises:
        ControlFlowError: if Python decides on a value: no mode helps.
        Exception: that of the first mode, if all fail.
    """
    try:
        known = _needed.get(key, Mode.DIMS)
    except TypeError:  # of an object that cannot be remembered
        known = Mode.DIMS
    failures: list[Exception] = []
    before, places = TorchState.now(), Places()
    for mode in Mode:
        if mode.value < known.value:
            continue
        if failures:
            before.restore()
            places.restore()
        try:
            found = attempt(mode)
        except (NonlocalExit, ControlFlowError, NestingError):
            raise
        except Exception as error:
            if not _may_work_otherwise(error):
                # A trace around has recorded the run that failed first.
                if failures and (isinstance(error, DuplicateSiteError) or not isinstance(error, SumoutError)):
                    raise failures[0] from None
                raise
            failures.append(error)
            continue
        if mode is not known:
            _remember(key, mode)
        return found
    raise _most_telling(failures)


def _remember(key: Any, mode: Mode) -> None:
    try:
        _needed[key] = mode
    except TypeError:
        return


def _may_work_otherwise(error: Exception) -> bool:
    if isinstance(error, SumoutError):
        return isinstance(error, (EnumerationError, PlateError))
    return isinstance(error, (RuntimeError, ValueError, IndexError, TypeError, AssertionError))


def _most_telling(failures: list[Exception]) -> Exception:
    """The first that is one of ours, for it names the site; else that of the program. Want of room comes last."""
    others = [error for error in failures if not isinstance(error, NoRoomError)] or failures
    told = [error for error in others if isinstance(error, SumoutError)]
    return told[0] if told else others[0]
