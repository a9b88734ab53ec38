"""A function inside a handler, as an object: it can be pickled and copied, which a closure cannot."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Self = TypeVar("Self", bound="Handled[..., Any]")

_DERIVED = {"fn", "msngr", "__wrapped__", *functools.WRAPPER_ASSIGNMENTS}
"""What a new instance has by itself, made from its two arguments."""


class Handled(Generic[P, T]):
    """``fn`` run inside ``msngr``, with the name, signature and docstring of ``fn``; what ``handler(fn)`` gives.

    In a class it is a method, like the function that it stands for. It is pickled by its parts; where it has
    taken the name of its function, as a decorated function does, by that name.

    >>> from contextlib import nullcontext
    >>> length = Handled(nullcontext(), len)
    >>> length([1, 2]), length.__name__
    (2, 'len')
    """

    def __init__(self, msngr: AbstractContextManager[Any], fn: Callable[P, T]) -> None:
        self.fn = fn
        self.msngr = msngr
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.msngr:
            return self.fn(*args, **kwargs)

    def __get__(self: Self, instance: object, owner: type | None = None) -> Self:
        if instance is None or not hasattr(self.fn, "__get__"):
            return self
        return type(self)(self.msngr, self.fn.__get__(instance, owner))

    def __reduce__(self) -> str | tuple[Any, ...]:
        name = getattr(self, "__qualname__", "")
        if _found(sys.modules.get(getattr(self, "__module__", "")), name) is self:
            return name
        instance = getattr(self.fn, "__self__", None)
        short = name.rpartition(".")[2]
        if isinstance(inspect.getattr_static(type(instance), short, None), Handled):
            return getattr, (instance, short)  # a method, which its class has in this form
        given = {key: value for key, value in vars(self).items() if key not in _DERIVED}
        return type(self), (self.msngr, self.fn), given or None

    def __copy__(self: Self) -> Self:
        """The function in a handler of its own: what this one gathers in a run is not that one's."""
        if isinstance(self.__reduce__(), str):
            return self  # which has a name, as functions do, that are their own copies
        new = type(self)(copy.copy(self.msngr), self.fn)
        vars(new).update((key, value) for key, value in vars(self).items() if key not in _DERIVED)
        return new

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.msngr).__name__}, {self.fn!r})"


def _found(place: Any, path: str) -> Any:
    for name in path.split("."):
        place = getattr(place, name, None)
    return place
