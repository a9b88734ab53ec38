"""Running again with given values."""

from __future__ import annotations

from sumout.effects.handlers.replay import ReplayMessenger

__all__ = ["ReplayMessenger"]
