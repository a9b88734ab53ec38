"""The library's switches: one object per thread, changed for a while by a context manager.

``validation`` turns the checks of programs and graphs on and off; ``memory_limit`` is the size in bytes
that a plan may need before it is refused. Where none was set, it is a share of the memory that is free: that of the
machine, or for tables on a GPU that of the device, which is not touched before.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SHARE = 0.8
"""Of the free memory that a plan may need."""

_KEPT_SECONDS = 1.0
"""How long a reading of the free memory is used: it is asked for at every step of a training loop."""


def _available_memory() -> int:
    """Bytes of memory that could be had now, caches that would be dropped included; 4 GiB if nobody tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 4 * 2**30


def _free_on(device: torch.device) -> int:
    """Bytes of a CUDA device that could be had now: what is free, and what torch holds of it without using it."""
    import torch  # Those who only read a switch do not wait for it.

    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


class Settings(threading.local):
    """The values in force in this thread."""

    def __init__(self) -> None:
        self.validation: bool = __debug__
        self._memory_limit: int | None = None
        self._readings: dict[object, tuple[float, int]] = {}

    @property
    def memory_limit(self) -> int:
        """Bytes a plan may need; by default 80 % of the memory that is free at the time."""
        return self._limit("cpu", _available_memory)

    @memory_limit.setter
    def memory_limit(self, limit: int | None) -> None:
        self._memory_limit = limit

    def memory_limit_on(self, device: torch.device) -> int:
        """Bytes that a plan may need on a device; where no limit is set, 80 % of what is free there at the time.

        >>> import torch
        >>> settings.memory_limit_on(torch.device("cpu")) == settings.memory_limit
        True
        """
        if device.type != "cuda":
            return self.memory_limit
        return self._limit(device, lambda: _free_on(device))

    def _limit(self, where: object, free: Callable[[], int]) -> int:
        if self._memory_limit is not None:
            return self._memory_limit
        now = time.monotonic()
        read, found = self._readings.get(where, (-_KEPT_SECONDS, 0))
        if now - read > _KEPT_SECONDS:
            read, found = self._readings[where] = now, int(_SHARE * free())
        return found

    @contextmanager
    def override(self, *, validation: bool | None = None, memory_limit: int | None = None) -> Iterator[None]:
        """Changes settings inside a ``with`` block and puts them back after it, errors included.

        >>> with settings.override(memory_limit=2**20):
        ...     settings.memory_limit
        1048576
        """
        before = self.validation, self._memory_limit
        if validation is not None:
            self.validation = validation
        if memory_limit is not None:
            self._memory_limit = memory_limit
        try:
            yield
        finally:
            self.validation, self._memory_limit = before


settings = Settings()
