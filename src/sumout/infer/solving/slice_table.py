"""Tables that slices are put together to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sumout.plan import Readout

State = dict[str, int]
"""The state of every variable that is fixed."""


class SliceTable(NamedTuple):
    """A table that is put together: its dimensions, and what of it a slice gives (``None``: the number 1).

    ``source`` is a readout of the slices' plan, or the number of a factor.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    source: Readout | int | None

    def part(self, full: Tensor, state: State) -> Tensor:
        """The entries of the whole table that a slice is about: a view."""
        return full[tuple([state[each] if each in state else slice(None) for each in self.dims])]

    def placed(self, part: Tensor, state: State, empty: float = 0.0) -> Tensor:
        """The part of a slice in a table of zeros, or of what else stands for nothing."""
        for place, each in enumerate(self.dims):
            if each in state:
                chosen = torch.arange(self.shape[place], device=part.device) == state[each]
                shape = [-1 if dim == place else 1 for dim in range(part.ndim + 1)]
                part = torch.where(chosen.reshape(shape), part.unsqueeze(place), empty)
        return part
