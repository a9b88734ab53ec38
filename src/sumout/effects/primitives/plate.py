"""The statement ``plate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sumout.effects.handlers.plate import PlateMessenger
from sumout.errors import PlateError


class plate(PlateMessenger):  # a statement of the language, hence the small letter
    """Declares that its elements are independent, given what is outside.

    With ``with`` the elements are a batch dimension: distributions inside are expanded along it, and the
    elements' indices are given. Iterated, they are a loop over the indices. Under subsampling only some
    elements are present, and log-probabilities inside are scaled by ``size`` over their number.

    Args:
        name: the plate; sites of a model and a guide are matched by it.
        size: the number of elements; without it, nothing is checked, expanded or subsampled.
        subsample_size: how many are present, a new random choice each time.
        subsample: the indices of those that are present, in the place of a random choice.
        dim: the negative batch dimension; by default the rightmost that no enclosing plate uses.
        use_cuda: an old way to say ``device="cuda"``.
        device: where the indices live.

    Raises:
        PlateError: if sizes contradict each other or data, two plates use one dimension, or ``dim`` is not
            negative.

    >>> import torch
    >>> import sumout.distributions as dist
    >>> from sumout.effects.primitives.sample import sample
    >>> with plate("docs", 3), plate("words", 4, dim=-2):
    ...     sample("w", dist.Bernoulli(0.5)).shape
    torch.Size([4, 3])
    >>> with plate("data", 10, subsample_size=2) as indices:
    ...     indices.shape
    torch.Size([2])
    >>> for i in plate("rows", 2):
    ...     print(i)
    0
    1
    """


@contextmanager
def plate_stack(prefix: str, sizes: Sequence[int], rightmost_dim: int = -1) -> Iterator[None]:
    """Enters one plate for each size, the last of them at ``rightmost_dim`` and the others left of it.

    Args:
        prefix: the plates are named ``<prefix>_0`` (the rightmost), ``<prefix>_1``, ...
        sizes: as in the shape of a tensor.
        rightmost_dim: the negative dimension of the last.

    Raises:
        PlateError: if a dimension is not negative or is taken.

    >>> import sumout.distributions as dist
    >>> from sumout.effects.primitives.sample import sample
    >>> with plate_stack("grid", [4, 3]):
    ...     sample("x", dist.Normal(0.0, 1.0)).shape
    torch.Size([4, 3])
    """
    if rightmost_dim >= 0:
        raise PlateError(
            f"plate_stack has rightmost_dim={rightmost_dim}; dimensions are counted from the right: -1."
        )
    with ExitStack() as entered:
        for place, size in enumerate(reversed(sizes)):
            entered.enter_context(plate(f"{prefix}_{place}", size, dim=rightmost_dim - place))
        yield
