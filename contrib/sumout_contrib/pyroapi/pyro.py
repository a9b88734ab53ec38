"""Module ``pyro`` of the backend: the statements of programs, the parameter store, the switches."""

from __future__ import annotations

from typing import Any

import sumout
from sumout import __version__
from sumout_contrib.pyroapi import distributions, infer, optim
from sumout_contrib.pyroapi import handlers as poutine
from sumout_contrib.pyroapi.lookup import handed_on, names

__all__ = ["__version__", "distributions", "infer", "optim", "poutine"]

_INSTEAD = {
    "iarange": "Use plate, with the same arguments.",
    "irange": "Iterate over a plate: for i in plate('data', 10).",
    "random_module": "Use handlers.lift on a program that calls module; lift gives its parameters priors.",
    "nn": "Use a torch.nn.Module and the statement module. Models of PyroModules run through "
    "sumout_contrib.pyro_bridge.",
    "render_model": "Print handlers.trace(model).get_trace(...).format_shapes() to see its sites.",
}


def __getattr__(name: str) -> Any:
    return handed_on("pyro", name, sumout, _INSTEAD)


def __dir__() -> list[str]:
    return sorted({*__all__, *names(sumout)})
