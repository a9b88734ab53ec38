"""Guides that are handlers of the model."""

from __future__ import annotations

from sumout.effects.handlers.trace import TraceMessenger


class GuideMessenger(TraceMessenger):
    """Guides that are handlers of the model."""
