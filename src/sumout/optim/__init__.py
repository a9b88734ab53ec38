"""Every optimizer of ``torch.optim``, made for parameters that are known by name and appear while a program runs.

``optim.Adam({"lr": 0.01})`` is a `ParamOptimizer` that makes one ``torch.optim.Adam`` for each parameter it
meets; so it is for ``SGD``, ``RMSprop`` and the others, and for `ClippedAdam`. The only one left out is
``LBFGS``, which must evaluate the loss itself.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch

from sumout.errors import nearest
from sumout.optim import clipped_adam
from sumout.optim.param_optimizer import Options, ParamOptimizer

__all__ = ["Constructor", "Options", "ParamOptimizer"]


class Constructor(Protocol):
    """What ``optim.Adam`` is: a function of the options of an optimizer and of clipping."""

    __name__: str

    def __call__(self, optim_args: Options, clip_args: Options | None = None) -> ParamOptimizer: ...


def _classes() -> dict[str, type[torch.optim.Optimizer]]:
    bases = (torch.optim.Optimizer, torch.optim.LBFGS)
    found = {
        name: value
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value not in bases
    }
    return found | {"ClippedAdam": clipped_adam.ClippedAdam}


@cache
def _constructor(name: str) -> Constructor:
    cls = _classes()[name]

    def constructor(optim_args: Options, clip_args: Options | None = None) -> ParamOptimizer:
        return ParamOptimizer(cls, optim_args, clip_args)

    constructor.__name__ = constructor.__qualname__ = name
    constructor.__doc__ = f"A `ParamOptimizer` that makes a ``{cls.__module__}.{name}`` for each parameter."
    return constructor


def __getattr__(name: str) -> Constructor:
    classes = _classes()
    if name in classes:
        return _constructor(name)
    if name == "LBFGS":
        raise AttributeError(
            "LBFGS evaluates the loss several times in a step, which SVI's steps cannot offer. Use it directly: "
            "torch.optim.LBFGS on the parameters of a module, with loss.differentiable_loss in its closure."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{nearest(name, classes)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_classes()})
