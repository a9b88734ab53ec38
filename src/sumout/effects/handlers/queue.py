"""Sequential enumeration: running a program from partial traces in a queue."""

from __future__ import annotations

from typing import Any


def queue(
    fn: Any = None,
    queue: Any = None,
    max_tries: Any = None,
    extend_fn: Any = None,
    escape_fn: Any = None,
    num_samples: Any = None,
) -> Any:
    """Sequential enumeration: running a program from partial traces in a queue."""
    raise NotImplementedError
