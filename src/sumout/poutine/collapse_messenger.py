"""Integrating conjugate and Gaussian sites out."""

from __future__ import annotations

from sumout.infer.collapsing.handler import CollapseMessenger

__all__ = ["CollapseMessenger"]
