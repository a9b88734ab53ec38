"""Hiding sites from the poutines outside."""

from __future__ import annotations

from collections.abc import Collection

from sumout.poutine.block_messenger import BlockMessenger
from sumout_contrib.classic.poutine import Poutine, Program


class BlockPoutine(Poutine, BlockMessenger):
    """Hides sites from the outside world; by default every one.

    Args:
        fn: a program.
        hide_all: hide every site that nothing else is said of. ``expose_all`` and the others speak louder.
        expose_all: show every site that nothing else is said of.
        hide: names to hide.
        expose: names to show, all others being hidden.
        hide_types: types to hide: ``"sample"``, ``"observe"``, ``"param"``.
        expose_types: types to show, all others being hidden.

    Raises:
        ModelError: if the same sites are to be hidden and shown.

    >>> from sumout import sample
    >>> from sumout.distributions import Normal
    >>> from sumout_contrib.classic.trace_poutine import TracePoutine
    >>> def fn():
    ...     sample("a", Normal(0.0, 1.0)), sample("b", Normal(0.0, 1.0))
    >>> TracePoutine(BlockPoutine(fn)).get_trace().stochastic_nodes
    []
    >>> TracePoutine(BlockPoutine(fn, expose=["b"])).get_trace().stochastic_nodes
    ['b']
    """

    def __init__(
        self,
        fn: Program | None,
        hide_all: bool = True,
        expose_all: bool = False,
        hide: Collection[str] | None = None,
        expose: Collection[str] | None = None,
        hide_types: Collection[str] | None = None,
        expose_types: Collection[str] | None = None,
    ) -> None:
        Poutine.__init__(self, fn)
        BlockMessenger.__init__(
            self,
            hide_all=hide_all and not expose_all,
            expose_all=expose_all,
            hide=hide,
            expose=expose,
            hide_types=hide_types,
            expose_types=expose_types,
        )
