"""Parallel enumeration."""

from __future__ import annotations

from sumout.effects.handlers.enum import EnumMessenger

__all__ = ["EnumMessenger"]
