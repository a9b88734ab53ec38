"""Fixing params."""

from __future__ import annotations

from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.messenger import Messenger


class SubstituteMessenger(Messenger):
    """Fixing params."""

    def __init__(self, data: Any) -> None:
        raise NotImplementedError


substitute = wrap(SubstituteMessenger)
