"""A progress bar for what takes long, shown only on a terminal and only once it has taken a while.

Where one is inside another, the outer is shown alone, and told what the inner is told.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_PATIENCE = 2.0
"""Seconds before the bar is shown."""


class _Current(threading.local):
    progress: Progress | None = None


_current = _Current()


class Progress:
    """Counts what is done of ``total``.

    Args:
        what: what is counted.
        total: how many there are.
        console: where the bar is shown; standard error if ``None``.
        passes: how often what is inside goes through all of them.
        shown: whether there is to be a bar at all.

    >>> with Progress("rows", 10) as progress:
    ...     progress.advance(10)
    """

    def __init__(
        self,
        what: str,
        total: int,
        console: Console | None = None,
        *,
        passes: int = 1,
        shown: bool = True,
    ) -> None:
        self.what = what
        self.total = total
        self.console = Console(stderr=True) if console is None else console
        self._done = 0.0
        self._passes = passes
        self._shown = shown
        self._outer: Progress | None = None
        self._began = time.monotonic()
        self._bar: Bar | None = None

    def advance(self, count: float) -> None:
        """Tells that so much more is done."""
        if self._outer is not None:
            self._outer.advance(count)
            return
        self._done = min(self._done + count / self._passes, self.total)
        late = self._shown and time.monotonic() - self._began > _PATIENCE
        if self._bar is None and late and self._done < self.total and self.console.is_terminal:
            columns = (TextColumn(self.what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=self.console, transient=True)
            self._bar.start()
            self._bar.add_task(self.what, total=self.total)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def __enter__(self) -> Progress:
        self._outer, _current.progress = _current.progress, self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.progress = self._outer
        if self._bar is not None:
            self._bar.stop()
