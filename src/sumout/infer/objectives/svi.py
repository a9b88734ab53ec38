"""Stochastic variational inference: one gradient step after another on a loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from sumout.effects.handlers import TraceMessenger
from sumout.infer.objectives.elbo import ELBO
from sumout.infer.objectives.pair import Program
from sumout.optim import ParamOptimizer

Loss = Callable[..., Tensor]
"""A loss as a plain function of the model, the guide and their arguments."""


class SVI:
    """Fits the parameters that a model and a guide use.

    Args:
        model: a program.
        guide: a program with the same arguments that draws the model's latent sites.
        optim: steps parameters by name, e.g. ``optim.Adam({"lr": 0.01})``.
        loss: an ``ELBO``, or a function ``loss(model, guide, *args, **kwargs)`` that gives a scalar with a
            gradient.

    Raises:
        TypeError: if ``optim`` is not a ``ParamOptimizer``.

    >>> import sumout
    >>> import sumout.distributions as dist
    >>> from sumout.infer import Trace_ELBO
    >>> def model(x):
    ...     rate = sumout.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
    ...     with sumout.plate("data", len(x)):
    ...         sumout.sample("x", dist.Poisson(rate), obs=x)
    >>> svi = SVI(model, lambda x: None, sumout.optim.Adam({"lr": 0.1}), Trace_ELBO())
    >>> losses = svi.run(200, torch.tensor([3.0, 5.0, 4.0]))
    >>> round(sumout.get_param_store()["rate"].item(), 2)
    4.0
    >>> sumout.clear_param_store()
    """

    def __init__(self, model: Program, guide: Program, optim: ParamOptimizer, loss: ELBO | Loss) -> None:
        if not isinstance(optim, ParamOptimizer):
            raise TypeError(
                f"optim is {optim!r}; it is one of sumout.optim, e.g. sumout.optim.Adam({{'lr': 0.01}}), which "
                "steps parameters by name as programs make them."
            )
        self.model = model
        self.guide = guide
        self.optim = optim
        self.loss = loss

    def step(self, *args: Any, **kwargs: Any) -> float:
        """Takes one step of the optimizer; gives the loss before it.

        Parameters that model or guide used are stepped if they got a gradient; gradients are cleared.
        """
        with TraceMessenger(param_only=True) as capture:
            loss = self._loss_and_grads(*args, **kwargs)
        params = {name: site.value.unconstrained() for name, site in capture.trace.nodes.items()}
        self.optim(params)
        for param in params.values():
            param.grad = None
        return loss

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss, without gradients; nothing is changed."""
        if isinstance(self.loss, ELBO):
            return self.loss.loss(self.model, self.guide, *args, **kwargs)
        with torch.no_grad():
            return float(self.loss(self.model, self.guide, *args, **kwargs))

    def run(self, num_steps: int, *args: Any, progress: bool = False, **kwargs: Any) -> list[float]:
        """Takes many steps.

        Args:
            num_steps: how many.
            args, kwargs: those of the model and the guide.
            progress: whether a bar with the present loss is shown.

        Returns:
            The loss before each step.
        """
        bar = Progress(*Progress.get_default_columns(), "loss {task.fields[loss]:.6g}") if progress else None
        losses: list[float] = []
        with bar if bar is not None else nullcontext():
            task = None if bar is None else bar.add_task("fitting", total=num_steps, loss=float("nan"))
            for _ in range(num_steps):
                losses.append(self.step(*args, **kwargs))
                if bar is not None and task is not None:
                    bar.update(task, advance=1, loss=losses[-1])
        return losses

    def _loss_and_grads(self, *args: Any, **kwargs: Any) -> float:
        if isinstance(self.loss, ELBO):
            return self.loss.loss_and_grads(self.model, self.guide, *args, **kwargs)
        loss = self.loss(self.model, self.guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())
