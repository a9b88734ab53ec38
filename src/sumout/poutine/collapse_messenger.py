"""Delaying conjugate sites."""

from __future__ import annotations

from sumout.effects.handlers.collapse import CollapseMessenger

__all__ = ["CollapseMessenger"]
