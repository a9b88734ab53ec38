"""A path made better in parts: the costliest steps, with those below them, are arranged anew in the best way.

A path is a tree. A part of it that joins a few operands or results can be arranged in every other way by dynamic
programming over their subsets, and its result does not change, nor does anything outside.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

from sumout.plan.contraction import Contraction, along
from sumout.plan.problem import Pairs

_NEGLIGIBLE = 2e-3
"""The share of the flops below which a step is not looked at."""


class _Best(NamedTuple):
    """The cheapest arrangement of a part: its flops, and for each subset of its leaves how it is split."""

    flops: float
    split: list[int]
    scopes: list[int]


class _Tree:
    """A path as a tree of nodes, operands being the leaves."""

    def __init__(self, contraction: Contraction) -> None:
        problem = self.problem = contraction.problem
        self.operands = len(problem.operands)
        self.children: dict[int, tuple[int, int]] = {}
        self.parent: dict[int, int] = {}
        self.scopes = dict(enumerate(problem.operands))
        self.sizes: dict[int, float] = {}
        self.next = self.operands + len(contraction.pairs)
        for node, pair in enumerate(contraction.pairs, start=self.operands):
            self.children[node] = pair
            self.parent[pair[0]] = self.parent[pair[1]] = node
        self.scopes.update(enumerate(contraction.made, start=self.operands))

    def size(self, scope: int) -> float:
        """The entries of a scope, remembered."""
        found = self.sizes.get(scope)
        if found is None:
            found = self.sizes[scope] = self.problem.size(scope)
        return found

    def flops(self, node: int) -> float:
        lhs, rhs = self.children[node]
        return self.size(self.scopes[lhs] | self.scopes[rhs])

    def part(self, top: int, leaves: int) -> tuple[list[int], list[int]]:
        """The part below ``top`` that has the costliest steps: its leaves, and its steps without ``top`` itself."""
        frontier, inner = list(self.children[top]), []
        while len(frontier) < leaves:
            steps = [each for each in frontier if each in self.children]
            if not steps:
                break
            step = max(steps, key=self.flops)
            frontier.remove(step)
            frontier += self.children[step]
            inner.append(step)
        return frontier, inner

    def best(self, top: int, leaves: list[int]) -> _Best:
        """The cheapest way to make ``top`` out of the leaves."""
        everything = (1 << len(leaves)) - 1
        union, flops, split = [0] * (everything + 1), [0.0] * (everything + 1), [0] * (everything + 1)
        for subset in range(1, everything + 1):
            low = subset & -subset
            union[subset] = union[subset ^ low] | self.scopes[leaves[low.bit_length() - 1]]
        result = self.scopes[top]
        scopes = [union[each] & (result | union[everything ^ each]) for each in range(everything + 1)]
        for subset in range(3, everything + 1):
            low = subset & -subset
            rest = part = subset ^ low
            if not rest:
                continue
            least, at = float("inf"), low
            while part:
                part = (part - 1) & rest
                one, other = part | low, subset ^ part ^ low
                below = flops[one] + flops[other]
                if below < least:
                    below += self.size(scopes[one] | scopes[other])
                    if below < least:
                        least, at = below, one
            flops[subset], split[subset] = least, at
        return _Best(flops[everything], split, scopes)

    def rearrange(self, top: int, leaves: list[int], inner: list[int], best: _Best) -> list[int]:
        """Puts an arrangement in the place of the old one; returns its steps."""
        for step in inner:
            del self.children[step]
        made = []

        def build(subset: int, node: int | None) -> int:
            if subset & (subset - 1) == 0:
                return leaves[subset.bit_length() - 1]
            if node is None:
                node, self.next = self.next, self.next + 1
                self.scopes[node] = best.scopes[subset]
            made.append(node)
            one = best.split[subset]
            children = build(one, None), build(subset ^ one, None)
            self.children[node] = children
            self.parent.update(dict.fromkeys(children, node))
            return node

        build((1 << len(leaves)) - 1, top)
        return made

    def pairs(self) -> Pairs:
        """The tree as a path."""
        (top,) = self.children.keys() - self.parent.keys()
        number: dict[int, int] = {each: each for each in range(self.operands)}
        pairs: Pairs = []
        stack = [top]
        while stack:
            node = stack[-1]
            waiting = [each for each in self.children[node] if each not in number]
            stack += waiting
            if not waiting:
                stack.pop()
                lhs, rhs = self.children[node]
                number[node] = self.operands + len(pairs)
                pairs.append((number[lhs], number[rhs]))
        return pairs


def refined(contraction: Contraction, leaves: int = 5, parts: int = 50) -> Contraction:
    """A contraction with no more flops than the one that is given.

    Args:
        contraction: a finished one.
        leaves: how many operands and results a part joins; an arrangement takes time that grows as ``3**leaves``.
        parts: how many parts are looked at, those of the costliest steps first.

    >>> from sumout.plan.problem import Problem
    >>> chain = along(Problem((0b011, 0b110, 0b1100), 0b1001, (2, 9, 2, 9)), [(1, 2), (0, 3)])
    >>> chain.flops, refined(chain).flops
    (324.0, 72.0)
    """
    if len(contraction.pairs) < 2:
        return contraction
    tree = _Tree(contraction)
    waiting = [(-tree.flops(node), node) for node in tree.children]
    heapify(waiting)
    negligible, better = _NEGLIGIBLE * contraction.flops, False
    while waiting and parts > 0 and -waiting[0][0] >= negligible:
        _, node = heappop(waiting)
        for top in (node, tree.parent.get(node)):
            if top is None or top not in tree.children:
                continue
            frontier, inner = tree.part(top, leaves)
            if not inner:
                continue
            parts -= 1
            before = tree.flops(top) + sum(map(tree.flops, inner))
            best = tree.best(top, frontier)
            if best.flops < before * (1 - 1e-9):
                better = True
                for each in tree.rearrange(top, frontier, inner, best):
                    heappush(waiting, (-tree.flops(each), each))
                break
    return along(contraction.problem, tree.pairs()) if better else contraction
