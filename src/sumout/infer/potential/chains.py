"""A potential at many vectors in one run of the program, one for each chain of a sampler.

The run is mapped over the vectors by ``torch.func.vmap``, so the program need not be written for batches. Sums that
look at their numbers cannot do that there; they note instead where these are too far apart, and such vectors are taken
one by one.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sumout.errors import ModelError
from sumout.execute import unchecked


class Potential(Protocol):
    """What is asked of a potential here."""

    def flat(self, vector: Tensor) -> Tensor:
        """The potential at a vector."""
        ...

    def value_and_grad(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The potential at a vector, and its gradient."""
        ...


def flag(wrong: list[Tensor]) -> Tensor:
    """Whether one of the sums of an unchecked run is wrong."""
    return torch.stack(wrong).any() if wrong else torch.zeros((), dtype=torch.bool)


def values_and_gradients(potential: Potential, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Potentials and gradients at vectors along dimension 0.

    Raises:
        RuntimeError: if the program does what cannot be mapped, such as to look at the values of its sites.
    """

    def at_one(vector: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        with unchecked() as wrong:
            value = potential.flat(vector)
        return value, (value.detach(), flag(wrong))

    # All chains have the same random numbers, as they would have one by one.
    each = torch.func.vmap(torch.func.grad(at_one, has_aux=True), randomness="same")
    gradients, (values, wrong) = each(vectors)
    return corrected(potential, vectors, values, gradients, wrong)


def corrected(
    potential: Potential, vectors: Tensor, values: Tensor, gradients: Tensor, wrong: Tensor
) -> tuple[Tensor, Tensor]:
    """Takes the rows again that are wrong."""
    for row in wrong.nonzero().flatten().tolist():
        values[row], gradients[row] = potential.value_and_grad(vectors[row])
    return values, gradients


def one_by_one(potential: Potential, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The same, a run for each."""
    found = [potential.value_and_grad(vector) for vector in vectors]
    return torch.stack([value for value, _ in found]), torch.stack([gradient for _, gradient in found])


def check_mapped(potential: Potential, vectors: Tensor, values: Tensor) -> None:
    """Compares the first of mapped potentials with one of a plain run.

    Raises:
        ModelError: if they differ.
    """
    expected = potential.value_and_grad(vectors[0])[0]
    tolerance = torch.finfo(values.dtype).eps ** 0.5
    if not torch.allclose(values[0], expected, rtol=tolerance, atol=tolerance, equal_nan=True):
        raise ModelError(
            f"The potential of several chains at once gives {values[0]} where a run of one gives {expected}: the "
            "program does not do the same in every run. Take the chains one by one."
        )


class ValueWithGradient(torch.autograd.Function):
    """Potentials whose gradients are known with their values."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, potential: Potential) -> Tensor:
        value, gradient = potential.value_and_grad(vectors)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return grads[0].unsqueeze(-1) * gradient, None
