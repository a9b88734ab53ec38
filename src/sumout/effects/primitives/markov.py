"""The statement ``markov``: the handler of that name."""

from __future__ import annotations

from sumout.effects.handlers.markov import markov

__all__ = ["markov"]
