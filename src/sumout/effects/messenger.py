"""The base of all handlers: a context manager whose hooks see every message sent inside it.

A subclass writes ``_pyro_<type>(self, msg)`` to act before a site of that type is settled and
``_pyro_post_<type>(self, msg)`` to act after, or overrides ``_process_message`` and ``_postprocess_message``
to see every type. The hooks of a class are looked up once, when the class is made, and again when one is
assigned to the class later; a hook assigned to an instance is not called.
"""

from __future__ import annotations

import difflib
import inspect
import sys
import warnings
from abc import ABCMeta
from collections.abc import Callable, Iterator
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
        if any(frame is self for frame in state.stack):
            raise ValueError(
                f"This {type(self).__name__} is already active; an instance cannot be entered twice at once. "
                "Make a second instance."
            )
        state.stack.append(self)
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
            fn: a function of one message; its name is not used.
            type: the type of the messages it treats. One that is nearly a known type's name, and is none,
                gives a ``UserWarning``, as does a method's name.
            post: true for a hook that runs after the site is settled.

        Raises:
            ValueError: if no type is given.

        >>> class Loud(Messenger):
        ...     pass
        >>> @Loud.register(type="sample")
        ... def shout(msg):
        ...     msg.infer["loud"] = True
        >>> _ = Loud.unregister(type="sample")
        """
        if fn is None:
            return lambda function: cls.register(function, type=type, post=post)
        if type is None:
            raise ValueError("register needs the type of the messages, e.g. register(fn, type='sample').")
        setattr(cls, (_AFTER if post else _BEFORE) + type, staticmethod(fn))
        return fn

    @classmethod
    def unregister(
        cls, fn: Callable[..., Any] | None = None, type: str | None = None
    ) -> Callable[..., Any] | None:
        """Removes the hooks that ``register`` added for a type."""
        if type is None:
            raise ValueError("unregister needs the type of the messages, e.g. unregister(fn, type='sample').")
        for prefix in (_BEFORE, _AFTER):
            if prefix + type in vars(cls):
                delattr(cls, prefix + type)
        return fn


def _as_method(cls: type, name: str) -> Hook:
    """The hook as a function of (handler, message), also where it is a static method of the message alone."""
    found = inspect.getattr_static(cls, name)
    function: Callable[..., Any] = getattr(cls, name)
    if isinstance(found, (staticmethod, classmethod)):
        return lambda frame, msg: function(msg)
    return function


def _warn_if_misspelt(cls: type, attribute: str) -> None:
    if not attribute.startswith(_BEFORE):
        return
    kind = attribute.removeprefix(_AFTER).removeprefix(_BEFORE)
    near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.75)
    if kind not in KINDS and near:
        warnings.warn(
            f"{cls.__name__}.{attribute} handles no known type of site. "
            f"Did you mean {attribute.removesuffix(kind) + near[0]}?",
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
