"""The function form of the bridge."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from sumout.errors import ModelError
from sumout.poutine.runtime import am_i_wrapped
from sumout_contrib.pyro_bridge.bridge import bridged, is_bridged

P = ParamSpec("P")
T = TypeVar("T")

_one_thread = threading.RLock()
"""Held while a wrapped program runs: all threads of a process share Pyro's one stack of handlers."""


def as_sumout(program: Callable[P, T]) -> Callable[P, T]:
    """A program written for Pyro as a program for sumout's handlers, queries and objectives.

    Its statements are seen by sumout's handlers around it, after Pyro's handlers inside of it. Parameters stay in
    Pyro's parameter store; ``infer.SVI`` trains them there. Outside of all of sumout's handlers it runs as it
    does in Pyro. A wrapped program may call another, be called by a program of sumout's, and mix the statements of
    both libraries. As Pyro's state is shared by all threads, wrapped programs of several threads run one after
    another.

    Args:
        program: a function with Pyro's statements, a guide of ``pyro.infer.autoguide``, or a ``PyroModule``.

    Returns:
        The program, of the same arguments and result. Of a ``torch.nn.Module`` it is a module too, with the
        same parameters.

    Raises:
        ModelError: if ``program`` cannot be called. When it runs: if a Pyro handler that stands outside of sumout's
            changes a site, which sumout's have seen by then.
        PlateError: if a plate of sumout's and one of Pyro's, both opened in the program, use one dimension.
        EnumerationError: if Pyro's own ``enum`` handler stands inside.

    >>> import pyro, pyro.distributions as dist
    >>> from sumout import infer
    >>> def model(x):
    ...     z = pyro.sample("z", dist.Bernoulli(0.5))
    ...     pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    >>> infer.marginals(as_sumout(model))(torch.tensor(1.0))["z"].probs
    tensor(0.8000)
    """
    if not callable(program):
        raise ModelError(
            f"as_sumout takes a Pyro program and was given {type(program).__name__} {program!r}. "
            "Give it the function, not what it returns: as_sumout(model)(data)."
        )
    if isinstance(program, torch.nn.Module):
        return _ModuleProgram(program)

    @functools.wraps(program, updated=())
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return _run(program, args, kwargs)

    return run


class _ModuleProgram(torch.nn.Module):
    """A module whose ``forward`` is a Pyro program, such as a ``PyroModule``."""

    def __init__(self, program: torch.nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program."""
        return _run(self.program, args, kwargs)


def _run(program: Callable[..., T], args: Any, kwargs: Any) -> T:
    with _one_thread:
        if is_bridged() or not am_i_wrapped():
            return program(*args, **kwargs)
        with bridged():
            return program(*args, **kwargs)
