"""The function form of a handler: ``wrap(ConditionMessenger)`` is ``condition``.

A handler is used in four ways, and the function form covers them all::

    condition(model, data=data)                  a new function
    @condition(data=data)                        a decorator with arguments
    @trace                                       a decorator without
    with condition(data=data): ...               a context manager
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from sumout.effects.messenger import Messenger

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
M = TypeVar("M", bound=Messenger)
M_co = TypeVar("M_co", bound=Messenger, covariant=True)


class Handler(Protocol[P, M_co]):
    """What ``wrap`` gives: with a function, that function handled; without, the messenger."""

    __name__: str

    @overload
    def __call__(self, fn: None = None, *args: P.args, **kwargs: P.kwargs) -> M_co: ...
    @overload
    def __call__(self, fn: Callable[Q, T], *args: P.args, **kwargs: P.kwargs) -> Callable[Q, T]: ...


def form_name(cls: Callable[..., Messenger]) -> str:
    """The name of the function form: ``InferConfigMessenger`` gives ``infer_config``.

    >>> form_name(Messenger)
    'messenger'
    """
    name = cls.__name__.removesuffix("Messenger") or cls.__name__
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def wrap(cls: Callable[P, M]) -> Handler[P, M]:
    """The function form of a messenger class, named after it (``InferConfigMessenger``: ``infer_config``).

    Args:
        cls: a subclass of ``Messenger``; its arguments follow ``fn`` in the function form.

    The function form raises ``ValueError`` where its first argument is neither a function nor absent.

    >>> class HalveMessenger(Messenger):
    ...     def _pyro_sample(self, msg):
    ...         msg.scale = 0.5 * msg.scale
    >>> halve = wrap(HalveMessenger)
    >>> halve(len)([1, 2]), halve.__name__, str(inspect.signature(halve))
    (2, 'halve', '(fn=None)')
    """
    name = form_name(cls)
    parameters = list(inspect.signature(cls).parameters.values())
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD

    def handler(fn: Any = None, *args: Any, **kwargs: Any) -> Any:
        if fn is not None and not callable(fn):
            example = f"{name}({parameters[0].name}=...)" if parameters else f"{name}()"
            raise ValueError(
                f"{name} takes a function first and was given {_brief(fn)}. "
                f"Pass the handler's own arguments by keyword, e.g. {example}."
            )
        messenger = cls(*args, **kwargs)
        return messenger if fn is None else messenger(fn)

    # A signature may not show a default for fn if a parameter without one follows.
    needy = any(each.default is each.empty and each.kind is positional for each in parameters)
    first = inspect.Parameter("fn", positional, default=inspect.Parameter.empty if needy else None)
    handler.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    handler.__name__ = handler.__qualname__ = name
    handler.__module__ = cls.__module__
    handler.__doc__ = cls.__doc__
    return cast("Handler[P, M]", handler)


def _brief(value: object, limit: int = 80) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= limit else text[: limit - 3] + "..."
