"""The base of all handlers: a context manager whose hooks see every message sent inside it.

A subclass writes ``_pyro_<type>(self, msg)`` to act before a site of that type is settled and
``_pyro_post_<type>(self, msg)`` to act after, or overrides ``_process_message`` and ``_postprocess_message``
to see every type. The hooks of a class are looked up once, when the class is made, and again when one is
assigned to the class later; a hook assigned to an instance is not called.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import sys
import threading
import warnings
from abc import ABCMeta
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from sumout.effects.handled import Handled
from sumout.effects.message import Message
from sumout.effects.stack import ANY, KINDS, Hook, state

Self = TypeVar("Self", bound="Messenger")

_BEFORE, _AFTER = "_pyro_", "_pyro_post_"
_GENERAL = ("_process_message", "_postprocess_message")


class Hooks(dict[str, Hook | None]):
    """What a class does at each type of site; what it does at all types (``ANY``) where it has no hook."""

    def __missing__(self, kind: str) -> Hook | None:
        self[kind] = hook = self.get(ANY)
        return hook


class HandlerType(ABCMeta):
    """The class of all handler classes: it looks hooks up again when one is assigned or deleted.

    It derives from ``ABCMeta``, so that a handler may be an abstract class too.
    """

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name.startswith(_BEFORE) or name in _GENERAL:
            _refresh_hooks(cls)
        if name.startswith("_p"):
            _warn_if_misspelt(cls, name)

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        if name.startswith(_BEFORE) or name in _GENERAL:
            _refresh_hooks(cls)


def _refresh_hooks(cls: Any) -> None:
    cls._find_hooks()
    for subclass in cls.__subclasses__():
        _refresh_hooks(subclass)


class Messenger(metaclass=HandlerType):
    """A handler that changes nothing; the joint distribution of ``Messenger()(fn)`` is that of ``fn``.

    It works as a context manager and as a decorator:

    >>> with Messenger():
    ...     pass
    >>> Messenger()(len)([1, 2])
    2
    """

    _before: ClassVar[Hooks] = Hooks()
    _after: ClassVar[Hooks] = Hooks()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._find_hooks()
        for name in vars(cls):
            _warn_if_misspelt(cls, name)

    @classmethod
    def _find_hooks(cls) -> None:
        # A class that overrides the general method decides by itself which hooks it calls.
        any_before = cls._process_message is not Messenger._process_message
        any_after = cls._postprocess_message is not Messenger._postprocess_message
        cls._before = Hooks({ANY: cls._process_message} if any_before else {})
        cls._after = Hooks({ANY: cls._postprocess_message} if any_after else {})
        for name in dir(cls):
            if name.startswith(_AFTER) and not any_after:
                cls._after[name.removeprefix(_AFTER)] = _as_method(cls, name)
            elif name.startswith(_BEFORE) and not name.startswith(_AFTER) and not any_before:
                cls._before[name.removeprefix(_BEFORE)] = _as_method(cls, name)

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """``fn`` run inside this handler; name, signature and docstring are kept."""
        if not callable(fn):
            raise ValueError(f"{fn!r} is not callable; a handler's own arguments are given by keyword.")
        return Handled(self, fn)

    def __enter__(self: Self) -> Self:
        stack = state.stack
        for frame in stack:
            if frame is self:
                raise ValueError(
                    f"This {type(self).__name__} is already active; an instance cannot be entered twice at once. "
                    "Make a second instance."
                )
        self._begin()
        stack.append(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        stack = state.stack
        if exc_type is None and (not stack or stack[-1] is not self):
            raise ValueError(f"This {type(self).__name__} is not the innermost handler; handlers must nest.")
        # After an error, handlers entered later by hand may still lie above this one: they go with it.
        for depth in range(len(stack) - 1, -1, -1):
            if stack[depth] is self:
                del stack[depth:]
                break
        return None

    def __copy__(self: Self) -> Self:
        """A handler with the same settings; what it gathers in a run is its own, as that of a deep copy is."""
        make, arguments, state = (*self.__reduce_ex__(4), None)[:3]
        new: Self = make(*arguments)
        if hasattr(new, "__setstate__"):
            new.__setstate__(state)
        else:
            vars(new).update(state or {})
        of_a_run = {key: copy.copy(value) for key, value in vars(new).items() if _is_of_a_run(value)}
        vars(new).update(of_a_run)
        return new

    def _begin(self) -> None:
        """Gets ready for a run. Where this fails, the handler has not been entered."""

    def _reset(self) -> None:
        """Forgets what was gathered in the current run; a handler with state overrides it."""

    def hides(self, msg: Message) -> bool:
        """Whether handlers outside of this one do not see the site."""
        return False

    def _process_message(self, msg: Message) -> None:
        """Calls the hook for the message's type, before the site is settled."""
        hook = getattr(self, _BEFORE + msg.type, None)
        if hook is not None:
            hook(msg)

    def _postprocess_message(self, msg: Message) -> None:
        """Calls the hook for the message's type, after the site is settled."""
        hook = getattr(self, _AFTER + msg.type, None)
        if hook is not None:
            hook(msg)

    @classmethod
    def register(
        cls, fn: Callable[..., Any] | None = None, type: str | None = None, post: bool | None = None
    ) -> Callable[..., Any]:
        """Adds a hook to this class from outside; useful to wrap other libraries.

        Args:
            fn: a function of one message.
            type: the type of the messages it treats; by default the name of the function. One that is nearly a
                known type's name, and is none, gives a ``UserWarning``, as does a method's name.
            post: true for a hook that runs after the site is settled.

        Raises:
            ValueError: if no type is given and the function has no name.

        >>> class Loud(Messenger):
        ...     pass
        >>> @Loud.register(type="sample")
        ... def shout(msg):
        ...     msg.infer["loud"] = True
        >>> _ = Loud.unregister(type="sample")
        """
        if fn is None:
            return lambda function: cls.register(function, type=type, post=post)
        kind = _name_of(fn, "register") if type is None else type
        setattr(cls, (_AFTER if post else _BEFORE) + kind, staticmethod(fn))
        return fn

    @classmethod
    def unregister(
        cls, fn: Callable[..., Any] | None = None, type: str | None = None
    ) -> Callable[..., Any] | None:
        """Removes the hooks that ``register`` added for a type; by default that of the function's name."""
        kind = _name_of(fn, "unregister") if type is None else type
        for prefix in (_BEFORE, _AFTER):
            if prefix + kind in vars(cls):
                delattr(cls, prefix + kind)
        return fn


