"""The handler inside which nothing is integrated out."""

from __future__ import annotations

from sumout.effects import Messenger


class Uncollapsed(Messenger):
    """Inside, ``collapse`` integrates nothing out: all sites have values as in a plain run."""
