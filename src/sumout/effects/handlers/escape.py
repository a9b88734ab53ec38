"""Leaving a program from inside a site."""

from __future__ import annotations

from collections.abc import Callable

from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import Messenger
from sumout.effects.stack import NonlocalExit
from sumout.errors import ModelError


class Escape(NonlocalExit):
    """The exit that ``EscapeMessenger`` takes; it knows whose it is, so that the exits of nested runs differ."""

    def __init__(self, site: Message, by: EscapeMessenger) -> None:
        super().__init__(site)
        self.by = by


class EscapeMessenger(Messenger):
    """Leaves the program at the first sample site that ``escape_fn`` chooses, by raising ``NonlocalExit``.

    The exit carries the site, which has no value yet. Handlers inside end the site before it is raised; those
    outside do not see it. Who catches the exit calls its ``reset_stack()``, so that the handlers around forget
    what they gathered, and can run the program again with a value for the site: see ``queue``.

    Args:
        escape_fn: tells of a site whether to leave there.

    Raises:
        NonlocalExit: when the program runs.
        ModelError: if ``escape_fn`` is no function.

    >>> from sumout.distributions import Normal
    >>> from sumout.effects.primitives import sample
    >>> def model():
    ...     sample("a", Normal(0.0, 1.0))
    ...     sample("b", Normal(0.0, 1.0))
    >>> try:
    ...     escape(model, escape_fn=lambda site: site.name == "b")()
    ... except NonlocalExit as exit:
    ...     exit.site.name, exit.site.value
    ('b', None)
    """

    def __init__(self, escape_fn: Callable[[Message], object]) -> None:
        if not callable(escape_fn):
            raise ModelError(f"escape_fn is a function of a site, not {escape_fn!r}.")
        self.escape_fn = escape_fn

    def _pyro_sample(self, msg: Message) -> None:
        if self.escape_fn(msg):
            msg.done = True  # not drawn
            msg.stop = True
            msg.continuation = self._leave

    def _leave(self, msg: Message) -> None:
        raise Escape(msg, self)


escape = wrap(EscapeMessenger)
