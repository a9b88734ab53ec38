"""Leaving a program from inside a site."""

from __future__ import annotations

from sumout.effects.handlers.escape import EscapeMessenger

__all__ = ["EscapeMessenger"]
