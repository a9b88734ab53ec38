"""Hiding sites."""

from __future__ import annotations

from sumout.effects.handlers.block import BlockMessenger

__all__ = ["BlockMessenger"]
