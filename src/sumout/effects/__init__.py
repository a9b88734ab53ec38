"""The program half: primitives send messages, handlers change them, traces record them. It knows no graphs.

Handlers are in ``sumout.effects.handlers``, the statements of the language in ``sumout.effects.primitives``.
"""

from __future__ import annotations

from sumout.effects.frame import CondIndepStackFrame
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger, block_messengers
from sumout.effects.stack import (
    NonlocalExit,
    am_i_wrapped,
    apply_stack,
    default_process_message,
    effectful,
    get_mask,
    get_plates,
)
from sumout.effects.trace import Trace

__all__ = [
    "CondIndepStackFrame",
    "Message",
    "Messenger",
    "NonlocalExit",
    "Trace",
    "am_i_wrapped",
    "apply_stack",
    "block_messengers",
    "default_process_message",
    "effectful",
    "get_mask",
    "get_plates",
]
