"""A joint distribution of several variables, as a table with a dimension for each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sumout.errors import EvidenceError, nearest
from sumout.text import aligned

_ROWS = 24


@dataclass(frozen=True, eq=False, repr=False)
class Joint:
    """Probabilities of the joint states of some variables.

    Attributes:
        names: the variables, in the order of their dimensions.
        probs: of shape ``(*batch_shape, *states)``: the batch shape of the plates, then one dimension for each name.
        supports: for each name the values that its states stand for, shape ``(states, *event_shape)``.
        states: state labels by name, where the graph has them.

    >>> import torch
    >>> coins = Joint(("a", "b"), torch.tensor([[0.5, 0.0], [0.25, 0.25]]), {})
    >>> coins.marginal("b").probs
    tensor([0.7500, 0.2500])
    >>> print(coins)
    a  b  probability
    0  0  0.5000
    0  1  0.0000
    1  0  0.2500
    1  1  0.2500
    """

    names: tuple[str, ...]
    probs: Tensor
    supports: Mapping[str, Tensor]
    states: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The sizes of the plates that the variables live in, as the sites of a program have them."""
        return tuple(self.probs.shape[: self.probs.ndim - len(self.names)])

    def marginal(self, *names: str) -> Joint:
        """The joint distribution of fewer variables, in the order in which they are named.

        Raises:
            EvidenceError: for a name that is not among this table's.
        """
        for name in names:
            if name not in self.names:
                raise EvidenceError(
                    f"{name!r} is not in this table of {', '.join(self.names)}.{nearest(name, self.names)}"
                )
        batch = len(self.batch_shape)
        gone = tuple(batch + place for place, name in enumerate(self.names) if name not in names)
        left = [name for name in self.names if name in names]
        probs = self.probs.sum(gone) if gone else self.probs
        probs = probs.permute([*range(batch), *(batch + left.index(name) for name in names)])
        return Joint(names, probs, self.supports, self.states)

    def __str__(self) -> str:
        batch = self.batch_shape
        sizes = self.probs.shape[len(batch) :]
        labels = [
            self.states.get(name) or tuple(map(str, range(size)))
            for name, size in zip(self.names, sizes, strict=True)
        ]
        probs = self.probs.detach()
        rows: list[tuple[str, ...]] = [(*(("element",) if batch else ()), *self.names, "probability")]
        cells = itertools.product(*map(range, probs.shape))
        for index in itertools.islice(cells, _ROWS):
            element = (", ".join(map(str, index[: len(batch)])),) if batch else ()
            named = (each[place] for each, place in zip(labels, index[len(batch) :], strict=True))
            rows.append((*element, *named, f"{float(probs[index]):.4f}"))
        if probs.numel() > _ROWS:
            rows.append(("...", *("" for _ in rows[0][2:]), f"({probs.numel() - _ROWS} more)"))
        return aligned(rows)

    __repr__ = __str__
