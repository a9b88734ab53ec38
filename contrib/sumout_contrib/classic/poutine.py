"""The base of the classic handlers: a messenger that holds the program it is for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sumout.errors import ModelError
from sumout.poutine import Messenger

Program = Callable[..., Any]


class Poutine(Messenger):
    """A program run inside this handler; the handler alone, as a context manager.

    The base class changes nothing: the joint distribution of ``Poutine(fn)`` is that of ``fn``. A subclass writes
    the hooks of a messenger, ``_pyro_sample(self, msg)``, ``_pyro_post_sample(self, msg)`` and so on.

    Args:
        fn: the program; ``None`` for a handler that is only used with ``with``.

    Raises:
        ModelError: if ``fn`` cannot be called, also by calling a handler that has none.

    >>> from sumout import sample
    >>> from sumout.distributions import Delta
    >>> class Doubling(Poutine):
    ...     def _pyro_post_sample(self, msg):
    ...         msg["value"] = 2 * msg["value"]
    >>> def fn(x):
    ...     return sample("z", Delta(x))
    >>> import torch
    >>> Poutine(fn)(torch.tensor(3.0)), Doubling(fn)(torch.tensor(3.0))
    (tensor(3.), tensor(6.))
    >>> with Doubling(None):
    ...     fn(torch.tensor(4.0))
    tensor(8.)
    """

    def __init__(self, fn: Program | None) -> None:
        if fn is not None:
            if not callable(fn):
                raise ModelError(f"{type(self).__name__} takes a program first, and {fn!r} is not callable.")
            functools.update_wrapper(self, fn, updated=())
        self.fn = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program in this handler."""
        with self:
            return self._program(*args, **kwargs)

    @property
    def _program(self) -> Program:
        if self.fn is None:
            name = type(self).__name__
            raise ModelError(
                f"This {name} was made without a program, so it cannot be called. Enter it with 'with', or make it "
                f"as {name}(fn, ...)."
            )
        return self.fn
