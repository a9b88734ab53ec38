"""Distributions take the batch shape of the plates around them."""

from __future__ import annotations

from sumout.distributions.families import is_distribution
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.errors import PlateError


def expand_to_plates(msg: Message) -> None:
    """Expands the distribution of a sample site along the plates that the site has met so far.

    The site keeps the original (``plain_fn``), by which one sees later that nothing varies along a plate.

    Raises:
        PlateError: if the batch shape has another size than the plate along the plate's dimension.
    """
    if msg.done or not is_distribution(msg.plain_fn):
        return
    batch_shape = msg.batch_shape
    rank = len(batch_shape)
    target: list[int] | None = None
    for frame in msg.cond_indep_stack:
        dim, size = frame.dim, frame.size
        if dim is None or size < 0:
            continue
        actual = batch_shape[dim] if rank >= -dim else 1
        if actual == size and rank >= -dim:
            continue
        if actual != 1:
            raise PlateError(
                f"Site {msg.name!r} has batch shape {tuple(batch_shape)}: {actual} along dim {dim}, which is "
                f"plate {frame.name!r} of size {size}. Give the distribution size {size} (or 1) there, "
                f"or the plate another size or dim."
            )
        if target is None:
            target = list(batch_shape)
        if len(target) < -dim:
            target[:0] = [1] * (-dim - len(target))
        target[dim] = size
    if target is not None:
        msg.expand_fn(target)


class BroadcastMessenger(Messenger):
    """Expands every distribution along the plates around its site; ``plate`` does that by itself.

    >>> import torch
    >>> from sumout.effects.handlers.indep import IndepMessenger
    >>> from sumout.effects.primitives.sample import sample
    >>> import sumout.distributions as dist
    >>> with BroadcastMessenger(), IndepMessenger("batch", 5), IndepMessenger("components", 3):
    ...     sample("x", dist.Normal(0.0, 1.0)).shape
    torch.Size([3, 5])
    """

    def _pyro_sample(self, msg: Message) -> None:
        expand_to_plates(msg)


broadcast = wrap(BroadcastMessenger)
