"""Recording a run."""

from __future__ import annotations

from sumout.effects.handlers.trace import TraceHandler, TraceMessenger, identify_dense_edges

__all__ = ["TraceHandler", "TraceMessenger", "identify_dense_edges"]
