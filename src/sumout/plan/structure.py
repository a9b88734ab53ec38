"""What a plan is made from: names, sizes and kinds. No tensor is in sight."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple


class FactorShape(NamedTuple):
    """A factor without its numbers.

    ``inputs`` are the names of the table's dimensions; ``plates`` is the ordinal, all plates the factor lives
    in. A plate of the ordinal that is not among the inputs is one along which the table is constant: the
    factor counts once per element all the same. ``scale`` is the power the factor is raised to, ``None``
    for a factor of ones, which any scale leaves alone.
    """

    inputs: tuple[str, ...]
    plates: frozenset[str] = frozenset()
    scale: float | None = 1.0


class Structure(NamedTuple):
    """A factor graph without its numbers; hashable, and the key under which plans are kept.

    ``sizes`` holds every variable and plate, ``variables`` those to eliminate with their ordinals, ``plates``
    the plates with the weight of one element (over one where a plate is subsampled). ``batch`` names dimensions of
    factors that are neither summed nor multiplied: there is one question, and one answer, for each of their
    elements. They are in ``sizes``, and in no ordinal.
    """

    factors: tuple[FactorShape, ...]
    sizes: tuple[tuple[str, int], ...]
    variables: tuple[tuple[str, frozenset[str]], ...]
    plates: tuple[tuple[str, float], ...] = ()
    batch: tuple[str, ...] = ()

    def without(self, names: Iterable[str]) -> Structure:
        """What is left when variables are fixed: their dimensions are gone from all tables.

        >>> pair = Structure((FactorShape(("x", "y")),), (("x", 2), ("y", 3)), (("x", frozenset()), ("y", frozenset())))
        >>> pair.without(["x"]).factors, pair.without(["x"]).sizes
        ((FactorShape(inputs=('y',), plates=frozenset(), scale=1.0),), (('y', 3),))
        """
        fixed = frozenset(names)
        return self._replace(
            factors=tuple(
                [
                    factor
                    if fixed.isdisjoint(factor.inputs)
                    else factor._replace(inputs=tuple([each for each in factor.inputs if each not in fixed]))
                    for factor in self.factors
                ]
            ),
            sizes=tuple([each for each in self.sizes if each[0] not in fixed]),
            variables=tuple([each for each in self.variables if each[0] not in fixed]),
        )


@lru_cache(maxsize=256)
def only_copy(structure: Structure) -> Structure:
    """The equal structure that was met first: step after step of training it is one object.

    All that is kept by structure is found by its identity then, and no step compares hundreds of names several times.

    >>> one, other = (Structure((FactorShape(("x",)),), (("x", 2),), (("x", frozenset()),)) for _ in range(2))
    >>> one is other, only_copy(one) is only_copy(other)
    (False, True)
    """
    return structure


Readout = str | tuple[str, ...]
"""What can be read out: the marginal of a variable, or the joint marginal of several."""


def readouts(
    structure: Structure, wanted: Iterable[Readout]
) -> tuple[dict[Readout, int], tuple[FactorShape, ...]]:
    """Where the marginals of some variables, and the joint ones of several, can be read off.

    The derivative of ``log_z`` by a factor's log-table is the factor's belief, which shows the marginal of a
    variable if the table runs over the variable and all its plates. Where no table does, a factor of ones (a
    probe) that does is to be added: it changes nothing but has a belief of its own. A variable that no factor
    mentions gets a probe even if its marginal is not wanted, for its states count all the same. A probe may lie across
    plates that were tree-shaped without it, where a group of variables lives in several that are not nested.

    Returns:
        For each name or group the index of a factor, counting the probes after the structure's own factors; the
        probes.

    >>> graph = Structure((FactorShape(("z",), frozenset({"data"})),), (("z", 2), ("data", 9)),
    ...                   (("z", frozenset({"data"})),), (("data", 1.0),))
    >>> readouts(graph, ["z"])
    ({'z': 1}, (FactorShape(inputs=('data', 'z'), plates=frozenset({'data'}), scale=None),))
    """
    sizes, ordinals = dict(structure.sizes), dict(structure.variables)
    users: dict[str, list[tuple[int, int]]] = {}
    for index, factor in enumerate(structure.factors):
        elements = math.prod([sizes[name] for name in factor.inputs])
        for name in factor.inputs:
            users.setdefault(name, []).append((elements, index))
    asked = tuple(wanted)
    unmentioned = [each for each in ordinals if each not in users and each not in asked]
    found: dict[Readout, int] = {}
    probes: list[FactorShape] = []
    for each in (*asked, *unmentioned):
        names = (each,) if isinstance(each, str) else each
        home = frozenset[str]().union(*[ordinals[name] for name in names])
        scope = home.union(names, structure.batch)
        showing = users.get(names[0], [])
        if len(scope) > 1:
            showing = [use for use in showing if scope.issubset(structure.factors[use[1]].inputs)]
        if showing:
            found[each] = min(showing)[1]
        else:
            found[each] = len(structure.factors) + len(probes)
            probes.append(FactorShape((*structure.batch, *sorted(home), *names), home, None))
    return {each: found[each] for each in asked}, tuple(probes)
