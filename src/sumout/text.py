"""Plain text for people: aligned tables, sizes of memory, and lengths of time."""

from __future__ import annotations

from collections.abc import Container, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> str:
    """The rows as lines, every column as wide as its widest cell.

    Args:
        rows: cells.
        right: the numbers of columns whose cells stand at the right, as figures do.

    >>> print(aligned([("name", "size"), ("x", "10")], right={1}))
    name  size
    x       10
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def memory(count: float) -> str:
    """Bytes in a unit that fits.

    >>> memory(512), memory(3 * 2**20)
    ('512 B', '3 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return f"{count:.3g} EiB"


def duration(seconds: float) -> str:
    """A time in a unit that fits.

    >>> duration(5e-5), duration(0.25), duration(90.0), duration(7200.0)
    ('50 µs', '250 ms', '1.5 min', '2 h')
    """
    for unit, size, limit in (("µs", 1e-6, 1e-3), ("ms", 1e-3, 1.0), ("s", 1.0, 60.0), ("min", 60.0, 3600.0)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    hours = seconds / 3600.0
    return f"{hours:.3g} h" if hours < 48.0 else f"{hours / 24.0:.3g} days"
