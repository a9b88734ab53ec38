"""Priors for params."""

from __future__ import annotations

from sumout.effects.handlers.lift import LiftMessenger

__all__ = ["LiftMessenger"]
