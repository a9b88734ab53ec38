"""Reparameterizing sites."""

from __future__ import annotations

from sumout.effects.handlers.reparam import ReparamMessenger

__all__ = ["ReparamMessenger"]
