"""Parallel enumeration."""

from __future__ import annotations

from sumout.effects.enumerate_site import enumerate_site
from sumout.effects.handlers.enum import EnumMessenger

__all__ = ["EnumMessenger", "enumerate_site"]
