"""Partial traces: where a run leaves off, and how it may go on."""

from __future__ import annotations

from typing import Any


def all_escape(trace: Any, msg: Any) -> bool:
    raise NotImplementedError


def discrete_escape(trace: Any, msg: Any) -> bool:
    raise NotImplementedError


def enum_extend(trace: Any, msg: Any, num_samples: int | None = None) -> Any:
    raise NotImplementedError


def mc_extend(trace: Any, msg: Any, num_samples: int | None = None) -> Any:
    raise NotImplementedError
