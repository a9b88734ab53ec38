"""The switch of all checks: programs', graphs' and distributions'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sumout.distributions as dist
from sumout.settings import settings


def enable_validation(is_validate: bool = True) -> None:
    """Turns checks on or off: those of this thread's programs and graphs, and those of all distributions.

    They are on at first, unless Python runs with ``-O``.

    >>> enable_validation(True)
    """
    settings.validation = is_validate
    dist.enable_validation(is_validate)


@contextmanager
def validation_enabled(is_validate: bool = True) -> Iterator[None]:
    """Turns checks on or off inside a ``with`` block and puts them back after it.

    >>> from sumout.settings import settings
    >>> with validation_enabled(False):
    ...     settings.validation
    False
    """
    before, before_of_distributions = settings.validation, dist.is_validation_enabled()
    try:
        enable_validation(is_validate)
        yield
    finally:
        settings.validation = before
        dist.enable_validation(before_of_distributions)


def is_validation_enabled() -> bool:
    """Whether programs and graphs are checked in this thread.

    >>> is_validation_enabled()
    True
    """
    return settings.validation
