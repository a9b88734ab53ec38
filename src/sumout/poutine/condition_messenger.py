"""Observing sites."""

from __future__ import annotations

from sumout.effects.handlers.condition import ConditionMessenger

__all__ = ["ConditionMessenger"]
