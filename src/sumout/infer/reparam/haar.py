"""Series by their wavelets."""

from __future__ import annotations

from sumout.distributions import transforms
from sumout.infer.reparam.discrete_cosine import check_series_dim
from sumout.infer.reparam.unit_jacobian import UnitJacobianReparam


class HaarReparam(UnitJacobianReparam):
    """Writes a series ``x`` by its wavelet transform ``x_haar``: Haar (1910), "Zur Theorie der orthogonalen
    Funktionensysteme", in its orthonormal form. Like ``DiscreteCosineReparam``, for series whose
    correlation is local in time.

    A series whose length is no power of two is cut into blocks, each half as long as the one before or less.

    Args:
        dim: the dimension of the series, counted from the right.
        flip: whether time is turned around first.
        experimental_allow_batch: whether ``dim`` may be a plate's; see ``UnitJacobianReparam``.

    Raises:
        ModelError: if ``dim`` is not negative; when the program runs, as ``UnitJacobianReparam`` does.

    >>> import torch, sumout, sumout.distributions as dist
    >>> @sumout.poutine.reparam(config={"x": HaarReparam()})
    ... def model():
    ...     return sumout.sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=torch.ones(4))
    >>> sumout.poutine.trace(model).get_trace().nodes["x_haar"]["value"]
    tensor([2.0000, 0.0000, 0.0000, 0.0000])
    """

    def __init__(self, dim: int = -1, flip: bool = False, *, experimental_allow_batch: bool = False) -> None:
        check_series_dim(self, dim)
        transform = transforms.HaarTransform(dim=dim, flip=flip)
        super().__init__(transform, suffix="haar", experimental_allow_batch=experimental_allow_batch)
