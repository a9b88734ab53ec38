"""Fixing params."""

from __future__ import annotations

from sumout.effects.handlers.substitute import SubstituteMessenger

__all__ = ["SubstituteMessenger"]
