"""The probabilities of a guide's enumerated sites: of any of them together, whatever they depend on."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from sumout.errors import MemoryLimitError
from sumout.infer.objectives.terms import Table, union
from sumout.settings import settings
from sumout.text import memory

NOTHING = Table((), torch.ones(()))


class Weights:
    """The joint probabilities of the variables of a guide, for each element of their plates.

    A guide draws a site given some of the sites before. So the last one of a set can be taken off: its probability
    given its parents, times the joint probability of the parents and the rest, summed over the parents that are not
    asked for. What was found is kept: along a chain the next step needs the last. Sites that nobody asks for and
    that are no ancestors sum to one, and are never looked at.

    Args:
        tables: for each variable, in the order in which the guide draws them, its probabilities given its parents:
            over the variable, its parents and plates.
        sizes: of variables and plates.
        always: variables that every set is asked for with: those of size one that have one of their values in this run,
            and others in other runs. What is joint with them does not sum to one.

    >>> start = Table(("a",), torch.tensor([0.5, 0.5]))
    >>> move = Table(("a", "b"), torch.tensor([[0.9, 0.1], [0.3, 0.7]]))
    >>> Weights({"a": start, "b": move}, {"a": 2, "b": 2}).joint(frozenset({"b"}))
    Table(names=('b',), data=tensor([0.6000, 0.4000]))
    """

    def __init__(
        self, tables: Mapping[str, Table], sizes: Mapping[str, int], always: Collection[str] = ()
    ) -> None:
        self.always = frozenset(always)
        self.tables = dict(tables)
        self.sizes = dict(sizes)
        self.local: dict[str, str] = {}
        """Variables that were added for one element of a plate and live in other plates still, with their sites."""
        self._place = {name: place for place, name in enumerate(tables)}
        self._known: dict[frozenset[str], Table] = {frozenset(): NOTHING}

    def add(self, name: str, table: Table, size: int, local: str | None = None) -> None:
        """Adds a variable, that of one element of a plate for instance; its parents are there already.

        ``local`` is its site, if it lives in other plates still.
        """
        if local is not None:
            self.local[name] = local
        if name not in self.tables:
            self._place[name] = len(self.tables)
            self.tables[name] = table
            self.sizes[name] = size

    def among(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the names that are variables."""
        return frozenset([name for name in names if name in self.tables])

    def joint(self, wanted: frozenset[str]) -> Table:
        """The probabilities of some variables together, over them and the plates that they vary along.

        Raises:
            MemoryLimitError: before it is made, if the table is larger than ``settings.memory_limit``.
        """
        wanted |= self.always
        waiting = [wanted]
        while waiting:  # A recursion would be as deep as a chain is long.
            group = waiting[-1]
            if group in self._known:
                waiting.pop()
                continue
            last = max(group, key=self._place.__getitem__)
            own = self.tables[last]
            parents = frozenset([name for name in own.names if name in self._place and name != last])
            rest = (group - {last}) | parents
            if rest not in self._known:
                waiting.append(rest)
                continue
            waiting.pop()
            self._known[group] = self._taken_together(own, self._known[rest], parents - group)
        return self._known[wanted]

    def _taken_together(self, own: Table, rest: Table, summed: frozenset[str]) -> Table:
        names = union(rest.names, own.names)
        kept = tuple([name for name in names if name not in summed])
        needed = math.prod(self.sizes[name] for name in kept) * own.data.element_size()
        if needed > settings.memory_limit:
            variables = sorted(name for name in kept if name in self._place)
            raise MemoryLimitError(
                f"The guide's sites {variables} are needed together, a table of {memory(needed)}, and the limit is "
                f"{memory(settings.memory_limit)}. Draw some of them (no mark for enumeration), or let the guide "
                "draw them independently of each other."
            )
        if rest is NOTHING:
            return own
        if not summed:
            return Table(kept, rest.along(names) * own.along(names))
        numbers = {name: number for number, name in enumerate(names)}
        data: Tensor = torch.einsum(
            rest.data,
            [numbers[name] for name in rest.names],
            own.data,
            [numbers[name] for name in own.names],
            [numbers[name] for name in kept],
        )
        return Table(kept, data)
