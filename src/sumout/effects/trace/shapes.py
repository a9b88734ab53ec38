"""The table of the shapes of all sites, for error messages and for people.

::

    Trace Shapes:
     Param Sites:
              loc       3
    Sample Sites:
           z dist 10  1 | 3
            value 10  1 | 3
         log_prob 10  1 |

One row a tensor; its batch sizes are aligned on the right, against the bar, its event sizes on the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sumout.effects.message import Message


class _Row(NamedTuple):
    label: str
    batch: Sequence[str] = ()
    event: Sequence[str] = ()


def format_shapes(nodes: Mapping[str, Message], title: str, last_site: str | None = None) -> str:
    """The table for ``nodes`` in order, up to and including ``last_site`` where one is given.

    Log-probabilities are listed where they are known already; none is computed here.

    >>> print(format_shapes({}, "Trace Shapes:"))
    Trace Shapes:
    """
    if not nodes:
        return title
    shown: list[Message] = []
    for name, site in nodes.items():
        shown.append(site)
        if name == last_site:
            break
    rows = [_Row(title), _Row("Param Sites:")]
    rows += [_Row(str(site["name"]), _sizes(site["value"])) for site in shown if site["type"] == "param"]
    rows.append(_Row("Sample Sites:"))
    for site in shown:
        if site["type"] == "sample":
            rows += _rows_of_sample(site)
    return _align(rows)


def _rows_of_sample(site: Message) -> list[_Row]:
    fn = site["fn"]
    event_shape = getattr(fn, "event_shape", ())
    batch = [str(size) for size in getattr(fn, "batch_shape", ())]
    sizes = _sizes(site["value"])
    split = len(sizes) - len(event_shape)
    rows = [
        _Row(f"{site['name']} dist", [*batch, "|"], [str(size) for size in event_shape]),
        _Row("value", [*sizes[:split], "|"], sizes[split:]),
    ]
    if "log_prob" in site:
        rows.append(_Row("log_prob", [*_sizes(site["log_prob"]), "|"]))
    return rows


def _sizes(value: Any) -> list[str]:
    return [str(size) for size in getattr(value, "shape", ())]


def _align(rows: Sequence[_Row]) -> str:
    batch_width = max(len(row.batch) for row in rows)
    event_width = max(len(row.event) for row in rows)
    cells = [
        [row.label]
        + [""] * (batch_width - len(row.batch))
        + [*row.batch, *row.event]
        + [""] * (event_width - len(row.event))
        for row in rows
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    return "\n".join(
        " ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells
    )


def append_to_message(error: Exception, text: str) -> None:
    """Puts ``text`` below an error's message; the error keeps its type, its attributes and its traceback.

    Errors whose message is not simply their one argument are left alone. (``add_note`` needs Python 3.11.)

    >>> error = ValueError("bad scale")
    >>> append_to_message(error, "Trace Shapes:")
    >>> str(error)
    'bad scale\\nTrace Shapes:'
    """
    if len(error.args) == 1 and str(error) == str(error.args[0]):
        error.args = (f"{error}\n{text}",)
