"""Subsampling plates."""

from __future__ import annotations

from sumout.effects.handlers.subsample import SubsampleMessenger

__all__ = ["SubsampleMessenger"]
