"""Handlers that may be entered again."""

from __future__ import annotations

from sumout.effects.handlers.reentrant import ReentrantMessenger

__all__ = ["ReentrantMessenger"]
