"""Independent runs of a program along one tensor dimension, some of their values given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sumout.distributions import Unit
from sumout.distributions.families import is_distribution
from sumout.effects import Message, Messenger
from sumout.effects.handlers import IndepMessenger
from sumout.effects.handlers.broadcast import expand_to_plates
from sumout.effects.steps import assembled, sources
from sumout.errors import ModelError, SumoutError

SAMPLES = "num_samples"
"""The name of the plate of samples."""


class SamplePlate(IndepMessenger):
    """An outermost plate of which every element is one run of the program.

    >>> import sumout
    >>> import sumout.distributions as dist
    >>> SamplePlate(5, dim=-2)(lambda: sumout.sample("z", dist.Normal(0.0, 1.0)))().shape
    torch.Size([5, 1])
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__(SAMPLES, size, dim)

    def _process_message(self, msg: Message) -> None:
        super()._process_message(msg)
        if msg.type == "sample" and not msg.infer.get("_deterministic"):
            expand_to_plates(msg)


class Given(Messenger):
    """Observes sites at values of earlier samples; what is deterministic follows from them and is left alone.

    Args:
        values: by name of site; one sample of each, or all of them along dimension 0.
        plate_nesting: dimensions of the plates inside the plate of samples; ``None`` where there is one sample.

    Attributes:
        unused: the names that no site has had so far, in any run.

    >>> import sumout
    >>> import sumout.distributions as dist
    >>> given = Given({"z": torch.zeros(5)}, plate_nesting=2)
    >>> given(lambda: sumout.sample("z", dist.Normal(0.0, 1.0)))().shape
    torch.Size([5, 1, 1])
    """

    def __init__(self, values: Mapping[str, Tensor], plate_nesting: int | None = None) -> None:
        self.values = values
        self.plate_nesting = plate_nesting
        self.unused = set(values)

    def _pyro_sample(self, msg: Message) -> None:
        name = msg.name
        if name is None:
            return
        self.unused.discard(name)
        if msg.infer.get("_deterministic"):
            return
        if name in self.values:
            msg.value = self._placed(msg, name)
        elif "_chain" in msg.infer and not msg.is_observed:
            names = {each for each, _, _ in sources(msg, self.values)}
            self.unused -= names
            found = assembled(msg, {each: self._placed(msg, each) for each in names}) if names else None
            if found is None:
                return
            msg.value = found[0]
        else:
            return
        msg.is_observed = True
        msg.enum_dim = None

    def _placed(self, msg: Message, name: str) -> Tensor:
        """The samples where a run in the plate of samples has them: left of all plates."""
        value = self.values[name]
        if self.plate_nesting is None:
            if name == msg.name and is_distribution(msg.plain_fn) and not isinstance(msg.plain_fn, Unit):
                _check_shape(name, value, msg.fn)
            return value
        event_dim = msg.plain_fn.event_dim if is_distribution(msg.plain_fn) else 0
        missing = self.plate_nesting + 1 + event_dim - value.dim()
        if missing < 0:
            raise ModelError(
                f"Site {name!r} is given samples of shape {tuple(value.shape)}: its event has {event_dim} dims and "
                f"the plates {self.plate_nesting}, so there are at most {self.plate_nesting + 1 + event_dim} dims, "
                "the samples first. Give max_plate_nesting, or one sample a row."
            )
        return value.reshape(value.shape[0], *[1] * missing, *value.shape[1:])


def _check_shape(name: str, value: Tensor, fn: Any) -> None:
    """Raises ``ModelError`` for a value of one sample that is no value of a site with distribution ``fn``."""
    wanted = (*fn.batch_shape, *fn.event_shape)
    sizes = zip(reversed(value.shape), reversed(wanted), strict=False)
    if value.dim() > len(wanted) or any(size not in (1, other) for size, other in sizes):
        raise ModelError(
            f"Site {name!r} is given samples of shape {tuple(value.shape)} each, and its values have shape {wanted} in "
            "this run. Samples lie along dimension 0 alone: put those of several chains together, value.flatten(0, 1) "
            "(mcmc.get_samples() does, without group_by_chain). Samples of data of another size are none of this run: "
            "leave them out, and they are drawn."
        )


def is_decision(error: Exception) -> bool:
    """Whether an error is torch's, of Python's deciding on a value that has many elements."""
    found = str(error)
    return not isinstance(error, SumoutError) and ("ambiguous" in found or "to Scalar" in found)


@contextmanager
def decisions_told() -> Iterator[None]:
    """Says, for torch's error, what it means that Python decides on a value of many samples at once.

    Raises:
        ModelError: in the place of that error.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if not is_decision(error):
            raise
        raise ModelError(
            "Python decides on a value that differs from sample to sample (if, while, and, or, not, bool(), item()). "
            "Take the samples one after another: parallel=False."
        ) from error


def samples_first(name: str, value: Any, count: int, shape: torch.Size) -> Tensor:
    """A value of a run in the plate of samples as ``count`` values of one plain run each.

    Args:
        name: the site, for the error.
        value: what the run in the plate of samples has; dimensions along which nothing varies may be missing.
        count: how many samples.
        shape: that of the site's value in a plain run.

    Raises:
        ModelError: if the value has not the elements for that.

    >>> samples_first("z", torch.zeros(5, 1, 3), 5, torch.Size([3])).shape
    torch.Size([5, 3])
    """
    tensor = torch.as_tensor(value)
    extra = tensor.dim() - len(shape)
    if extra <= 0:
        lead, rest = 1, (1,) * -extra + tuple(tensor.shape)
    else:
        lead, rest = tensor.shape[:extra].numel(), tuple(tensor.shape[extra:])
    fits = all(size in (1, wanted) for size, wanted in zip(rest, shape, strict=True))
    if lead not in (1, count) or not fits:
        raise ModelError(
            f"Site {name!r} has shape {tuple(tensor.shape)} in a run of {count} samples at once, and {tuple(shape)} in "
            "a single one: the program does something to values that does not leave the samples along a dimension "
            "of their own, left of the plates. Use parallel=False."
        )
    return tensor.reshape(lead, *rest).expand(count, *shape)
