"""Adam with gradients held in bounds and a learning rate that decays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class ClippedAdam(torch.optim.Adam):
    """Adam (Kingma and Ba, 2015, algorithm 1) whose gradients are first clamped, element by element.

    Args:
        params: as for every ``torch.optim`` optimizer.
        lr: the learning rate before the first step.
        betas: decay of the averages of the gradient and of its square.
        eps: added to the root of the averaged square.
        weight_decay: strength of the pull towards zero.
        clip_norm: the largest absolute value that an element of a gradient keeps.
        lrd: the factor that the learning rate is multiplied by in every step.

    >>> weight = torch.tensor([1.0], requires_grad=True)
    >>> weight.grad = torch.tensor([1e6])
    >>> optimizer = ClippedAdam([weight], lr=0.1, lrd=0.5)
    >>> optimizer.step()
    >>> optimizer.param_groups[0]["lr"], weight.grad.item(), round(weight.item(), 4)
    (0.05, 10.0, 0.95)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float = 10.0,
        lrd: float = 1.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        for settings in (self.defaults, *self.param_groups):
            settings.setdefault("clip_norm", clip_norm)
            settings.setdefault("lrd", lrd)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure``, if given, computes the loss and its gradients and is called first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["lr"] *= group["lrd"]
            for param in group["params"]:
                if param.grad is not None:
                    param.grad.clamp_(-group["clip_norm"], group["clip_norm"])
        super().step()
        return loss
