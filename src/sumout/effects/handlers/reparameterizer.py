"""What ``reparam`` asks of those who write sites in other variables, and of those who choose among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from sumout.effects.message import Message
from sumout.errors import ModelError


class Reparameterizer(Protocol):
    """Says how one site is written in other variables.

    ``apply`` is given a mapping with ``name``, ``fn`` (a distribution), ``value`` (observed, or set by a handler
    inside; or ``None``) and ``is_observed``. It may make sample sites of its own, and returns a mapping with the
    ``fn``, ``value`` and ``is_observed`` that the site has from now on. While it runs, its attribute
    ``args_kwargs`` is what the handled function was called with, ``None`` in a ``with`` block.
    """

    def apply(self, msg: Any, /) -> Any: ...


@runtime_checkable
class Strategy(Protocol):
    """Chooses a reparameterizer for each name of site once, in the first run, and keeps it in ``config``."""

    config: dict[str, Any]

    def configure(self, msg: Any, /) -> Any: ...


Config: TypeAlias = (
    Mapping[str, Reparameterizer | None] | Callable[[Message], Reparameterizer | None] | Strategy
)


def choice(strategy: Strategy, site: Message) -> Any:
    """The strategy's reparameterizer for a site: that of the first run, if there was one."""
    chosen, name = strategy.config, site["name"]
    if name not in chosen:
        chosen[name] = strategy.configure(site)
    return chosen[name]


def check_reparameterizer(name: str | None, given: Any) -> None:
    if given is None or (hasattr(given, "apply") and not isinstance(given, type)):
        return
    remedy = (
        f"Make an instance: {given.__name__}()." if isinstance(given, type) else "See sumout.infer.reparam."
    )
    raise ModelError(
        f"reparam's config gives {given!r} for site {name!r}; a reparameterizer is an object with a method apply. "
        f"{remedy}"
    )


def read_result(name: str | None, reparam: Any, result: Any) -> tuple[Any, Any, bool]:
    """The parts of what a reparameterizer gave."""
    try:
        return result["fn"], result["value"], bool(result["is_observed"])
    except (KeyError, TypeError, IndexError) as error:
        raise ModelError(
            f"{type(reparam).__name__}.apply gave {result!r} for site {name!r}; it returns a dictionary with fn, value "
            "and is_observed."
        ) from error
