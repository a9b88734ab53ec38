"""Guides that are handlers of the model."""

from __future__ import annotations

from sumout.effects.handlers.guide import GuideMessenger

__all__ = ["GuideMessenger"]
