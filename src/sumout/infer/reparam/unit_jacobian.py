"""Sites in the coordinates of a volume-preserving transformation."""

from __future__ import annotations

import copy
from typing import Any

from torch.distributions.transforms import ComposeTransform

import sumout.distributions as dist
from sumout.effects import get_mask
from sumout.effects.primitives.sample import sample
from sumout.infer.reparam.batch_coupling import OnesRight, plates_muted, with_ones, without_ones
from sumout.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult, determined, sum_rightmost


class UnitJacobianReparam(Reparam):
    """Writes ``x`` as the inverse of a transformation whose Jacobian determinant is one, of the site
    ``x_<suffix>``. A site whose values are not all the reals is made unconstrained first.

    The density of an observed site is kept too: what making it unconstrained does to it stands in the site itself.

    Args:
        transform: a transform of ``sumout.distributions.transforms`` or torch, of Jacobian determinant one.
        suffix: what the name of the auxiliary site ends with.
        experimental_allow_batch: whether the transformation may couple elements of plates, if it acts on more
            dimensions than an event has. These plates are then not seen by the auxiliary site, which has
            their dimensions in its event.

    Raises:
        ModelError: when the program runs, if the transformation acts on batch dimensions and that is not allowed,
            or the batch has too few; or if the site's support has no map to the reals.

    >>> import torch, sumout
    >>> from torch.distributions.transforms import AffineTransform
    >>> @sumout.poutine.reparam(config={"x": UnitJacobianReparam(AffineTransform(-2.0, 1.0), suffix="shifted")})
    ... def model():
    ...     return sumout.sample("x", dist.Normal(torch.tensor(2.0), 1.0))
    >>> trace = sumout.poutine.trace(model).get_trace()
    >>> bool((trace.nodes["x"]["value"] - 2.0).isclose(trace.nodes["x_shifted"]["value"]))
    True
    """

    def __init__(
        self, transform: Any, suffix: str = "transformed", *, experimental_allow_batch: bool = False
    ) -> None:
        self.transform = transform
        self.suffix = suffix
        self.experimental_allow_batch = experimental_allow_batch

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, fn, value, is_observed = msg["name"], msg["fn"], msg["value"], msg["is_observed"]
        event_dim = fn.event_dim
        coupled = self._coupled(msg)
        to_reals = _with_cache(_bijection(self, msg)).inv
        transform = ComposeTransform([to_reals, _with_cache(self.transform)])
        joint = fn.to_event(coupled) if coupled else fn
        transformed = dist.TransformedDistribution(joint, list(transform.parts))
        coordinates = None if value is None else transform(value)
        if not coupled:
            coordinates = self._sample(name, transformed, coordinates, is_observed)
        else:
            joint_dim = transformed.event_dim
            if coordinates is not None:
                coordinates = with_ones(coordinates, coupled, joint_dim)
            with plates_muted(coupled):
                coordinates = self._sample(name, OnesRight(transformed, coupled), coordinates, is_observed)
            coordinates = without_ones(coordinates, coupled, joint_dim)
        if value is None:
            value = transform.inv(coordinates)
        log_density = None
        if is_observed and get_mask() is not False:
            jacobian = to_reals.log_abs_det_jacobian(value, to_reals(value))
            log_density = sum_rightmost(jacobian, event_dim - to_reals.domain.event_dim)
        return determined(value, event_dim, log_density)

    def _sample(self, name: str, fn: Any, value: Any, is_observed: bool) -> Any:
        return sample(f"{name}_{self.suffix}", fn, obs=value, infer={"is_observed": is_observed})

    def _coupled(self, msg: ReparamMessage) -> int:
        """How many batch dimensions the transformation acts on."""
        fn = msg["fn"]
        coupled: int = max(0, self.transform.domain.event_dim - fn.event_dim)
        if coupled and not self.experimental_allow_batch:
            raise self._misfit(
                msg,
                f"its event shape is {tuple(fn.event_shape)}, and the transformation acts on "
                f"{self.transform.domain.event_dim} dimensions",
                "Make batch dimensions part of the event with .to_event(), or say experimental_allow_batch=True.",
            )
        if coupled > len(fn.batch_shape):
            raise self._misfit(
                msg,
                f"its batch shape is {tuple(fn.batch_shape)}, of which the transformation acts on {coupled} dimensions",
                "Apply reparam outside of the plates, or give the distribution these dimensions.",
            )
        return coupled


def _bijection(reparam: Reparam, msg: ReparamMessage) -> Any:
    """The map from the reals to the site's support."""
    try:
        return dist.biject_to(msg["fn"].support)
    except NotImplementedError as error:
        raise reparam._misfit(
            msg,
            f"there is no bijection of its support {msg['fn'].support} to the reals",
            "Leave the site out of reparam's config.",
        ) from error


def _with_cache(transform: Any) -> Any:
    """A copy that remembers its last value and where it came from: a shared memory would outlive the run.

    (The method ``with_cache`` makes the transform anew, and some forget an argument.)
    """
    cached = copy.copy(transform)
    cached._cache_size, cached._cached_x_y = 1, (None, None)
    return cached
