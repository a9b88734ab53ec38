"""What a plan is made from: names, sizes and kinds. No tensor is in sight."""

from __future__ import annotations

from collections.abc import Iterable
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
    the plates with the weight of one element (over one where a plate is subsampled).
    """

    factors: tuple[FactorShape, ...]
    sizes: tuple[tuple[str, int], ...]
    variables: tuple[tuple[str, frozenset[str]], ...]
    plates: tuple[tuple[str, float], ...] = ()


def readouts(structure: Structure, names: Iterable[str]) -> tuple[dict[str, int], tuple[FactorShape, ...]]:
    """Where the marginals of some variables can be read off.

    The derivative of ``log_z`` by a factor's log-table is the factor's belief, which shows the marginal of a
    variable if the table runs over the variable and all its plates. Where no table does, a factor of ones (a
    probe) that does is to be added: it changes nothing but has a belief of its own. A variable that no factor
    mentions gets a probe even if its marginal is not wanted, for its states count all the same.

    Returns:
        For each name the index of a factor, counting the probes after the structure's own factors; the probes.

    >>> graph = Structure((FactorShape(("z",), frozenset({"data"})),), (("z", 2), ("data", 9)),
    ...                   (("z", frozenset({"data"})),), (("data", 1.0),))
    >>> readouts(graph, ["z"])
    ({'z': 1}, (FactorShape(inputs=('data', 'z'), plates=frozenset({'data'}), scale=None),))
    """
    sizes, ordinals = dict(structure.sizes), dict(structure.variables)
    smallest: dict[str, tuple[int, int]] = {}
    for index, factor in enumerate(structure.factors):
        elements = 1
        for each in factor.inputs:
            elements *= sizes[each]
        for name in factor.inputs:
            if ordinals.get(name, frozenset((None,))) <= set(factor.inputs):
                smallest[name] = min(smallest.get(name, (elements, index)), (elements, index))
    mentioned = {name for factor in structure.factors for name in factor.inputs}
    wanted = tuple(names)
    found: dict[str, int] = {}
    probes: list[FactorShape] = []
    for name in (*wanted, *(each for each in ordinals if each not in mentioned and each not in wanted)):
        if name in smallest:
            found[name] = smallest[name][1]
        else:
            found[name] = len(structure.factors) + len(probes)
            probes.append(FactorShape((*sorted(ordinals[name]), name), ordinals[name], None))
    return {name: found[name] for name in wanted}, tuple(probes)
