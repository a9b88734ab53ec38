"""Messages and the stack of handlers they travel through."""

from __future__ import annotations

from sumout.effects.frame import CondIndepStackFrame
from sumout.effects.infer_dict import InferDict
from sumout.effects.message import Message
from sumout.effects.stack import (
    NonlocalExit,
    am_i_wrapped,
    apply_stack,
    default_process_message,
    effectful,
    get_mask,
    get_plates,
)

__all__ = [
    "CondIndepStackFrame",
    "InferDict",
    "Message",
    "NonlocalExit",
    "am_i_wrapped",
    "apply_stack",
    "default_process_message",
    "effectful",
    "get_mask",
    "get_plates",
]
