"""Plates."""

from __future__ import annotations

from sumout.effects.handlers.plate import PlateMessenger, block_plate

__all__ = ["PlateMessenger", "block_plate"]
