"""Independence contexts of which a random part is looked at."""

from __future__ import annotations

from typing import Any, SupportsIndex

import torch
from torch import Tensor

from sumout.distributions import Distribution
from sumout.effects.frame import CondIndepStackFrame
from sumout.effects.handlers.indep import ANY_SIZE, IndepMessenger, checked_size
from sumout.effects.message import Message
from sumout.effects.stack import apply_stack, state
from sumout.errors import PlateError
from sumout.settings import settings


class _Subsample(Distribution):  # type: ignore[misc]
    """A random choice of ``subsample_size`` of the numbers below ``size``, each at most once, in random
    order.

    Its log-probability is zero, so that scaled by ``size / subsample_size`` the sites of a plate have the
    expectation that they would have without subsampling.
    """

    def __init__(self, size: int, subsample_size: int | None, device: str | torch.device | None) -> None:
        self.size = size
        self.subsample_size = subsample_size
        self.device = device

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  (immutable)
        if sample_shape:
            raise NotImplementedError("A subsample is drawn once, without a sample_shape.")
        if self.subsample_size is None or self.subsample_size >= self.size:
            return torch.arange(self.size, device=self.device)
        return torch.randperm(self.size, device=self.device)[: self.subsample_size].clone()

    def log_prob(self, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros((), device=self.device)


class SubsampleMessenger(IndepMessenger):
    """An independence context with subsampling: scales what it contains by ``size / subsample_size``.

    The choice is a sample site named like the context, so that it is traced and replayed.

    Args:
        name: tells the context from others.
        size: how many elements it stands for; without it, nothing is checked, expanded or subsampled.
        subsample_size: how many of them are looked at, a new random choice each time the object is made.
        subsample: the elements to look at, in the place of a random choice.
        dim: the negative batch dimension; by default the rightmost that is free.
        use_cuda: an old way to say ``device="cuda"``.
        device: where ``indices`` live.

    Raises:
        PlateError: if the sizes contradict each other or the dimension is taken.
    """

    def __init__(
        self,
        name: str,
        size: SupportsIndex | None = None,
        subsample_size: SupportsIndex | None = None,
        subsample: Any = None,
        dim: int | None = None,
        use_cuda: bool | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if use_cuda is not None:
            device = _device(name, use_cuda, device)
        if size is None:
            if subsample_size is not None or subsample is not None:
                raise PlateError(
                    f"Plate {name!r} is subsampled but has no size. Give it: plate({name!r}, size, ...)."
                )
            full = chosen = ANY_SIZE
        else:
            full = checked_size(name, size)
            wanted = None if subsample_size is None else checked_size(name, subsample_size)
            subsample = _choose(name, full, wanted, subsample, device)
            chosen = len(subsample)
            _check_choice(name, full, wanted, subsample)
        self.subsample_size = chosen
        super().__init__(name, full, dim, device)
        self._indices = subsample
        self._scale = full / chosen

    def _frame(self, dim: int | None, counter: int) -> CondIndepStackFrame:
        return CondIndepStackFrame(self.name, dim, self.subsample_size, counter, self.size)

    def _process_message(self, msg: Message) -> None:
        msg.cond_indep_stack = (self._place.frame, *msg.cond_indep_stack)
        if self._scale != 1.0:
            msg.scale = msg.scale * self._scale

    def _pyro_post_param(self, msg: Message) -> None:
        self._take_part(msg, f"param({msg.name!r}, ..., event_dim={msg.kwargs.get('event_dim')})")

    def _pyro_post_subsample(self, msg: Message) -> None:
        self._take_part(msg, f"subsample(..., event_dim={msg.kwargs.get('event_dim')})")

    def _take_part(self, msg: Message, statement: str) -> None:
        """Cuts a value whose batch dimensions are known down to the elements that are looked at."""
        event_dim = msg.kwargs.get("event_dim")
        if self.dim is None or self.size < 0 or event_dim is None:
            return
        value, axis = msg.value, self.dim - event_dim
        if value.dim() < -axis or value.shape[axis] == 1:
            return
        if value.shape[axis] != self.size:
            raise PlateError(
                f"{statement} has shape {tuple(value.shape)}: {value.shape[axis]} along dim "
                f"{self.dim}, which is plate {self.name!r} of size {self.size}. Give it size {self.size} "
                "(or 1) there, or another event_dim."
            )
        if self.subsample_size < self.size:
            part = value.index_select(axis, torch.as_tensor(self._indices, device=value.device))
            if msg.type == "param":
                part.unconstrained = value.unconstrained
            msg.value = part


def _choose(name: str, size: int, subsample_size: int | None, given: Any, device: Any) -> Any:
    if subsample_size is not None and subsample_size > size:
        raise PlateError(
            f"Plate {name!r} has {size} elements, of which {subsample_size} cannot be chosen. "
            f"Give a subsample_size of at most {size}."
        )
    fn = _Subsample(size, subsample_size, device)
    if not state.stack:
        return fn.sample() if given is None else given
    msg = Message(type="sample", name=name, fn=fn, value=given)
    apply_stack(msg)
    return msg.value


def _check_choice(name: str, size: int, subsample_size: int | None, subsample: Any) -> None:
    chosen = len(subsample)
    if chosen == 0 or chosen > size:
        raise PlateError(
            f"Plate {name!r} has {size} elements and a subsample of {chosen}. "
            f"Give between 1 and {size} of them."
        )
    if subsample_size is not None and chosen != subsample_size:
        raise PlateError(
            f"Plate {name!r} has subsample_size={subsample_size} and a subsample of {chosen} elements. "
            "Use the same size in the model and the guide, or give only the subsample."
        )
    if settings.validation and chosen < size:
        indices = torch.as_tensor(subsample)
        if int(indices.min()) < 0 or int(indices.max()) >= size:
            raise PlateError(
                f"Plate {name!r} has elements 0 to {size - 1}; its subsample goes from {int(indices.min())} "
                f"to {int(indices.max())}."
            )


def _device(name: str, use_cuda: bool, device: Any) -> Any:
    if device is not None and use_cuda != (torch.device(device).type != "cpu"):
        raise PlateError(
            f"Plate {name!r} has use_cuda={use_cuda} and device={device!r}. Give the device alone."
        )
    return device or ("cuda" if use_cuda else "cpu")
