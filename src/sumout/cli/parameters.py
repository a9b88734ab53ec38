"""Kinds of values on the command line that click does not know."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _Int = click.ParamType[int]
    _Float = click.ParamType[float]
    _Str = click.ParamType[str]
else:  # generic since click 8.2 alone
    _Int = _Float = _Str = click.ParamType

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class Size(_Int):
    """A size of memory: ``4GiB``, ``500 MB``, ``1.5g``, or plain bytes.

    >>> Size().convert("1.5 GiB", None, None), Size().convert("2k", None, None)
    (1610612736, 2000)
    """

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?i?)b?\s*", str(value).lower(), re.ASCII)
        unit = None if match is None else (_UNITS | _BINARY).get(match[2])
        count = 0.0 if match is None or unit is None else float(match[1]) * unit
        if not 1 <= count < 2**60:
            self.fail(f"{value!r} is no size of memory: write for example 500MB, 4GiB or 1.5g.", param, ctx)
        return int(count)


class Seconds(_Float):
    """A time: ``10``, ``0.5s``, ``200ms``, ``2min``.

    >>> Seconds().convert("200ms", None, None), Seconds().convert("2 min", None, None)
    (0.2, 120.0)
    """

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(ms|s|min|h|)\s*", str(value).lower(), re.ASCII)
        seconds = math.inf
        if match is not None:
            seconds = float(match[1]) * {"ms": 0.001, "s": 1, "": 1, "min": 60, "h": 3600}[match[2]]
        if not seconds < 10**9:
            self.fail(f"{value!r} is no time: write for example 10, 0.5s, 200ms or 2min.", param, ctx)
        return seconds


class Order(_Str):
    """The name of a heuristic or search for a plan; the planner is imported when one is given."""

    name = "heuristic"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, a key of ``plan.ORDERS`` or ``plan.SEARCHES``."""
        from sumout.plan import ORDERS, SEARCHES

        if value not in ORDERS and value not in SEARCHES:
            known = ", ".join(map(repr, (*ORDERS, *SEARCHES)))
            self.fail(f"{value!r} is not one of {known}.", param, ctx)
        return str(value)


class Device(_Str):
    """``cpu``, ``cuda``, or ``cuda:1``."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, checked for its form alone."""
        if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", str(value), re.ASCII):
            self.fail(f"{value!r} is no device: write cpu, cuda, or cuda:1.", param, ctx)
        return str(value)
