"""The statement ``module``."""

from __future__ import annotations

import warnings
from inspect import isclass
from typing import TypeVar

from torch import Tensor, nn

from sumout.effects.params import MODULE_DIVIDER
from sumout.effects.primitives.param import param
from sumout.errors import ModelError

M = TypeVar("M", bound=nn.Module)


def module(name: str, nn_module: M, update_module_params: bool = False) -> M:
    """Makes parameters of a torch module's, named ``<name>$$$<parameter>``.

    Args:
        name: the module in the store.
        nn_module: the module.
        update_module_params: whether the module takes the tensors of the store where the two differ, as they
            do after the store was loaded from a file.

    Returns:
        The module.

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
    others: dict[str, Tensor] = {}
    for key, own in nn_module.named_parameters():
        if own.requires_grad:
            kept = param(f"{name}{MODULE_DIVIDER}{key}", own)
            if kept is not own:
                others[key] = kept
        elif nn_module.training:
            warnings.warn(
                f"{key} was not registered in the param store because requires_grad=False. "
                "You can silence this warning by calling my_module.train(False)",
                stacklevel=2,
            )
    if update_module_params:
        for key, kept in others.items():
            path, _, leaf = key.rpartition(".")
            # Any tensor may take the place of a parameter: handlers put random values there.
            nn_module.get_submodule(path)._parameters[leaf] = kept  # type: ignore[assignment]
    return nn_module
