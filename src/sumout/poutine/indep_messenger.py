"""Independence contexts."""

from __future__ import annotations

from sumout.effects.frame import CondIndepStackFrame
from sumout.effects.handlers.indep import IndepMessenger

__all__ = ["CondIndepStackFrame", "IndepMessenger"]
