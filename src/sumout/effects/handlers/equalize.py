"""Making sites equal."""

from __future__ import annotations

from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.messenger import Messenger


class EqualizeMessenger(Messenger):
    """Making sites equal."""

    def __init__(self, sites: Any, type: str = "sample", keep_dist: bool = False) -> None:
        raise NotImplementedError


equalize = wrap(EqualizeMessenger)
