"""Module ``distributions`` of the backend."""

from __future__ import annotations

from typing import Any

from sumout import distributions
from sumout_contrib.pyroapi.lookup import handed_on, names


def __getattr__(name: str) -> Any:
    return handed_on("distributions", name, distributions)


def __dir__() -> list[str]:
    return names(distributions)
