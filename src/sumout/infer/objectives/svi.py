"""Stochastic variational inference: one gradient step after another on a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sumout.effects.handlers import TraceMessenger
from sumout.errors import ModelError
from sumout.infer.objectives.elbo import ELBO
from sumout.infer.objectives.losses import LossHistory
from sumout.infer.objectives.not_numbers import refuse_nan_gradients, refuse_nan_loss
from sumout.infer.objectives.pair import Program
from sumout.optim import ParamOptimizer
from sumout.settings import settings

Loss = Callable[..., Tensor]
"""A loss as a plain function of the model, the guide and their arguments."""


class SVI:
    """Fits the parameters that a model and a guide use.

    Args:
        model: a program.
        guide: a program with the same arguments that draws the model's latent sites.
        optim: steps parameters by name, e.g. ``optim.Adam(lr=0.01)``.
        loss: an ``ELBO``, or a function ``loss(model, guide, *args, **kwargs)`` that gives a scalar with a
            gradient.

    Attributes:
        history: the loss before each step that ``run`` took, also in runs that were interrupted.

    Raises:
        TypeError: if ``optim`` is not a ``ParamOptimizer``.

    >>> import sumout
    >>> import sumout.distributions as dist
    >>> from sumout.infer import Trace_ELBO
    >>> def model(x):
    ...     rate = sumout.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
    ...     with sumout.plate("data", len(x)):
    ...         sumout.sample("x", dist.Poisson(rate), obs=x)
    >>> svi = SVI(model, lambda x: None, sumout.optim.Adam(lr=0.1), Trace_ELBO())
    >>> svi.run(200, torch.tensor([3.0, 5.0, 4.0]))
    LossHistory(200 steps: 12.7573 -> 5.12177)
    >>> round(sumout.get_param_store()["rate"].item(), 2)
    4.0
    >>> sumout.clear_param_store()
    """

    def __init__(self, model: Program, guide: Program, optim: ParamOptimizer, loss: ELBO | Loss) -> None:
        if not isinstance(optim, ParamOptimizer):
            raise TypeError(
                f"optim is {optim!r}; it is one of sumout.optim, e.g. sumout.optim.Adam(lr=0.01), which "
                "steps parameters by name as programs make them."
            )
        for name, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise TypeError(
                    f"{name} is {program!r}; it is a program, with the same arguments as the other. A guide that draws "
                    "nothing is `lambda *args: None`."
                )
        if isinstance(loss, type) or not (isinstance(loss, ELBO) or callable(loss)):
            raise TypeError(
                f"loss is {loss!r}; it is an objective, e.g. infer.TraceEnum_ELBO(), or a function of model, guide and "
                "their arguments that gives a scalar tensor."
            )
        self.model = model
        self.guide = guide
        self.optim = optim
        self.loss = loss
        self.history = LossHistory()

    def step(self, *args: Any, **kwargs: Any) -> float:
        """Takes one step of the optimizer; gives the loss before it.

        Parameters that model or guide used are stepped if they got a gradient. Gradients are cleared, also when an
        exception ends the step, which then changes no parameter.

        Raises:
            ModelError: under validation, if the loss or a gradient is NaN, with the sites or the parameter.
        """
        capture = TraceMessenger(param_only=True)
        params: dict[str, Tensor] = {}
        try:
            try:
                with capture:
                    loss = self._loss_and_grads(*args, **kwargs)
            finally:
                sites = capture.trace.nodes.items()
                params = {name: site.value.unconstrained() for name, site in sites if site.type == "param"}
            if settings.validation:
                refuse_nan_loss(loss, params, (self.model, self.guide), args, kwargs)
                refuse_nan_gradients(params)
            self.optim(params)
        finally:
            for param in params.values():
                param.grad = None
        return loss

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss, without gradients; nothing is changed."""
        if isinstance(self.loss, ELBO):
            return self.loss.loss(self.model, self.guide, *args, **kwargs)
        with torch.no_grad():
            return float(self.loss(self.model, self.guide, *args, **kwargs))

    def run(self, num_steps: int, *args: Any, progress: bool = True, **kwargs: Any) -> LossHistory:
        """Takes many steps.

        It may be interrupted and called again, to go on: parameters and optimizer are as the last step left them, and
        ``history`` has the losses so far.

        Args:
            num_steps: how many.
            args, kwargs: those of the model and the guide.
            progress: whether a bar with the present loss is shown, if there is a terminal or a notebook to show it on.

        Returns:
            The loss before each step, with ``tensor`` and ``plot()``.

        Raises:
            ModelError: if ``num_steps`` is no number of steps.
        """
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 0:
            raise ModelError(
                f"num_steps is {num_steps!r}; it is a whole number, before the arguments of the programs."
            )
        losses = LossHistory()
        with _bar(num_steps, progress) as advance:
            for _ in range(num_steps):
                loss = self.step(*args, **kwargs)
                losses.append(loss)
                self.history.append(loss)
                advance(loss)
        return losses

    def _loss_and_grads(self, *args: Any, **kwargs: Any) -> float:
        if isinstance(self.loss, ELBO):
            return self.loss.loss_and_grads(self.model, self.guide, *args, **kwargs)
        loss = self.loss(self.model, self.guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())


@contextmanager
def _bar(num_steps: int, wanted: bool) -> Iterator[Callable[[float], None]]:
    """A progress bar; what is called with the loss after each step."""
    if not wanted:
        yield lambda loss: None
        return
    from rich.console import Console  # Slow to import, and not needed without a bar.
    from rich.progress import Progress

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield lambda loss: None
        return
    loss_column = "loss {task.fields[loss]:.6g}"
    with Progress(*Progress.get_default_columns(), loss_column, console=console) as bar:
        task = bar.add_task("fitting", total=num_steps, loss=float("nan"))
        yield lambda loss: bar.update(task, advance=1, loss=loss)
