"""Expanding distributions to their plates."""

from __future__ import annotations

from sumout.effects.handlers.broadcast import BroadcastMessenger

__all__ = ["BroadcastMessenger"]
