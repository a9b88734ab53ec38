"""One torch optimizer for each named parameter."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import IO, Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from sumout.errors import nearest

Options = Mapping[str, Any] | Callable[[str], Mapping[str, Any]]
"""Options of an optimizer, the same for all parameters or a function of a parameter's name.

A parameter of a torch module has the name there that it has in the module, after the module's: ``net.0.weight``.
"""


class ParamOptimizer:
    """Steps parameters by name, with one torch optimizer each, made when the parameter is first met.

    A parameter whose tensor was replaced (by a cleared or loaded store) starts anew under the same name.

    Args:
        optimizer: a class of ``torch.optim``, or a function of the same signature.
        optim_args: its options, e.g. ``{"lr": 0.01}``; or a function that gives them for a parameter's name. One of
            module ``net`` is called ``net.0.weight`` there, as in Pyro.
        clip_args: ``{"clip_norm": 10.0}`` shortens a parameter's gradient to this length, ``{"clip_value": 1.0}``
            clamps its elements; or a function of the parameter's name.

    Raises:
        ValueError: if an option is not one that the optimizer has.

    >>> weight = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = ParamOptimizer(torch.optim.SGD, {"lr": 0.1}, {"clip_value": 1.0})
    >>> (weight ** 2).sum().backward()
    >>> optimizer({"weight": weight})
    >>> weight.detach()
    tensor([0.9000, 1.9000])
    """

    def __init__(
        self,
        optimizer: Callable[..., torch.optim.Optimizer],
        optim_args: Options,
        clip_args: Options | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.optim_args = optim_args
        self.clip_args: Options = {} if clip_args is None else clip_args
        self._check(optim_args, option_names(optimizer), "optim_args")
        self._check(self.clip_args, ("clip_norm", "clip_value"), "clip_args")
        self._made: dict[str, tuple[Tensor, torch.optim.Optimizer]] = {}
        self._names: dict[Tensor, str] = {}  # of parameters given without names
        self._waiting: dict[str, dict[str, Any]] = {}  # states for optimizers to be made

    def __call__(self, params: Mapping[str, Tensor] | Iterable[Tensor]) -> None:
        """Steps every parameter that has a gradient; the others, and gradients, are left as they are.

        One that has several names is stepped once, by the first.

        Args:
            params: unconstrained leaf tensors by name. Without names, a tensor is called by the order in which it
                was first met, ``"0"``, ``"1"``, ...
        """
        if not isinstance(params, Mapping):
            params = {self._names.setdefault(param, str(len(self._names))): param for param in params}
        first: dict[Tensor, str] = {}  # One tensor under two names is one parameter.
        for name, param in params.items():
            if param.grad is not None and first.setdefault(param, name) == name:
                self._clip(name, param)
                self._optimizer_of(name, param).step()

    def _optimizer_of(self, name: str, param: Tensor) -> torch.optim.Optimizer:
        known, optimizer = self._made.get(name, (None, None))
        if optimizer is None or known is not param:
            optimizer = self._made_for(name, param)
            self._made[name] = param, optimizer
            self._waiting.pop(name, None)
        elif _moved(optimizer, param):
            optimizer.load_state_dict(optimizer.state_dict())  # which converts it to what the parameter is
        return optimizer

    def _made_for(self, name: str, param: Tensor) -> torch.optim.Optimizer:
        optimizer = self.optimizer([param], **self._options(self.optim_args, name, "optim_args"))
        self._restore(name, optimizer)
        return optimizer

    def _restore(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Takes up the state that waits for this parameter."""
        if name in self._waiting:
            optimizer.load_state_dict(copy.deepcopy(self._waiting[name]))

    def learning_rates(self) -> dict[str, float]:
        """The present learning rate of every parameter that was stepped."""
        return {name: float(optimizer.param_groups[0]["lr"]) for name, (_, optimizer) in self._made.items()}

    def _clip(self, name: str, param: Tensor) -> None:
        if not self.clip_args:
            return
        options = self._options(self.clip_args, name, "clip_args")
        if options.get("clip_norm") is not None:
            clip_grad_norm_(param, options["clip_norm"])
        if options.get("clip_value") is not None:
            clip_grad_value_(param, options["clip_value"])

    def _options(self, options: Options, name: str, which: str) -> Mapping[str, Any]:
        if not callable(options):
            return options
        found = options(name.replace("$$$", "."))
        if not isinstance(found, Mapping):
            raise ValueError(
                f"{which} gave {found!r} for parameter {name!r}; it gives a dict, e.g. {{'lr': 0.01}}."
            )
        return found

    def _check(self, options: Options, known: Collection[str] | None, which: str) -> None:
        if callable(options):
            _check_takes_name(options, which)
            return
        if not isinstance(options, Mapping):
            raise ValueError(f"{which} is {options!r}; it is a dict or a function of a parameter's name.")
        for option in options:
            if known is not None and option not in known:
                raise ValueError(
                    f"{which} has {option!r}, which is none of {', '.join(known)}.{nearest(option, known)}"
                )

    def get_state(self) -> dict[str, dict[str, Any]]:
        """The state of every parameter's optimizer by name, as ``torch.optim.Optimizer.state_dict`` gives it; a copy.

        >>> ParamOptimizer(torch.optim.Adam, {"lr": 0.01}).get_state()
        {}
        """
        made = {name: optimizer.state_dict() for name, (_, optimizer) in self._made.items()}
        return copy.deepcopy(self._waiting | made)

    def set_state(self, state: Mapping[str, dict[str, Any]]) -> None:
        """Takes up what ``get_state`` gave; each state waits until its parameter is stepped."""
        for name, each in state.items():
            self._made.pop(name, None)  # The tensor may be replaced too before the next step.
            self._waiting[name] = copy.deepcopy(each)

    def save(self, file: str | IO[bytes]) -> None:
        """Writes the state to a file, given by path or open for writing."""
        torch.save(self.get_state(), file)

    def load(self, file: str | IO[bytes], map_location: Any = None) -> None:
        """Reads what ``save`` wrote."""
        self.set_state(torch.load(file, map_location, weights_only=True))


def _moved(optimizer: torch.optim.Optimizer, param: Tensor) -> bool:
    """Whether the parameter has another type or device than what is remembered of its gradients."""
    like = [
        each
        for each in optimizer.state.get(param, {}).values()
        if isinstance(each, Tensor) and each.shape == param.shape and each.is_floating_point()
    ]
    # A count of steps may have the shape of a number, and is of a type of its own.
    return bool(like) and all(each.dtype != param.dtype or each.device != param.device for each in like)


def _check_takes_name(options: Callable[..., Any], which: str) -> None:
    try:
        inspect.signature(options).bind("name")
    except TypeError as error:
        raise ValueError(
            f"{which} is a function that cannot be called with one name ({error}). It takes a parameter's name, "
            "'net.0.weight' for one of module 'net', and gives a dict."
        ) from None
    except ValueError:  # of a function without a signature
        return


def option_names(optimizer: Callable[..., Any]) -> list[str] | None:
    """The options that a constructor takes; ``None`` where it takes any."""
    parameters = list(inspect.signature(optimizer).parameters.values())[1:]
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return [each.name for each in parameters]
