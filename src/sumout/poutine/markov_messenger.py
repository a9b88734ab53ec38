"""Markov chains."""

from __future__ import annotations

from sumout.effects.handlers.markov import MarkovMessenger

__all__ = ["MarkovMessenger"]
