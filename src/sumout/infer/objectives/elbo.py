"""What all evidence lower bounds share: particles, and a loss that comes with its gradient."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sumout.effects.handlers import BlockMessenger
from sumout.effects.random_state import kept_rng_state
from sumout.errors import EnumerationError, PlateError, SumoutError
from sumout.infer.collapsing.marked import with_marked_sites_collapsed
from sumout.infer.objectives.pair import Args, DeeperPlates, Kwargs, Program, is_decision, pair_nesting
from sumout.infer.objectives.particles import ParticlePlate
from sumout.infer.programs.modes import NestingError


class ELBO(ABC):
    """An estimator of the evidence lower bound ``E_q[log p(x, z) - log q(z)]`` of a model and a guide.

    A subclass says how one estimate is made; the loss is the mean of the estimates, with the opposite sign.
    Arguments after the guide are those of the model and the guide.

    Args:
        num_particles: the number of estimates to take the mean of.
        max_plate_nesting: tensor dimensions that the plates of model and guide take up; found by a trial
            run when it is needed and not given, and found anew where a later call has deeper plates.
        vectorize_particles: whether the particles are a tensor dimension instead of a loop.
        strict_enumeration_warning: whether to warn if sites are marked for enumeration and the objective does
            not enumerate, or the other way round.
        retain_graph: what ``loss_and_grads`` tells autograd.

    Raises:
        ValueError: if there are no particles.
    """

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float | None = None,
        vectorize_particles: bool = False,
        strict_enumeration_warning: bool = True,
        retain_graph: bool | None = None,
    ) -> None:
        if num_particles < 1:
            raise ValueError(f"num_particles={num_particles}; an estimate needs at least one.")
        self.num_particles = num_particles
        self.max_plate_nesting = (
            None if max_plate_nesting is None or math.isinf(max_plate_nesting) else int(max_plate_nesting)
        )
        self._finds_nesting = self.max_plate_nesting is None
        self.vectorize_particles = vectorize_particles
        self.strict_enumeration_warning = strict_enumeration_warning
        self.retain_graph = retain_graph

    @abstractmethod
    def _estimate(
        self, model: Program, guide: Program, args: Args, kwargs: Kwargs, nesting: int | None
    ) -> Tensor:
        """One estimate of the bound, a scalar whose gradient estimates the bound's gradient.

        ``nesting`` is the number of dimensions of the plates, particles included, if ``_needs_nesting``.
        """

    _needs_nesting = False

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The negative bound, estimated, as a number."""
        with torch.no_grad():
            return _checked(sum(-float(each) for each in self._estimates(model, guide, args, kwargs)))

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The negative bound, estimated, as a scalar with a gradient."""
        loss = -torch.stack(list(self._estimates(model, guide, args, kwargs))).sum()
        _checked(float(loss.detach()))
        return loss

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The negative bound as a number; its gradient is added to the parameters' ``grad``."""
        loss = 0.0
        for estimate in self._estimates(model, guide, args, kwargs):
            loss -= float(estimate.detach())
            if estimate.requires_grad:
                (-estimate).backward(retain_graph=self.retain_graph)  # type: ignore[no-untyped-call]
        return _checked(loss)

    def __call__(self, model: Program, guide: Program) -> ELBOModule:
        """The loss as a ``torch.nn.Module``, to be trained by torch's own means."""
        return ELBOModule(model, guide, self)

    def _nesting(self, model: Program, guide: Program, args: Args, kwargs: Kwargs) -> int:
        """``max_plate_nesting``, looked for if it is not known yet."""
        if self.max_plate_nesting is None:
            self.max_plate_nesting = pair_nesting(model, guide, args, kwargs)
        return self.max_plate_nesting

    def _estimates(self, model: Program, guide: Program, args: Args, kwargs: Kwargs) -> Iterator[Tensor]:
        """Estimates that sum to the bound's."""
        model = with_marked_sites_collapsed(model)
        particles = self.num_particles
        if particles > 1 and self.vectorize_particles:

            def together(nesting: int) -> Tensor:
                plate = ParticlePlate(particles, dim=-1 - nesting)
                return self._estimate(plate(model), plate(guide), args, kwargs, nesting + 1)

            try:
                estimate = self._deep_enough(together, model, guide, args, kwargs)
            except Exception as error:
                if not _may_be_of_particles(error):
                    raise
                raise self._told(error, model, guide, args, kwargs) from error
            yield estimate
            return

        def single(nesting: int | None) -> Tensor:
            return self._estimate(model, guide, args, kwargs, nesting)

        for _ in range(particles):
            estimate = (
                self._deep_enough(single, model, guide, args, kwargs) if self._needs_nesting else single(None)
            )
            yield estimate / particles if particles > 1 else estimate

    def _told(
        self, error: Exception, model: Program, guide: Program, args: Args, kwargs: Kwargs
    ) -> Exception:
        """The error of a run with all particles at once, if a run with one has none; else that of the latter."""
        with BlockMessenger(), kept_rng_state(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                nesting = self._nesting(model, guide, args, kwargs)
                self._estimate(model, guide, args, kwargs, nesting)
            except SumoutError as alone:
                return alone
            except _OF_TENSORS:
                return error
        return _of_particles(error, self.num_particles, nesting)

    def _deep_enough(
        self, estimate: Callable[[int], Tensor], model: Program, guide: Program, args: Args, kwargs: Kwargs
    ) -> Tensor:
        """An estimate; where plates turn out to be deeper than those of earlier calls, with more room for them."""
        nesting = self._nesting(model, guide, args, kwargs)
        try:
            return estimate(nesting)
        except DeeperPlates as error:
            deeper = pair_nesting(model, guide, args, kwargs)
            if deeper <= nesting:
                raise (error.__cause__ or error) from None
            if not self._finds_nesting:
                raise NestingError(
                    f"The plates take up {deeper} dims and max_plate_nesting is {nesting}. "
                    f"Give max_plate_nesting={deeper}, or leave it out to have it found."
                ) from error
        self.max_plate_nesting = deeper
        return estimate(deeper)


class ELBOModule(torch.nn.Module):
    """A model, a guide and an objective; calling it with their arguments gives the loss.

    Parameters are those of the model and the guide that are modules themselves.
    """

    def __init__(self, model: Program, guide: Program, elbo: ELBO) -> None:
        super().__init__()
        self.model = model
        self.guide = guide
        self.elbo = elbo

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, a scalar with a gradient."""
        return self.elbo.differentiable_loss(self.model, self.guide, *args, **kwargs)


_OF_TENSORS = (RuntimeError, ValueError, TypeError, IndexError)
"""What torch raises for tensors of a shape that an operation does not take."""


def _may_be_of_particles(error: Exception) -> bool:
    if isinstance(error, SumoutError):
        return isinstance(error, (EnumerationError, PlateError))
    return isinstance(error, _OF_TENSORS)


def _of_particles(error: Exception, particles: int, nesting: int) -> SumoutError:
    """The error of a program that runs with one particle, and not with all of them in a tensor dimension."""
    remedy = "Run the particles one after another: vectorize_particles=False."
    if isinstance(error, SumoutError):
        told = (
            f"{error} So it is with particles along dim {-1 - nesting}, and not with one particle. {remedy}"
        )
        return PlateError(told) if isinstance(error, PlateError) else EnumerationError(told)
    if is_decision(error):
        return EnumerationError(
            "Python decides on a value that differs from particle to particle (if, while, and, or, not, bool(), "
            f"item(), an index of a list). {remedy}"
        )
    return EnumerationError(
        f"A program fails with {particles} particles along dim {-1 - nesting}, left of the plates, and not with one: "
        f"{str(error).splitlines()[0]}. Operations on values have to keep that dimension. {remedy}"
    )


def _checked(loss: float) -> float:
    if math.isnan(loss):
        warnings.warn("The loss is NaN: a log-probability or a parameter is not a number.", stacklevel=3)
    return loss
