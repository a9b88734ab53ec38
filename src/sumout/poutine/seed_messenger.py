"""Seeding random numbers."""

from __future__ import annotations

from sumout.effects.handlers.seed import SeedMessenger

__all__ = ["SeedMessenger"]