def _as_method(cls: type, name: str) -> Hook:
    """The hook as a function of (handler, message), also where it is a static method of the message alone."""
    found = inspect.getattr_static(cls, name)
    function: Callable[..., Any] = getattr(cls, name)
    if isinstance(found, (staticmethod, classmethod)):
        return lambda frame, msg: function(msg)
    return function


def _name_of(fn: Any, method: str) -> str:
    name = getattr(fn, "__name__", "")
    if not name.isidentifier():
        raise ValueError(f"{method} needs the type of the messages, e.g. {method}(fn, type='sample').")
    return str(name)


def _is_of_a_run(value: Any) -> bool:
    """Whether it is the state of a thread's run, which says by ``__reduce__`` what a copy begins with."""
    return isinstance(value, threading.local) and type(value).__reduce__ is not object.__reduce__


def _warn_if_misspelt(cls: type, attribute: str) -> None:
    if attribute.startswith(_BEFORE):
        kind = attribute.removeprefix(_AFTER).removeprefix(_BEFORE)
        known: Collection[str] = KINDS
        cutoff = 0.75
        what = "handles no known type of site"
    elif attribute.startswith("_p") and callable(getattr(cls, attribute, None)):
        kind, known, cutoff, what = attribute, _GENERAL, 0.85, "is not called for any site"
    else:
        return
    near = difflib.get_close_matches(kind, known, n=1, cutoff=cutoff)
    if kind not in known and near:
        warnings.warn(
            f"{cls.__name__}.{attribute} {what}. Did you mean {attribute.removesuffix(kind) + near[0]}?",
            stacklevel=level_outside(),
        )


def level_outside() -> int:
    """The ``stacklevel`` with which a warning is told of the line that called the library.

    Called by the function that warns. Frames of the library are passed over, and those of modules and of classes
    being made.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    return level


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in ("sumout", "torch", "abc", "contextlib")


@contextmanager
def block_messengers(predicate: Callable[[Messenger], bool]) -> Iterator[list[Messenger]]:
    """Takes the matching handlers out of the stack for a while, without leaving and entering them.

    Args:
        predicate: tells which of the active handlers are muted.

    Yields:
        The muted handlers.
    """
    stack = state.stack
    kept: list[Messenger] = []
    muted: list[Messenger] = []
    for frame in stack:
        assert isinstance(frame, Messenger)  # Nothing else is ever put there.
        (muted if predicate(frame) else kept).append(frame)
    before = stack[:]
    stack[:] = kept
    try:
        yield muted
    finally:
        stack[:] = before
