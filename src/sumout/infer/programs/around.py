"""Which handlers stand around the code that runs now."""

from __future__ import annotations

from collections.abc import Collection

from sumout.effects.handlers import BlockMessenger
from sumout.effects.stack import state


def has_handlers_around(beside: Collection[type]) -> bool:
    """Whether there are handlers of other types than these, as far out as a block that hides everything."""
    for frame in reversed(state.stack):
        if isinstance(frame, BlockMessenger) and frame.hides_all:
            return False
        if type(frame) not in beside:
            return True
    return False
