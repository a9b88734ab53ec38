"""The record of a run."""

from __future__ import annotations

from sumout.effects.trace import Trace, allow_all_sites

__all__ = ["Trace", "allow_all_sites"]
