"""A collapsed site as it was recorded, and where its dimensions come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.distributions.families import innermost
from sumout.effects import CondIndepStackFrame, Message
from sumout.effects.delayed import Delayed
from sumout.errors import PlateError


class CollapsedSite(NamedTuple):
    """A site that is delayed, or depends on delayed sites.

    Attributes:
        message: the site; its ``value`` is delayed, or observed.
        scale: the power of its density by handlers and plates within the context that collapses it.
        mask: likewise.
        inner: the plates that it met within the context; of the others around it, each element is a problem of its own.
    """

    message: Message
    scale: float | Tensor
    mask: bool | Tensor | None
    inner: tuple[CondIndepStackFrame, ...]

    @property
    def name(self) -> str:
        return self.message.name or ""

    @property
    def fn(self) -> Any:
        return self.message.plain_fn

    @property
    def value(self) -> Any:
        return self.message.value

    @property
    def is_latent(self) -> bool:
        """Whether the site itself is delayed."""
        value = self.value
        return isinstance(value, Delayed) and not self.message.is_observed

    @property
    def dtype(self) -> torch.dtype:
        """The widest floating type of its value and of the distribution's parameters."""
        found = self.value.dtype if self.value.is_floating_point() else torch.get_default_dtype()
        tensors = [each for each in vars(innermost(self.fn)).values() if isinstance(each, Tensor)]
        for each in tensors:
            if each.is_floating_point():
                found = torch.promote_types(found, each.dtype)
        return found

    @property
    def event_size(self) -> int:
        return int(torch.Size(self.fn.event_shape).numel())

    @property
    def frames(self) -> dict[int, CondIndepStackFrame]:
        """The plates around the site by their dimensions."""
        return {frame.dim: frame for frame in self.message.cond_indep_stack if frame.dim is not None}

    @property
    def inner_plates(self) -> frozenset[str]:
        return frozenset(frame.name for frame in self.inner if frame.dim is not None)

    @property
    def weight(self) -> float | Tensor:
        """The power of its density but for what the plates weigh."""
        weight = self.scale
        for frame in self.inner:
            if frame.dim is not None and frame.scale != 1.0:
                weight = weight / frame.scale
        return weight

    def name_of(self, dim: int, size: int) -> str:
        """Whose a batch dimension is: a plate's, or an enumerated site's.

        Raises:
            PlateError: if it is nobody's.
        """
        frame = self.frames.get(dim)
        if frame is not None:
            return frame.name
        owners = self.message.enum_dims or {}
        if dim in owners:
            return owners[dim]
        known = ", ".join(f"{each}: {frame.name!r}" for each, frame in sorted(self.frames.items())) or "none"
        raise PlateError(
            f"Site {self.name!r} varies along dim {dim} (size {size}), which belongs to no plate (owned: {known}). "
            "Declare it with a plate, or make it part of the event with .to_event()."
        )

    def enumerated(self, batch: Sequence[int]) -> list[tuple[int, str]]:
        """The places of a batch shape that belong to enumerated sites, with their names."""
        frames = self.frames
        return [
            (place, self.name_of(place - len(batch), size))
            for place, size in enumerate(batch)
            if size > 1 and place - len(batch) not in frames
        ]
