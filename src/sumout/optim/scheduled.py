"""Learning rates that change while parameters are fitted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from sumout.errors import nearest
from sumout.optim.param_optimizer import ParamOptimizer, option_names

Schedule = Callable[..., Any]
"""A class of ``torch.optim.lr_scheduler``, or a function that makes such a scheduler for a torch optimizer."""


class ScheduledOptimizer(ParamOptimizer):
    """A ``ParamOptimizer`` with a learning rate scheduler for each parameter.

    Calling it steps parameters; ``step()`` moves all learning rates on, e.g. after an epoch. Parameters that are met
    later begin with the first learning rate.

    Args:
        schedule: a class of ``torch.optim.lr_scheduler``, or a function of a torch optimizer that gives a scheduler.
        optimizer: what steps the parameters.
        options: those of the scheduler; or a function that gives them for a parameter's name.

    Raises:
        ValueError: if an option is not one that the scheduler has.

    >>> import torch
    >>> from sumout import optim
    >>> weight = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = optim.ExponentialLR(optim.SGD(lr=0.1), gamma=0.5)
    >>> for _ in range(2):
    ...     weight.grad = torch.ones(1)
    ...     optimizer({"weight": weight})
    ...     optimizer.step()
    >>> weight.detach(), optimizer.learning_rates()
    (tensor([0.8500]), {'weight': 0.025})
    """

    def __init__(
        self,
        schedule: Schedule,
        optimizer: ParamOptimizer,
        options: Mapping[str, Any] | Callable[[str], Mapping[str, Any]],
    ) -> None:
        if not isinstance(optimizer, ParamOptimizer):
            raise ValueError(
                f"A scheduler changes the learning rate of an optimizer of sumout.optim, not of {optimizer!r}: "
                "optim.ExponentialLR(optim.Adam(lr=0.1), gamma=0.9)."
            )
        super().__init__(optimizer.optimizer, optimizer.optim_args, optimizer.clip_args)
        self.schedule = schedule
        self.schedule_args = options
        self._check(options, option_names(schedule), "the scheduler")
        self._schedulers: dict[str, Any] = {}
        self._schedulers_waiting: dict[str, dict[str, Any]] = {}

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Moves all schedulers on; arguments are theirs: ``ReduceLROnPlateau`` takes the loss."""
        for scheduler in self._schedulers.values():
            scheduler.step(*args, **kwargs)

    def _made_for(self, name: str, param: Tensor) -> Optimizer:
        optimizer = super()._made_for(name, param)
        scheduler = self.schedule(optimizer, **self._options(self.schedule_args, name, "the scheduler"))
        self._schedulers[name] = scheduler
        if name in self._schedulers_waiting:
            scheduler.load_state_dict(self._schedulers_waiting.pop(name))
            # To make a scheduler sets the learning rate anew.
            self._restore(name, optimizer)
        return optimizer

    def get_state(self) -> dict[str, dict[str, Any]]:
        """As that of a ``ParamOptimizer``, with the scheduler's state under ``"scheduler"``.

        >>> from sumout import optim
        >>> optim.StepLR(optim.Adam(lr=0.1), step_size=10).get_state()
        {}
        """
        found = super().get_state()
        for name, state in found.items():
            if name in self._schedulers:
                state["scheduler"] = copy.deepcopy(self._schedulers[name].state_dict())
            elif name in self._schedulers_waiting:
                state["scheduler"] = copy.deepcopy(self._schedulers_waiting[name])
        return found

    def set_state(self, state: Mapping[str, dict[str, Any]]) -> None:
        """Takes up what ``get_state`` gave; each state waits until its parameter is stepped."""
        for name, each in state.items():
            self._schedulers.pop(name, None)
            if "scheduler" in each:
                self._schedulers_waiting[name] = copy.deepcopy(each["scheduler"])
        super().set_state(
            {
                name: {key: value for key, value in each.items() if key != "scheduler"}
                for name, each in state.items()
            }
        )


def scheduled(
    schedule: Schedule, optimizer: Any, clip_args: Any, options: Mapping[str, Any]
) -> ScheduledOptimizer:
    """A scheduled optimizer from either form of the call.

    Raises:
        ValueError: if something is missing from it.
    """
    if isinstance(optimizer, ParamOptimizer):
        if clip_args is not None:
            raise ValueError(
                "clip_args are the optimizer's: optim.ExponentialLR(optim.Adam({...}, {...}), ...)."
            )
        return ScheduledOptimizer(schedule, optimizer, options)
    if not isinstance(optimizer, Mapping) or options:
        raise ValueError(
            f"A scheduler is made from an optimizer, optim.ExponentialLR(optim.Adam(lr=0.1), gamma=0.9), or from one "
            f"dict, {{'optimizer': torch.optim.Adam, 'optim_args': {{'lr': 0.1}}, 'gamma': 0.9}}, not {optimizer!r}."
        )
    given = dict(optimizer)
    for key in ("optimizer", "optim_args"):
        if key not in given:
            raise ValueError(f"The scheduler's arguments lack {key!r}.{nearest(key, given)}")
    make, optim_args = given.pop("optimizer"), given.pop("optim_args")
    inner = (
        make(optim_args, clip_args) if _is_constructor(make) else ParamOptimizer(make, optim_args, clip_args)
    )
    return ScheduledOptimizer(schedule, inner, given)


def _is_constructor(make: Any) -> bool:
    """Whether it is one of this package's, such as ``optim.Adam``, and not one of torch's."""
    return bool(getattr(make, "makes_param_optimizer", False))
