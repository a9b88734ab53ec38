"""Hiding sites from the handlers outside."""

from __future__ import annotations

from collections.abc import Callable, Collection

from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.effects.steps import is_named
from sumout.errors import ModelError

Predicate = Callable[[Message], object]


class BlockMessenger(Messenger):
    """Hides sites from the handlers outside; those inside see them all. By default every site is hidden.

    A site is hidden if one of these holds:

    - ``hide_fn(site)``, or ``not expose_fn(site)``; where one of the two is given it alone decides;
    - its name is in ``hide``, or its type in ``hide_types``;
    - its name is not in ``expose`` nor its type in ``expose_types``, where one of these two is given and no
      later one of the four (in the order ``hide, expose, hide_types, expose_types``) speaks of hiding;
    - none of the four is given, and not ``expose_all``.

    The type of a site is ``"sample"``, ``"observe"`` for a sample site that is observed, ``"param"``, ...

    Args:
        hide_fn: tells of a site whether to hide it.
        expose_fn: tells of a site whether to show it.
        hide_all: hide every site that nothing else is said of; the default.
        expose_all: show every site that nothing else is said of.
        hide: names to hide.
        expose: names to show, all others being hidden.
        hide_types: types to hide.
        expose_types: types to show, all others being hidden.

    Raises:
        ModelError: if the same sites are to be hidden and shown.

    >>> from sumout.distributions import Normal
    >>> from sumout.effects.handlers.trace import trace
    >>> from sumout.effects.primitives import sample
    >>> def model():
    ...     sample("a", Normal(0.0, 1.0))
    ...     sample("b", Normal(0.0, 1.0))
    >>> trace(block(model, hide=["a"])).get_trace().stochastic_nodes
    ['b']
    """

    def __init__(
        self,
        hide_fn: Predicate | None = None,
        expose_fn: Predicate | None = None,
        hide_all: bool = True,
        expose_all: bool = False,
        hide: Collection[str] | None = None,
        expose: Collection[str] | None = None,
        hide_types: Collection[str] | None = None,
        expose_types: Collection[str] | None = None,
    ) -> None:
        if hide_fn is not None and expose_fn is not None:
            raise ModelError("block takes hide_fn or expose_fn, not both.")
        if hide_fn is None and expose_fn is None:
            for what, hidden, shown in (("name", hide, expose), ("type", hide_types, expose_types)):
                both = sorted(set(hidden or ()) & set(shown or ()))
                if both:
                    raise ModelError(f"block cannot hide and expose the same {what}: {both}.")
        self._hide_fn = hide_fn
        self._expose_fn = expose_fn
        self._hide, self._expose = frozenset(hide or ()), frozenset(expose or ())
        self._hide_types, self._expose_types = frozenset(hide_types or ()), frozenset(expose_types or ())
        self._hide_others = hide_all and not expose_all
        # Each of the four says what becomes of the sites it does not speak of; the last one given holds.
        for given, others_are_hidden in (
            (hide, False),
            (expose, True),
            (hide_types, False),
            (expose_types, True),
        ):
            if given is not None:
                self._hide_others = others_are_hidden

    def hides(self, msg: Message) -> bool:
        """Whether the handlers outside do not see the site."""
        if self._hide_fn is not None:
            return bool(self._hide_fn(msg))
        if self._expose_fn is not None:
            return not self._expose_fn(msg)
        kind = "observe" if msg.type == "sample" and msg.is_observed else msg.type
        if is_named(msg, self._hide) or kind in self._hide_types:
            return True
        return self._hide_others and kind not in self._expose_types and not is_named(msg, self._expose)

    @property
    def hides_all(self) -> bool:
        """Whether the handlers outside see no site at all, whatever its name and type."""
        asked = self._hide_fn is not None or self._expose_fn is not None
        return self._hide_others and not (asked or self._expose or self._expose_types)

    def _process_message(self, msg: Message) -> None:
        if self.hides(msg):
            msg.stop = True


block = wrap(BlockMessenger)
