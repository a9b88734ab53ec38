"""Independent repetitions of a model and a guide along one tensor dimension."""

from __future__ import annotations

from sumout.effects import CondIndepStackFrame, Message
from sumout.effects.handlers import IndepMessenger
from sumout.effects.handlers.broadcast import expand_to_plates


class ParticlePlate(IndepMessenger):
    """An outermost plate of which every element is one sample of everything, with weight ``1 / size``.

    The frame says that its ``size`` elements stand for one: the reverse of subsampling, so whatever is exact
    for subsampled plates is exact for particles.

    >>> import sumout.distributions as dist
    >>> from sumout.effects.handlers import trace
    >>> from sumout.effects.primitives import sample
    >>> def guide():
    ...     sample("z", dist.Normal(0.0, 1.0))
    >>> site = trace(ParticlePlate(10, dim=-3)(guide)).get_trace().nodes["z"]
    >>> site["value"].shape, site["scale"]
    (torch.Size([10, 1, 1]), 0.1)
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__("num_particles_vectorized", size, dim)

    def _frame(self, dim: int | None, counter: int) -> CondIndepStackFrame:
        return CondIndepStackFrame(self.name, dim, self.size, counter, full_size=1)

    def _process_message(self, msg: Message) -> None:
        super()._process_message(msg)
        msg.scale = msg.scale * (1 / self.size)
        if msg.type == "sample":
            expand_to_plates(msg)
