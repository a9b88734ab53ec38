"""The statement ``module``."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from inspect import isclass
from typing import TypeVar

from torch import Tensor, nn

from sumout.effects.params import MODULE_DIVIDER
from sumout.effects.primitives.param import param
from sumout.effects.stack import state
from sumout.errors import ModelError

M = TypeVar("M", bound=nn.Module)


def module(name: str, nn_module: M, update_module_params: bool = False) -> M:
    """Makes parameters of a torch module's, named ``<name>$$$<parameter>``.

    Where a handler gives some of them other values (``lift`` draws them from priors, ``substitute`` fixes them), a copy
    of the module with these values is returned, which shares all else with the module.

    Args:
        name: the module in the store.
        nn_module: the module.
        update_module_params: whether the module takes the tensors of the store where the two differ, as they
            do after the store was loaded from a file.

    Returns:
        The module, to be used in the rest of the program.

    Raises:
        ModelError: if ``nn_module`` is no module, or ``name`` contains ``$$$``.

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
    kept: dict[str, tuple[Tensor, Tensor]] = {}
    for key, own in nn_module.named_parameters():
        if own.requires_grad:
            kept[key] = own, param(f"{name}{MODULE_DIVIDER}{key}", own)
        elif nn_module.training:
            warnings.warn(
                f"{key} was not registered in the param store because requires_grad=False. "
                "You can silence this warning by calling my_module.train(False)",
                stacklevel=2,
            )
    leaves = dict(state.params.named_parameters())
    stored: dict[str, Tensor] = {}
    given: dict[Tensor, Tensor] = {}
    for key, (original, value) in kept.items():
        unconstrained = getattr(value, "unconstrained", None)
        if unconstrained is None or unconstrained() is not leaves.get(f"{name}{MODULE_DIVIDER}{key}"):
            given[original] = value
        elif value is not original:
            stored[key] = value
    if stored and not update_module_params:
        warnings.warn(
            f"Module {name!r} has other parameters than those that the store has by its name, which are stepped and "
            "saved: a store that was loaded, or another module of the name? To use the store's, "
            f"module({name!r}, ..., update_module_params=True); to use the module's, clear the store.",
            stacklevel=2,
        )
    elif update_module_params:
        for key, from_store in stored.items():
            path, _, leaf = key.rpartition(".")
            found = nn_module.get_submodule(path)
            # Any tensor may take the place of a parameter.
            found._parameters[leaf] = from_store  # type: ignore[assignment]
            _refresh(found)
    return _with_values(nn_module, given) if given else nn_module


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
