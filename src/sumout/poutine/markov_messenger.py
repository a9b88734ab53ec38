"""Markov chains."""

from __future__ import annotations

from sumout.effects.handlers.contexts import MarkovMessenger

__all__ = ["MarkovMessenger"]
