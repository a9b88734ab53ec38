"""Enumerated values whose dimensions a program does not see.

torch has 64 dimensions at most, and a program that moves the dimensions of a tensor moves those of its values too. A
hidden value has the shape of one value, and carries the values for all combinations of the enumerated sites that it
depends on, by name; they are lined up when values meet.

``axes`` names the sites, ``value`` is the tensor, ``rules`` say what torch's functions make of it: ``elementwise`` and
``indexing`` are quick, ``batched`` does any function by ``torch.vmap``, ``decisions`` refuse what Python would have to
know the value for. ``sites`` turns the record of a run into one in which values have dimensions again, site by site.
"""

from __future__ import annotations

from sumout.effects.hidden.axes import Axes, Axis
from sumout.effects.hidden.tensor import HiddenTensor, hidden
from sumout.effects.hidden.value import Hidden

__all__ = ["Axes", "Axis", "Hidden", "HiddenTensor", "hidden"]
