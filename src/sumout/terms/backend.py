"""Funsor, with its torch backend switched on: the one place where that happens.

Modules that build terms import funsor after this module, which ``sumout.terms`` loads first.
"""

from __future__ import annotations

import funsor

funsor.set_backend("torch")
