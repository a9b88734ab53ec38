"""The ``sumout`` command.

``sumout query NETWORK --evidence NAME=STATE`` prints posterior marginals; ``sumout info NETWORK`` what they
would cost. Nothing heavy is imported before the arguments are understood.
"""

from __future__ import annotations

from sumout.cli.app import main

__all__ = ["main"]
