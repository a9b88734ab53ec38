"""Making sites equal."""

from __future__ import annotations

from sumout.effects.handlers.equalize import EqualizeMessenger

__all__ = ["EqualizeMessenger"]
