"""Module ``handlers`` of the backend."""

from __future__ import annotations

from typing import Any

from sumout import poutine
from sumout_contrib.pyroapi.lookup import handed_on, names


def __getattr__(name: str) -> Any:
    return handed_on("handlers", name, poutine)


def __dir__() -> list[str]:
    return names(poutine)
