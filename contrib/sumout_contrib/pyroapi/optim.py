"""Module ``optim`` of the backend."""

from __future__ import annotations

from typing import Any

from sumout import optim
from sumout.optim import ParamOptimizer as PyroOptim
from sumout_contrib.pyroapi.lookup import handed_on, names

__all__ = ["PyroOptim"]

_INSTEAD = {
    "LBFGS": "It evaluates the loss several times in a step, which SVI cannot offer. Use torch.optim.LBFGS on the "
    "gradient of a loss's differentiable_loss.",
    "PyroLRScheduler": "Use ScheduledOptimizer, or a scheduler by its name: ExponentialLR({'optimizer': ...}).",
}


def __getattr__(name: str) -> Any:
    return handed_on("optim", name, optim, _INSTEAD)


def __dir__() -> list[str]:
    return sorted({*__all__, *names(optim)})
