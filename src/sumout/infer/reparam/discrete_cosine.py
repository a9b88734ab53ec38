"""Series by their frequencies."""

from __future__ import annotations

from sumout.distributions import transforms
from sumout.errors import ModelError
from sumout.infer.reparam.unit_jacobian import UnitJacobianReparam


class DiscreteCosineReparam(UnitJacobianReparam):
    """Writes a series ``x`` by its discrete cosine transform ``x_dct``: Ahmed, Natarajan, Rao (1974), "Discrete
    Cosine Transform", in its orthonormal form.

    Where neighbours along the series are correlated, frequencies are nearly independent, which a diagonal guide
    asks for.

    Args:
        dim: the dimension of the series, counted from the right.
        smooth: the power of the frequency that coefficients are multiplied by: 0 leaves white noise white, 1 makes
            Brownian noise white, -1 violet noise. Take 1 for series that are continuous, 2 for smoother ones.
        experimental_allow_batch: whether ``dim`` may be a plate's; see ``UnitJacobianReparam``.

    Raises:
        ModelError: if ``dim`` is not negative; when the program runs, as ``UnitJacobianReparam`` does.

    >>> import torch, sumout, sumout.distributions as dist
    >>> @sumout.poutine.reparam(config={"x": DiscreteCosineReparam()})
    ... def model():
    ...     return sumout.sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=torch.ones(4))
    >>> sumout.poutine.trace(model).get_trace().nodes["x_dct"]["value"].round(decimals=3) + 0.0
    tensor([2., 0., 0., 0.])
    """

    def __init__(self, dim: int = -1, smooth: float = 0.0, *, experimental_allow_batch: bool = False) -> None:
        check_series_dim(self, dim)
        transform = transforms.DiscreteCosineTransform(dim=dim, smooth=smooth)
        super().__init__(transform, suffix="dct", experimental_allow_batch=experimental_allow_batch)


def check_series_dim(reparam: UnitJacobianReparam, dim: int) -> None:
    """Refuses dimensions that are not counted from the right."""
    if not isinstance(dim, int) or dim >= 0:
        raise ModelError(
            f"{type(reparam).__name__} has dim={dim!r}; it is counted from the right, e.g. dim=-1."
        )
