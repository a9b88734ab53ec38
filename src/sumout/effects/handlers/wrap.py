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


def wrap(messenger: Callable[P, M]) -> Handler[P, M]:
    """The function form of a messenger class, named after it (``InferConfigMessenger``: ``infer_config``).

    Args:
        messenger: a subclass of ``Messenger``; its arguments follow ``fn`` in the function form.

    The function form raises ``ValueError`` where its first argument is neither a function nor absent.

    >>> class HalveMessenger(Messenger):
    ...     def _pyro_sample(self, msg):
    ...         msg.scale = 0.5 * msg.scale
    >>> halve = wrap(HalveMessenger)
    >>> halve(len)([1, 2]), halve.__name__, str(inspect.signature(halve))
    (2, 'halve', '(fn=None)')
    """
    cls = cast("type[M]", messenger)
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__.removesuffix("Messenger")).lower()

    def handler(fn: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        if fn is not None and not callable(fn):
            own = [parameter for parameter in inspect.signature(cls).parameters if parameter != "fn"]
            example = f"{name}({own[0]}=...)" if own else f"{name}()"
            raise ValueError(
                f"{name} takes a function first and was given {_brief(fn)}. "
                f"Pass the handler's own arguments by keyword, e.g. {example}."
            )
        handling = cls(*args, **kwargs)
        return handling if fn is None else handling(fn)

    first = inspect.Parameter("fn", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
    # After a parameter with a default none may lack one, though data is still required: hence keyword-only.
    rest = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
        else each
        for each in inspect.signature(cls).parameters.values()
    ]
    rest.sort(key=lambda parameter: parameter.kind)
    handler.__signature__ = inspect.Signature([first, *rest])  # type: ignore[attr-defined]
    handler.__name__ = handler.__qualname__ = name
    handler.__module__ = cls.__module__
    handler.__doc__ = cls.__doc__
    return cast("Handler[P, M]", handler)


def _brief(value: object, limit: int = 80) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= limit else text[: limit - 3] + "..."
