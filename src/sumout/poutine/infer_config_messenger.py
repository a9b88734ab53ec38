"""Configuring inference."""

from __future__ import annotations

from sumout.effects.handlers.infer_config import InferConfigMessenger

__all__ = ["InferConfigMessenger"]
