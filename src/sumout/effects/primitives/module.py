"""The statement ``module``."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from inspect import isclass
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from sumout.effects.params import MODULE_DIVIDER
from sumout.effects.primitives.param import param
from sumout.effects.random_state import after_trial, in_a_trial
from sumout.effects.stack import state
from sumout.errors import ModelError

M = TypeVar("M", bound=nn.Module)


def module(name: str, nn_module: M, update_module_params: bool = False) -> M:
    """Makes parameters of a torch module's, named ``<name>$$$<parameter>``.

    Where a handler gives some of them other values (``lift`` draws them from priors, ``substitute`` fixes them), a copy
    of the module with these values is returned, which shares all else with the module. Buffers are the module's
    own: trial runs, such as those that find the depth of plates, put them back as they were.

    Args:
        name: the module in the store.
        nn_module: the module.
        update_module_params: whether the module takes the parameters of the store in the place of its own, where
            the two differ, as they do after the store was loaded from a file.

    Returns:
        The module, to be used in the rest of the program.

    Raises:
        ModelError: if ``nn_module`` is no module or has parameters without a shape (``LazyLinear``), if ``name``
            contains ``$$$``, or if the store has a parameter of another shape that the module is to take.

    >>> from sumout.effects.primitives.param import get_param_store
    >>> with get_param_store().scope() as scope:
    ...     _ = module("net", nn.Linear(2, 1))
    >>> sorted(scope["params"])
    ['net$$$bias', 'net$$$weight']
    """
    if isclass(nn_module) or not hasattr(nn_module, "named_parameters"):
        raise ModelError(
            f"module({name!r}, ...) takes an instance of torch.nn.Module and was given {nn_module!r}."
        )
    if MODULE_DIVIDER in name:
        raise ModelError(
            f"The name of module {name!r} contains {MODULE_DIVIDER!r}, which divides names in the store."
        )
    if in_a_trial():
        after_trial(_buffers_put_back(nn_module))
    if update_module_params:
        _take_from_store(name, nn_module)
    kept: dict[Tensor, tuple[str, Tensor]] = {}
    for key, own in nn_module.named_parameters():
        if isinstance(own, UninitializedParameter):
            raise ModelError(
                f"Parameter {key!r} of module {name!r} has no shape yet. Call the module once on data, such as "
                f"{name}(x), before the first run."
            )
        if own.requires_grad:
            full_name = f"{name}{MODULE_DIVIDER}{key}"
            kept[own] = full_name, param(full_name, own)
        elif nn_module.training:
            warnings.warn(
                f"{key} was not registered in the param store because requires_grad=False. "
                "You can silence this warning by calling my_module.train(False)",
                stacklevel=2,
            )
    leaves = dict(state.params.named_parameters())
    other = False
    given: dict[Tensor, Tensor] = {}
    for parameter, (full_name, value) in kept.items():
        unconstrained = getattr(value, "unconstrained", None)
        if unconstrained is None or unconstrained() is not leaves.get(full_name):
            given[parameter] = value
        elif value is not parameter:
            other = True
    if other:
        warnings.warn(
            f"Module {name!r} has other parameters than those that the store has by its name, which are stepped and "
            "saved: a store that was loaded, or another module of the name? To use the store's, "
            f"module({name!r}, ..., update_module_params=True); to use the module's, clear the store.",
            stacklevel=2,
        )
    return _with_values(nn_module, given) if given else nn_module


def _take_from_store(name: str, module: nn.Module) -> None:
    """Gives a module the parameters that the store has for it, in all places where each of its own stands."""
    others: dict[Tensor, nn.Parameter] = {}
    for key, own in module.named_parameters():
        stored = state.params.parameter(f"{name}{MODULE_DIVIDER}{key}")
        if stored is not None and stored is not own and own.requires_grad:
            if stored.shape != own.shape:
                raise ModelError(
                    f"Parameter {key!r} of module {name!r} has shape {tuple(own.shape)}, and {tuple(stored.shape)} in "
                    "the store: that was another module. Make it as it was, or clear the store."
                )
            others[own] = stored
    for each in module.modules() if others else ():
        for key, old in each._parameters.items():
            if old in others:
                each._parameters[key] = others[old]
        _refresh(each)


def _buffers_put_back(module: nn.Module) -> Callable[[], None]:
    """What undoes the changes of buffers, such as the means that a batch normalisation keeps."""
    kept = [
        (each, key, buffer, None if buffer is None else buffer.clone())
        for each in module.modules()
        for key, buffer in each._buffers.items()
    ]

    def put_back() -> None:
        for each, key, buffer, value in kept:
            each._buffers[key] = buffer
            if buffer is not None and value is not None:
                buffer.data.copy_(value)  # Not seen by autograd, which may need the buffer of a run proper.

    return put_back


def _with_values(original: M, values: Mapping[Tensor, Tensor]) -> M:
    """A copy with other tensors in the place of some parameters, wherever a parameter stands."""
    copies: dict[nn.Module, nn.Module] = {}

    def copied(each: nn.Module) -> nn.Module:
        if each not in copies:
            new = copies[each] = copy.copy(each)
            own = each._parameters.items()
            parameters = {key: None if old is None else values.get(old, old) for key, old in own}
            new.__dict__["_parameters"] = parameters
            new.__dict__["_modules"] = {
                key: None if inner is None else copied(inner) for key, inner in each._modules.items()
            }
            _refresh(new)
        return copies[each]

    found = copied(original)
    assert isinstance(found, type(original))
    return found


def _refresh(each: nn.Module) -> None:
    """Recurrent modules keep their parameters in a list besides."""
    names = getattr(each, "_flat_weights_names", None)
    if names is not None:
        each.__dict__["_flat_weights"] = [each._parameters.get(name) for name in names]
