"""From what was typed to the index of a state of a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sumout.errors import EvidenceError, nearest
from sumout.io import read_evidence

States = Mapping[str, Sequence[str]]


def gather(states: States, items: Sequence[str], file: str | None) -> dict[str, int]:
    """All evidence of one command, as node -> position of its state.

    Args:
        states: the network's nodes and their state labels.
        items: ``NAME=STATE``, each possibly several with commas between them.
        file: an evidence file.

    Raises:
        EvidenceError: an item is malformed, a node or state is unknown, or a node has two states.
        ParseError: the file is malformed.

    >>> gather({"rain": ("no", "yes"), "level": ("3", "4")}, ["rain=yes,level=3"], None)
    {'rain': 1, 'level': 0}
    """
    evidence: dict[str, int] = {}
    if file is not None:
        for name, state in read_evidence(file).items():
            evidence[name] = position(states, name, state)
    for item in items:
        for name, state in pairs(states, item):
            index = position(states, name, state)
            if evidence.setdefault(name, index) != index:
                both = f"{states[name][evidence[name]]!r} and {states[name][index]!r}"
                raise EvidenceError(f"The evidence gives {name!r} two states, {both}: give one.")
    return evidence


def pairs(states: States, item: str) -> Iterator[tuple[str, str]]:
    """The names and states in one item.

    Names and labels may themselves hold ``=`` and ``,``: the first split that gives a known name is taken.
    """
    cuts = [place for place, character in enumerate(item) if character == "="]
    for cut in cuts:
        name, state = item[:cut], item[cut + 1 :]
        if name in states and state and (state in states[name] or "," not in state):
            yield name, state
            return
    parts = item.split(",")
    for part in parts:
        name, equals, state = part.partition("=")
        if not equals or not name.strip() or not state.strip():
            raise EvidenceError(f"The evidence {part!r} is malformed: write NAME=STATE.")
        yield name.strip(), state.strip()


def position(states: States, name: str, state: str | int) -> int:
    """The position of a node's state, given by its label or else by its position."""
    labels = states.get(name)
    if labels is None:
        raise EvidenceError(f"The evidence names {name!r}, which is no node.{nearest(name, states)}")
    if isinstance(state, str):
        if state in labels:
            return labels.index(state)
        if not (state.isascii() and state.isdecimal() and len(state) < 10):
            shown = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
            raise EvidenceError(
                f"The node {name!r} has no state {state!r}. It has {shown}.{nearest(state, labels)}"
            )
        state = int(state)
    if not 0 <= state < len(labels):
        raise EvidenceError(f"The node {name!r} has no state number {state}: its {len(labels)} count from 0.")
    return state
