"""A contraction in the making, which counts what it costs; and how to follow an elimination order."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush

from sumout.plan.problem import Pairs, Problem

_FEW = 6
"""Up to so many operands, every pair of them is looked at before one is multiplied."""


_REPEATED = 0.25
"""What a launch that is part of a run costs beside one that is not."""


def launching(launches: Collection[object], repeats: Collection[object]) -> float:
    """For how many launches these count, some of which repeat others."""
    return len(launches) - (1.0 - _REPEATED) * len(repeats)


class Contraction:
    """The operands that are left, the pairs that were multiplied so far, and their cost.

    An operand stands in a slot, and a product takes the place of one of the two: so what else uses a variable has to be
    told of one of them only.

    Attributes:
        pairs: the path so far, by the numbers of operands and results.
        flops, entries: multiply-adds; table entries read and written.
        launches: the different steps, a step being its round and the sizes of its parts. Steps that do not
            differ can run as one batch, so this estimates the number of groups.
        repeats: those of them that do to a result, with an operand, what was done to it one or two steps before: they
            are parts of a run, which is made at once.
        scopes, sizes, rounds, number: by slot, the variables of what stands there, its entries, the round in which
            it was made, and its number. Sizes are floats: what cannot be paid for may be infinite.
        users: for each variable the slots of the operands that have it.
        made: the variables of each result, in the order of ``pairs``.

    ``launches`` without the rounds are as few groups as any batching of these steps can have.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.pairs: Pairs = []
        self.made: list[int] = []
        self.flops = self.entries = 0.0
        self.launches: set[tuple[float, ...]] = set()
        self.repeats: set[tuple[float, ...]] = set()
        self._lately: dict[int, tuple[tuple[float, ...], ...]] = {}
        self.scopes = list(problem.operands)
        self.sizes = list(problem.operand_sizes)
        self.rounds = [0] * len(self.scopes)
        self.number = list(range(len(self.scopes)))
        self.live = set(self.number)
        self.users = list(map(set, problem.users))

    @property
    def launching(self) -> float:
        """What the launches count for."""
        return launching(self.launches, self.repeats)

    def copy(self) -> Contraction:
        """Another one in the same state."""
        twin = object.__new__(Contraction)
        twin.problem, twin.flops, twin.entries = self.problem, self.flops, self.entries
        twin.pairs, twin.made, twin.scopes = self.pairs[:], self.made[:], self.scopes[:]
        twin.sizes, twin.rounds, twin.number = self.sizes[:], self.rounds[:], self.number[:]
        twin.launches, twin.live = set(self.launches), set(self.live)
        twin.repeats, twin._lately = set(self.repeats), dict(self._lately)
        twin.users = list(map(set, self.users))
        return twin

    def multiply(self, lhs: int, rhs: int) -> int:
        """Multiplies what stands in two slots and sums out what no other needs; returns the slot of the result."""
        scopes, sizes, rounds = self.scopes, self.sizes, self.rounds
        if scopes[lhs].bit_count() < scopes[rhs].bit_count():
            lhs, rhs = rhs, lhs
        batch, summed, gone = self._hand_over(lhs, rhs)
        both = batch * summed
        of_left, of_right = sizes[lhs] / both, sizes[rhs] / both
        size = of_left * of_right * batch
        step = 1 + (rounds[lhs] if rounds[lhs] > rounds[rhs] else rounds[rhs])
        if of_left < of_right:
            of_left, of_right = of_right, of_left
        kind, launch = (batch, of_left, of_right, summed), (step, batch, of_left, of_right, summed)
        self.launches.add(launch)
        lately = self._lately.get(lhs if rounds[lhs] > rounds[rhs] else rhs, ())
        if kind in lately and min(rounds[lhs], rounds[rhs]) <= 1:
            self.repeats.add(launch)
        self._lately[lhs] = (kind, *lately[:1])
        self.flops += size * summed
        self.entries += sizes[lhs] + sizes[rhs] + size
        self.pairs.append((self.number[lhs], self.number[rhs]))
        self.number[lhs] = len(self.pairs) + len(self.problem.operands) - 1
        scopes[lhs], sizes[lhs], rounds[lhs] = (scopes[lhs] | scopes[rhs]) & ~gone, size, step
        self.made.append(scopes[lhs])
        self.live.remove(rhs)
        return lhs

    def _hand_over(self, lhs: int, rhs: int) -> tuple[float, float, int]:
        """Makes ``lhs`` the user of all variables of ``rhs`` but for those that only the two have.

        Returns:
            The joint sizes of the shared variables that stay and of those that go; the latter themselves.
        """
        of_variables, users, keep = self.problem.sizes, self.users, self.problem.keep
        left, mask = self.scopes[lhs], self.scopes[rhs]
        batch = summed = 1.0
        gone = 0
        while mask:
            low = mask & -mask
            mask ^= low
            index = low.bit_length() - 1
            of_variable = users[index]
            of_variable.remove(rhs)
            if not left & low:
                of_variable.add(lhs)
            elif len(of_variable) > 1 or keep & low:
                batch *= of_variables[index]
            else:
                of_variable.clear()
                gone |= low
                summed *= of_variables[index]
        return batch, summed, gone

    def multiply_all(self, slots: Iterable[int]) -> None:
        """Multiplies operands: of a few, the pair with the smallest product first; of many, the two smallest.

        Either way equal operands pair up as a balanced tree.
        """
        left = list(slots)
        if len(left) > _FEW:
            left = self._smallest_first(left)
        while len(left) > 2:
            lhs, rhs = min([(a, b) for place, a in enumerate(left) for b in left[:place]], key=self._product)
            left = [each for each in left if each != lhs and each != rhs]
            left.append(self.multiply(lhs, rhs))
        if len(left) == 2:
            self.multiply(left[0], left[1])

    def _product(self, pair: tuple[int, int]) -> tuple[float, int]:
        lhs, rhs = pair
        shared = self.problem.size(self.scopes[lhs] & self.scopes[rhs])
        return self.sizes[lhs] / shared * self.sizes[rhs], max(self.number[lhs], self.number[rhs])

    def _smallest_first(self, slots: list[int]) -> list[int]:
        heap = [(self.sizes[slot], self.number[slot], slot) for slot in slots]
        heapify(heap)
        while len(heap) > _FEW:
            lhs, rhs = heappop(heap)[2], heappop(heap)[2]
            slot = self.multiply(lhs, rhs)
            heappush(heap, (self.sizes[slot], self.number[slot], slot))
        return [slot for _, _, slot in heap]


def follow(problem: Problem, order: Iterable[int], contraction: Contraction | None = None) -> Contraction:
    """The contraction of an elimination order.

    To eliminate a variable, the operands that contain it are multiplied, and it is summed out of the last
    product.

    Args:
        problem: what is contracted.
        order: variables by number; those that have gone already are passed over.
        contraction: one that has begun, to be finished.

    >>> follow(Problem((0b011, 0b110, 0b001), 0b100, (2, 2, 2)), [0, 1]).pairs
    [(0, 2), (1, 3)]
    """
    contraction = contraction or Contraction(problem)
    users = contraction.users
    for variable in order:
        if len(users[variable]) > 1:
            contraction.multiply_all(users[variable])
    contraction.multiply_all(contraction.live)
    return contraction


def along(problem: Problem, pairs: Iterable[tuple[int, int]]) -> Contraction:
    """The contraction of a path that was found elsewhere, and that may be the beginning of one only."""
    contraction = Contraction(problem)
    slots = list(range(len(problem.operands)))
    for lhs, rhs in pairs:
        slots.append(contraction.multiply(slots[lhs], slots[rhs]))
    return contraction
