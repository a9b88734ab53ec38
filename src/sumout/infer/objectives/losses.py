"""The losses of a training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from sumout.errors import MissingExtraError


class LossHistory(Sequence[float]):
    """The loss before each step: a sequence of numbers that grows while a run goes on.

    >>> history = LossHistory([3.0, 2.0, 1.5])
    >>> history
    LossHistory(3 steps: 3 -> 1.5)
    >>> history[-1], history.tensor
    (1.5, tensor([3.0000, 2.0000, 1.5000], dtype=torch.float64))
    """

    def __init__(self, losses: Sequence[float] = ()) -> None:
        self._losses = list(losses)

    def append(self, loss: float) -> None:
        """Adds one."""
        self._losses.append(loss)

    @property
    def tensor(self) -> Tensor:
        """All of them, shape ``(steps,)``, float64."""
        return torch.tensor(self._losses, dtype=torch.float64)

    def smoothed(self, window: int) -> Tensor:
        """Means over ``window`` steps in a row, shape ``(steps - window + 1,)``: losses by sampling are noisy.

        >>> LossHistory([3.0, 2.0, 1.0]).smoothed(2)
        tensor([2.5000, 1.5000], dtype=torch.float64)
        """
        return self.tensor.unfold(0, min(window, len(self)), 1).mean(-1) if self._losses else self.tensor

    def plot(self, axes: Any = None, **options: Any) -> Any:
        """Draws the losses with matplotlib.

        Args:
            axes: where; new axes if ``None``.
            options: those of ``axes.plot``.

        Returns:
            The axes.

        Raises:
            MissingExtraError: if matplotlib is not installed.
        """
        if axes is None:
            try:
                import matplotlib.pyplot as plt
            except ImportError:
                raise MissingExtraError("matplotlib", "plot", "Plotting losses") from None
            axes = plt.figure().subplots()
        axes.plot(range(len(self)), self._losses, **options)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        return axes

    @overload
    def __getitem__(self, place: int) -> float: ...
    @overload
    def __getitem__(self, place: slice) -> LossHistory: ...
    def __getitem__(self, place: int | slice) -> float | LossHistory:
        return LossHistory(self._losses[place]) if isinstance(place, slice) else self._losses[place]

    def __len__(self) -> int:
        return len(self._losses)

    def __iter__(self) -> Iterator[float]:
        return iter(self._losses)

    def __eq__(self, other: object) -> bool:
        return list(other) == self._losses if isinstance(other, (LossHistory, list)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        ends = f": {self._losses[0]:.6g} -> {self._losses[-1]:.6g}" if self._losses else ""
        return f"LossHistory({len(self)} steps{ends})"
