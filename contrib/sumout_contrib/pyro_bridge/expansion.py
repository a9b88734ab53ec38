"""Remembering what distributions were before Pyro's plates expanded them.

Exact inference is fast where it knows that nothing varies along a plate: a table of three numbers is not that of
three numbers for each of a million data. Pyro's plates expand the distribution of every site; sumout keeps
both, and so does the bridge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyro.poutine.broadcast_messenger import BroadcastMessenger

_KEY = "_before_expansion"


@contextmanager
def remembered_expansions() -> Iterator[None]:
    """Lets Pyro's plates, which expand by the hook of ``BroadcastMessenger``, leave a note when they do."""
    expand = BroadcastMessenger._pyro_sample

    def expand_and_note(msg: dict[str, Any]) -> None:
        given = msg["fn"]
        expand(msg)
        expanded = msg["fn"]
        if expanded is not given:
            plain, last = msg.get(_KEY, (given, given))
            # Where a handler between two plates put another distribution, that is what the program gave.
            msg[_KEY] = plain if last is given else given, expanded

    BroadcastMessenger.register(expand_and_note, type="sample")
    try:
        yield
    finally:
        BroadcastMessenger.register(expand, type="sample")


def unexpanded(msg: dict[str, Any]) -> Any:
    """The distribution of a Pyro site as the program gave it, or ``fn`` where that is not known."""
    noted = msg.pop(_KEY, None)
    return noted[0] if noted is not None and noted[1] is msg["fn"] else msg["fn"]
