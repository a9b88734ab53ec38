"""Masking log-probabilities."""

from __future__ import annotations

from sumout.effects.handlers.mask import MaskMessenger

__all__ = ["MaskMessenger"]
