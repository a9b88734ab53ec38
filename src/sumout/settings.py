"""The library's switches: one object per thread, changed for a while by a context manager.

``validation`` turns the checks of programs and graphs on and off; ``memory_limit`` is the size in bytes
that a plan may need before it is refused.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

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


class Settings(threading.local):
    """The values in force in this thread."""

    def __init__(self) -> None:
        self.validation: bool = __debug__
        self._memory_limit: int | None = None
        self._reading = (-_KEPT_SECONDS, 0)

    @property
    def memory_limit(self) -> int:
        """Bytes a plan may need; by default 80 % of the memory that is free at the time."""
        if self._memory_limit is not None:
            return self._memory_limit
        now = time.monotonic()
        if now - self._reading[0] > _KEPT_SECONDS:
            self._reading = now, int(0.8 * _available_memory())
        return self._reading[1]

    @memory_limit.setter
    def memory_limit(self, limit: int | None) -> None:
        self._memory_limit = limit

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
