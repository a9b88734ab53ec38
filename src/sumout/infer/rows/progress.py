"""A progress bar for what takes long, shown only on a terminal and only once it has taken a while."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_PATIENCE = 2.0
"""Seconds before the bar is shown."""


class Progress:
    """Counts what is done of ``total``.

    >>> with Progress("rows", 10) as progress:
    ...     progress.advance(10)
    """

    def __init__(self, what: str, total: int, console: Console | None = None) -> None:
        self.what = what
        self.total = total
        self.console = Console(stderr=True) if console is None else console
        self._done = 0
        self._began = time.monotonic()
        self._bar: Bar | None = None

    def advance(self, count: int) -> None:
        """Tells that so much more is done."""
        self._done += count
        late = time.monotonic() - self._began > _PATIENCE
        if self._bar is None and late and self._done < self.total and self.console.is_terminal:
            columns = (TextColumn(self.what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=self.console, transient=True)
            self._bar.start()
            self._bar.add_task(self.what, total=self.total)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
