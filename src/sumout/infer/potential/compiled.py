"""A potential as one compiled function: what a sampler calls ten thousand times.

A call of a potential runs a program, and most of its time is Python's. The tensor operations of a call, forwards and
backwards, do not depend on the values; so they are recorded once and compiled as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from sumout.effects.steps import Steps
from sumout.errors import ModelError
from sumout.execute import unchecked
from sumout.infer.potential.potential import Potential
from sumout.infer.potential.unconstrained import Params

Compiled = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""From a vector to the potential, its gradient, and whether these are wrong."""


class CompiledPotential(Potential):
    """A ``Potential`` whose calls run compiled code; ``potential_fn(..., compile=True)`` makes one.

    It is compiled at the first call and checked there against the potential itself. Numbers that the compiled sums
    cannot take, because they are too far apart, are seen in each call, and the potential itself answers then.
    Gradients are computed with the value, and cannot be differentiated again.
    """

    def __init__(self, potential: Potential, backend: str) -> None:
        vars(self).update(vars(potential))
        self._potential = potential
        self._backend = backend
        self._function: Compiled | None = None

    def __call__(self, params: Params) -> Tensor:
        """The potential at unconstrained values, a scalar; raises as that of a ``Potential``."""
        if params.keys() != self.initial_params.keys():
            self._refuse_names(params)
        return self.flat(self.flatten(params))

    def flat(self, vector: Tensor) -> Tensor:
        """The potential at a vector of unconstrained values, a scalar."""
        value: Tensor = _ValueWithGradient.apply(vector, self)  # type: ignore[no-untyped-call]
        return value

    def value_and_grad(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The potential at a vector, and its gradient, both without history."""
        vector = vector.detach()
        like = self.initial_vector
        if vector.dtype != like.dtype or vector.device != like.device or vector.shape != like.shape:
            return self._potential.value_and_grad(vector)
        if self._function is None:
            self._function = self._compiled()
        with torch.no_grad():
            value, gradient, wrong = self._function(vector)
        if wrong:
            return self._potential.value_and_grad(vector)
        return value, gradient

    def _compiled(self) -> Compiled:
        from torch.fx.experimental.proxy_tensor import make_fx  # Slow to import.

        expected = self._potential.value_and_grad(self.initial_vector)
        try:
            recorded = make_fx(lambda vector: self._recorded(vector))(self.initial_vector)
        except RuntimeError as error:
            if "tracing tensor" not in str(error):
                raise
            raise ModelError(
                "The potential cannot be compiled: the program looks at the values of its sites, by if, float() or "
                ".item(). Use torch.where, or leave compile out."
            ) from error
        recorded.graph.eliminate_dead_code()
        recorded.recompile()
        function: Compiled = recorded
        if self._backend != "record":
            function = torch.compile(recorded, backend=self._backend, fullgraph=True, dynamic=False)
        with torch.no_grad():
            found = function(self.initial_vector)
        tolerance = torch.finfo(self.initial_vector.dtype).eps ** 0.5
        for one, other in zip(expected, found, strict=False):
            if not found[2] and not torch.allclose(one, other, rtol=tolerance, atol=tolerance):
                raise ModelError(
                    f"The compiled potential gives {other} where the program gives {one}: the program does not do the "
                    "same in every run. Leave compile out."
                )
        return function

    def _recorded(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with unchecked() as wrong, _PlainSteps():
            value, gradient = self._potential.value_and_grad(vector)
        return value, gradient, torch.stack(wrong).any() if wrong else torch.zeros((), dtype=torch.bool)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_function": None}  # Compiled code is made anew in another process.

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class _PlainSteps(TorchFunctionMode):
    """Numbers of steps are plain tensors to what records operations, which knows no others."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        plain, named = tree_map_only(
            Steps, lambda steps: torch.arange(steps.start, steps.stop), (args, kwargs or {})
        )
        return func(*plain, **named)


class _ValueWithGradient(torch.autograd.Function):
    """A potential whose gradient is known with its value."""

    @staticmethod
    def forward(ctx: Any, vector: Tensor, potential: CompiledPotential) -> Tensor:
        value, gradient = potential.value_and_grad(vector)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return grads[0] * gradient, None
