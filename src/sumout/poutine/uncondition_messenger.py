"""Forgetting observations."""

from __future__ import annotations

from sumout.effects.handlers.uncondition import UnconditionMessenger

__all__ = ["UnconditionMessenger"]
