"""Priors for params."""

from __future__ import annotations

from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.messenger import Messenger


class LiftMessenger(Messenger):
    """Priors for params."""

    def __init__(self, prior: Any) -> None:
        raise NotImplementedError


lift = wrap(LiftMessenger)
