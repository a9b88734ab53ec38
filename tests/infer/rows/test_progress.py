"""The progress bar: on a terminal, and only for what takes long."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sumout.infer.rows import progress


def shown(patience: float, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(progress, "_PATIENCE", patience)
    out = io.StringIO()
    with progress.Progress("rows", 4, Console(file=out, force_terminal=terminal, width=80)) as bar:
        for _ in range(4):
            bar.advance(1)
    return out.getvalue()


def test_it_is_shown_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "rows" in shown(-1.0, True, monkeypatch)


def test_it_is_not_shown_before_or_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(100.0, True, monkeypatch) == ""
    assert shown(-1.0, False, monkeypatch) == ""
