"""Interventions."""

from __future__ import annotations

from sumout.effects.handlers.do import DoMessenger

__all__ = ["DoMessenger"]
