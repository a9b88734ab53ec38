"""Reparameterizing sites."""

from __future__ import annotations

from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.messenger import Messenger


class ReparamMessenger(Messenger):
    """Reparameterizing sites."""

    def __init__(self, config: Any) -> None:
        raise NotImplementedError


reparam = wrap(ReparamMessenger)
