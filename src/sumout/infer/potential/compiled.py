"""A potential as one compiled function: what a sampler calls ten thousand times.

A call of a potential runs a program, and most of its time is Python's. The tensor operations of a call, forwards and
backwards, do not depend on the values; so they are recorded once and compiled as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from sumout.effects.steps import Steps
from sumout.errors import ModelError
from sumout.execute import unchecked
from sumout.execute.transforms import in_vmap
from sumout.infer.potential.chains import ValueWithGradient, corrected, flag
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
        self._functions: dict[torch.Size, Compiled] = {}
        """By shape of what they are given: a vector, or several."""

    def __call__(self, params: Params) -> Tensor:
        """The potential at unconstrained values; raises as that of a ``Potential``."""
        if params.keys() != self.initial_params.keys():
            self._refuse_names(params)
        self._stacked(params)
        return self.flat(self.flatten(params))

    def flat(self, vector: Tensor) -> Tensor:
        """The potential at a vector of unconstrained values, a scalar; or at several.

        Raises:
            ModelError: inside ``torch.vmap``; if it cannot be compiled.
        """
        if in_vmap():
            raise ModelError(
                "A compiled potential was called inside torch.vmap. Give it all vectors at once: "
                "potential.flat(vectors), potential.value_and_grad(vectors)."
            )
        value: Tensor = ValueWithGradient.apply(vector, self)  # type: ignore[no-untyped-call]
        return value

    def value_and_grad(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The potential at a vector, and its gradient, both without history.

        Several vectors, chains along dimension 0, are taken at once; for each number of them it is compiled anew.
        """
        vector = vector.detach()
        like = self.initial_vector
        if vector.dtype != like.dtype or vector.device != like.device or vector.shape[-1:] != like.shape:
            return self._potential.value_and_grad(vector)
        if vector.dim() > 2:
            values, gradients = self.value_and_grad(vector.reshape(-1, len(like)))
            return values.reshape(vector.shape[:-1]), gradients.reshape(vector.shape)
        if vector.shape not in self._functions:
            self._functions[vector.shape] = self._compiled(vector.shape)
        with torch.no_grad():
            value, gradient, wrong = self._functions[vector.shape](vector)
        if not wrong.any():
            return value, gradient
        if vector.dim() == 1:
            return self._potential.value_and_grad(vector)
        return corrected(self._potential, vector, value, gradient, wrong)

    def _compiled(self, shape: torch.Size) -> Compiled:
        from torch.fx.experimental.proxy_tensor import make_fx  # Slow to import.

        start = self.initial_vector.expand(shape).clone()
        expected = self._potential.value_and_grad(start)
        try:
            operations = make_fx(lambda vector: self._recorded(vector))(self.initial_vector)
            if start.dim() > 1:
                operations = make_fx(torch.func.vmap(operations))(start)
        except RuntimeError as error:
            if "tracing tensor" not in str(error):
                raise
            raise ModelError(
                "The potential cannot be compiled: the program looks at the values of its sites, by if, float() or "
                ".item(), or integrates some out, which looks at numbers too. Use torch.where, or leave compile out."
            ) from error
        operations.graph.eliminate_dead_code()
        operations.recompile()
        function: Compiled = operations
        if self._backend != "record":
            function = torch.compile(operations, backend=self._backend, fullgraph=True, dynamic=False)
        with torch.no_grad():
            found = function(start)
        tolerance = torch.finfo(start.dtype).eps ** 0.5
        for one, other in zip(expected, found, strict=False):
            if not found[2].any() and not torch.allclose(one, other, rtol=tolerance, atol=tolerance):
                raise ModelError(
                    f"The compiled potential gives {other} where the program gives {one}: the program does not do the "
                    "same in every run. Leave compile out."
                )
        return function

    def _recorded(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with unchecked() as wrong, _PlainSteps():
            value, gradient = self._potential.value_and_grad(vector)
        return value, gradient, flag(wrong)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_functions": {}}  # Compiled code is made anew in another process.

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
