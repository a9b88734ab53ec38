"""Delaying conjugate sites."""

from __future__ import annotations

from typing import Any

from sumout.effects.handlers.wrap import wrap
from sumout.effects.messenger import Messenger


class CollapseMessenger(Messenger):
    """Delaying conjugate sites."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


collapse = wrap(CollapseMessenger)
