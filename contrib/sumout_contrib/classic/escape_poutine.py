"""Leaving a program from inside a site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sumout.poutine.escape_messenger import EscapeMessenger
from sumout_contrib.classic.poutine import Poutine, Program


class EscapePoutine(Poutine, EscapeMessenger):
    """Leaves the program at a site, by raising ``NonlocalExit``, which carries the site.

    Args:
        fn: a program.
        escape_fn: tells of a site whether to leave there.

    >>> from sumout import sample
    >>> from sumout.distributions import Normal
    >>> from sumout.poutine import NonlocalExit
    >>> def fn():
    ...     sample("a", Normal(0.0, 1.0)), sample("b", Normal(0.0, 1.0))
    >>> try:
    ...     EscapePoutine(fn, lambda site: site["name"] == "b")()
    ... except NonlocalExit as left:
    ...     left.site["name"]
    'b'
    """

    def __init__(self, fn: Program | None, escape_fn: Callable[[Any], Any]) -> None:
        Poutine.__init__(self, fn)
        EscapeMessenger.__init__(self, escape_fn)
