"""Leaving a program from inside a site."""

from __future__ import annotations

from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.messenger import Messenger


class EscapeMessenger(Messenger):
    """Leaving a program from inside a site."""

    def __init__(self, escape_fn: Any) -> None:
        raise NotImplementedError


escape = wrap(EscapeMessenger)
