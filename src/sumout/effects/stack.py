"""The state of a running program, and the path of a message through its handlers.

All state is one thread-local object, so threads never see each other's handlers. It is changed only by
context managers that put it back in ``finally``. (It is no ``ContextVar``: Dynamo cannot trace one.)
"""

from __future__ import annotations

import copyreg
import functools
import threading
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from sumout.distributions.checks import make_quickly
from sumout.effects.dims import DimAllocator
from sumout.effects.frame import CondIndepStackFrame
from sumout.effects.message import Message
from sumout.effects.params import ParamStore
from sumout.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


P = ParamSpec("P")
T = TypeVar("T")

ANY = "*"
"""The type under which a handler keeps a hook for messages of every type."""

_process_wide_params = ParamStore()


Hook = Callable[[Any, Message], Any]


class Active(Protocol):
    """What the stack asks of a handler: what it does before and after a site of a type is settled."""

    @property
    def _before(self) -> Mapping[str, Hook | None]: ...

    @property
    def _after(self) -> Mapping[str, Hook | None]: ...

    def _reset(self) -> None: ...

    def hides(self, msg: Message) -> bool: ...


class State(threading.local):
    """Handlers, plate dimensions and parameters of this thread.

    The stack lists handlers from the outermost to the innermost. Every thread starts with the same parameter
    store, as parameters of a model are shared by the threads that run it; ``ParamStore.scope`` swaps it.
    """

    def __init__(self) -> None:
        self.stack: list[Active] = []
        self.dims = DimAllocator()
        self.params = _process_wide_params


state = State()

make_quickly(lambda: state.stack)  # A program that no handler runs is Pyro's affair.


class NonlocalExit(Exception):
    """Leaves a program from inside a site; carries the site, so that the run can be taken up from there."""

    def __init__(self, site: Message, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.site = site

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]

    def reset_stack(self) -> None:
        """Lets every handler below the one that caught the exit forget what it gathered in this run."""
        for frame in reversed(state.stack):
            frame._reset()
            if frame.hides(self.site):
                break


def am_i_wrapped() -> bool:
    """Whether any handler is active in this thread.

    >>> am_i_wrapped()
    False
    """
    return bool(state.stack)


def default_process_message(msg: Message) -> None:
    """What happens at a site that no handler settled: its function is called."""
    try:
        if msg.done or msg.is_observed or msg.value is not None:
            msg.done = True
            return
    except AttributeError:
        _do_to_dict(default_process_message, msg)
        return
    if "_undrawable" in msg.infer:
        raise _undrawable(msg)
    msg.value = msg.fn(*msg.args, **msg.kwargs)
    msg.done = True


def _undrawable(msg: Message) -> ModelError:
    chain = msg.infer["_undrawable"].chain
    return ModelError(
        f"Site {msg.name!r} would be drawn for many steps of chain {chain!r} at once, but each step depends on the "
        "one before. Enumerate the site (infer={'enumerate': 'parallel'}), give it a value, or loop step by step: "
        "markov(range(T)) without dim."
    )


def apply_stack(initial_msg: Message) -> None:
    """Sends a message through the handlers.

    From the innermost handler outwards each may change the message, until one sets ``stop``; then the default
    action settles the value; then the same handlers, from the outermost inwards, see the result. Last,
    ``continuation`` is called if there is one.

    Args:
        initial_msg: the site, which is changed in place; a plain dictionary will do too.
    """
    stack, msg = state.stack, initial_msg
    try:
        kind = msg.type
    except AttributeError:
        _do_to_dict(apply_stack, msg)
        return
    seen = 0
    for frame in reversed(stack):
        seen += 1
        hook = frame._before[kind]
        if hook is not None:
            hook(frame, msg)
            kind = msg.type  # which a handler may change, as lift does
            if msg.stop:
                break
    default_process_message(msg)
    for frame in stack[len(stack) - seen :]:
        hook = frame._after[kind]
        if hook is not None:
            hook(frame, msg)
    if msg.continuation is not None:
        msg.continuation(msg)


def _do_to_dict(action: Callable[[Message], None], contents: MutableMapping[str, Any]) -> None:
    """What is done to a site, done to one that is a plain dictionary, as programs for Pyro make them."""
    msg = Message.of(contents)
    try:
        action(msg)
    finally:
        contents.update(msg)


@overload
def effectful(fn: None = None, type: str | None = None) -> Callable[[Callable[P, T]], Callable[..., T]]: ...
@overload
def effectful(fn: Callable[P, T], type: str | None = None) -> Callable[..., T]: ...
def effectful(fn: Callable[..., Any] | None = None, type: str | None = None) -> Callable[..., Any]:
    """Makes a primitive of a function: calls of it are messages of the given type, which handlers may change.

    Args:
        fn: the function that gives the value where no handler does.
        type: the label of the operation; handlers treat it in ``_pyro_<type>``.

    Raises:
        ValueError: if no type is given.

    >>> @effectful(type="double")
    ... def double(x):
    ...     return 2 * x
    >>> double(4)
    8
    """
    if fn is None:
        return functools.partial(effectful, type=type)
    if getattr(fn, "_is_effectful", False):
        return fn
    if type is None:
        raise ValueError(f"{fn!r} needs a type label to become a primitive, e.g. effectful(type='my_op').")
    KINDS.add(type)

    @functools.wraps(fn)
    def primitive(
        *args: Any,
        name: str | None = None,
        infer: dict[str, Any] | None = None,
        obs: Any = None,
        **kwargs: Any,
    ) -> Any:
        if not state.stack:
            return fn(*args, **kwargs) if obs is None else obs
        wishes = {} if infer is None else dict(infer)
        msg = Message.sent(type, name, fn, args, kwargs, obs, obs is not None, wishes)
        apply_stack(msg)
        return msg.value

    primitive._is_effectful = True  # type: ignore[attr-defined]
    return primitive


KINDS: set[str] = {"sample", "param", "subsample"}
"""The types of all primitives made so far; a handler's hooks are named after them."""


@effectful(type="get_mask")
def get_mask() -> bool | Tensor | None:
    """The mask in force here: the enclosing ``mask`` handlers together, ``None`` where there are none.

    A model asks for it to leave out an expensive term that would be masked anyway.

    >>> get_mask() is None
    True
    """
    return None


@effectful(type="get_plates")
def get_plates() -> tuple[CondIndepStackFrame, ...]:
    """The plates around this point, outermost first.

    >>> get_plates()
    ()
    """
    return ()
