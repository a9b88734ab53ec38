"""Every optimizer and learning rate scheduler of torch, for parameters known by name that appear while a program runs.

``optim.Adam(lr=0.01)``, or ``optim.Adam({"lr": 0.01})``, is a `ParamOptimizer` that makes one ``torch.optim.Adam`` for
each parameter it meets; so it is for ``SGD``, ``RMSprop`` and the others, and for `ClippedAdam`. The only one left out
is ``LBFGS``, which must evaluate the loss itself. ``optim.ExponentialLR(optim.Adam(lr=0.1), gamma=0.9)`` is a
`ScheduledOptimizer`; so it is for every class of ``torch.optim.lr_scheduler`` that is made for one optimizer.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, Protocol

import torch
from torch.optim import lr_scheduler

from sumout.errors import nearest
from sumout.optim import clipped_adam
from sumout.optim.param_optimizer import Options, ParamOptimizer
from sumout.optim.scheduled import Schedule, ScheduledOptimizer, scheduled

__all__ = ["Constructor", "Options", "ParamOptimizer", "Schedule", "ScheduledOptimizer"]


class Constructor(Protocol):
    """What ``optim.Adam`` is: a function of the options of an optimizer, in a dict or by keyword, and of clipping."""

    __name__: str

    def __call__(
        self, optim_args: Any = None, clip_args: Options | None = None, **options: Any
    ) -> ParamOptimizer: ...


def _classes() -> dict[str, type[torch.optim.Optimizer]]:
    bases = (torch.optim.Optimizer, torch.optim.LBFGS)
    found = {
        name: value
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value not in bases
    }
    return found | {"ClippedAdam": clipped_adam.ClippedAdam}


def _schedulers() -> dict[str, type[Any]]:
    bases = (lr_scheduler.LRScheduler, getattr(lr_scheduler, "_LRScheduler", None))
    return {
        name: value
        for name, value in vars(lr_scheduler).items()
        if isinstance(value, type)
        and issubclass(value, lr_scheduler.LRScheduler)
        and value not in bases
        and "schedulers" not in inspect.signature(value).parameters
    }


@cache
def _constructor(name: str) -> Constructor:
    cls = _classes()[name]

    def constructor(
        optim_args: Options | None = None, clip_args: Options | None = None, **options: Any
    ) -> ParamOptimizer:
        if optim_args is not None and options:
            raise ValueError(
                f"optim.{name} takes its options in a dict or by keyword, and was given both: {optim_args!r} and "
                f"{options!r}."
            )
        return ParamOptimizer(cls, options if optim_args is None else optim_args, clip_args)

    constructor.makes_param_optimizer = True  # type: ignore[attr-defined]
    constructor.__name__ = constructor.__qualname__ = name
    constructor.__doc__ = f"A `ParamOptimizer` that makes a ``{cls.__module__}.{name}`` for each parameter."
    return constructor


@cache
def _scheduler_constructor(name: str) -> Constructor:
    cls = _schedulers()[name]

    def constructor(
        optim_args: Any = None, clip_args: Options | None = None, **options: Any
    ) -> ScheduledOptimizer:
        return scheduled(cls, optim_args, clip_args, options)

    constructor.__name__ = constructor.__qualname__ = name
    constructor.__doc__ = (
        f"A `ScheduledOptimizer` that makes a ``{cls.__module__}.{name}`` for each parameter."
    )
    return constructor


def __getattr__(name: str) -> Constructor:
    classes, schedulers = _classes(), _schedulers()
    if name in classes:
        return _constructor(name)
    if name in schedulers:
        return _scheduler_constructor(name)
    if name == "LBFGS":
        raise AttributeError(
            "LBFGS evaluates the loss several times in a step, which SVI's steps cannot offer. Use it directly: "
            "torch.optim.LBFGS on the parameters of a module, with loss.differentiable_loss in its closure."
        )
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}.{nearest(name, [*classes, *schedulers])}"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *_classes(), *_schedulers()})
