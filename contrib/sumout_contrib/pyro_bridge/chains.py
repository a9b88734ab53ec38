"""What sumout's enumeration wants to know of Pyro's ``markov`` chains.

Pyro writes into ``infer`` of a site which sites are in reach of it (``_markov_scope``) and in how many chains it
lies (``_markov_depth``), with the meaning that they have in sumout. It does not tell what is one step out of
reach, where sumout looks for programs that reach too far back, nor which steps are the last of a loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any

from pyro.poutine.markov_messenger import MarkovMessenger

Context = set[str]
"""The names of the sites of one step of a chain; Pyro makes one set for each."""


class Chains:
    """Follows the chains of one run of a program from site to site.

    Pyro drops a context that is left. That it was left is seen by a new one in its place.
    """

    def __init__(self) -> None:
        self._met: dict[MarkovMessenger, dict[int, tuple[Context, Context]]] = {}
        """Chain -> position -> the context that was met there last, and the one that was left there before it."""

    def complete(self, name: str, infer: dict[str, Any], chains: Iterable[MarkovMessenger]) -> None:
        """Adds ``_markov_near_scope`` and ``_markov_last`` to what these chains wrote into a site's ``infer``."""
        near: dict[str, int] = infer.get("_markov_near_scope", {})
        last = infer.get("_markov_last", True)
        for chain in chains:
            for each in self._nearly_in_reach(chain):
                near[each] = near.get(each, 0) + 1
            last = last and _is_among_the_last(chain)
        near.pop(name, None)  # Pyro has put the site itself into its context already.
        infer["_markov_near_scope"] = near
        infer["_markov_last"] = last

    def _nearly_in_reach(self, chain: MarkovMessenger) -> set[str]:
        """What is in reach; also a neighbouring branch, one that started from here, and one step further back."""
        here, contexts = chain._pos, chain._stack
        names = set().union(*contexts[max(0, here - chain.history - 1) : here + 1])
        if chain.keep:  # Nothing is left, and contexts that start from here will see those that did before.
            return names.union(*contexts[here + 1 :])
        met = self._met.setdefault(chain, {})
        now, before = met.get(here, (None, set()))
        if now is not contexts[here]:
            before = now or set()
            met[here] = contexts[here], before
            met.pop(here + 1, None)
        names |= before
        if here + 1 in met:
            names |= met[here + 1][0]
        return names


def _is_among_the_last(chain: MarkovMessenger) -> bool:
    """Whether this is known to be one of the last ``history`` steps of a loop, which a program may go on from."""
    steps = chain._iterable
    return isinstance(steps, Sized) and chain._pos + 1 > len(steps) - max(1, chain.history)
