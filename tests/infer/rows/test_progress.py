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


def test_one_inside_another_tells_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    outer, inner = (Console(file=io.StringIO(), force_terminal=True, width=80) for _ in range(2))
    with progress.Progress("all", 4, outer, passes=2) as bar:
        for _ in range(3):
            with progress.Progress("part", 2, inner) as part:
                part.advance(2)
    assert "3/4" in outer.file.getvalue()  # type: ignore[attr-defined]
    assert inner.file.getvalue() == ""  # type: ignore[attr-defined]
    with progress.Progress("alone", 2, inner) as bar:
        bar.advance(1)
    assert "alone" in inner.file.getvalue()  # type: ignore[attr-defined]


def test_it_can_be_told_not_to_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    console = Console(file=io.StringIO(), force_terminal=True)
    with progress.Progress("rows", 4, console, shown=False) as bar:
        bar.advance(1)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
