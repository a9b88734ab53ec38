"""Scaling log-probabilities."""

from __future__ import annotations

from sumout.effects.handlers.scale import ScaleMessenger

__all__ = ["ScaleMessenger"]
