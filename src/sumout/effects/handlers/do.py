"""Interventions."""

from __future__ import annotations

from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.messenger import Messenger


class DoMessenger(Messenger):
    """Interventions."""

    def __init__(self, data: Any) -> None:
        raise NotImplementedError


do = wrap(DoMessenger)
