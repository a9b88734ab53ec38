"""The base of all handlers."""

from __future__ import annotations

from sumout.effects.messenger import Messenger, block_messengers

__all__ = ["Messenger", "block_messengers"]
