"""Rules for torch's functions by their names, and the delayed values among a function's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor

from sumout.effects.delayed.value import Delayed

T = TypeVar("T")
Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}
"""From a function's name to what is called with its arguments: gives the value, or ``None`` where it is not kept."""


WHOLE: set[str] = set()
"""Functions whose rules work out all that the function does: what it makes of the probes need not be known before."""


def rule(*names: str, whole: bool = False) -> Callable[[Rule], Rule]:
    def register(made: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, made))
        if whole:
            WHOLE.update(names)
        return made

    return register


_PLAIN = frozenset([int, float, bool, str, type(None)])


def mapped(structure: Any, change: Callable[[Tensor], Any]) -> Any:
    """Tuples, lists and dictionaries with all tensors changed."""
    if type(structure) in _PLAIN:
        return structure
    if isinstance(structure, Tensor):
        return change(structure)
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*[mapped(each, change) for each in structure])
    if isinstance(structure, (tuple, list)):  # Also torch.return_types, which are made of one sequence.
        return type(structure)([mapped(each, change) for each in structure])
    if type(structure) is dict:
        return {key: mapped(each, change) for key, each in structure.items()}
    if type(structure) is slice:
        ends = (structure.start, structure.stop, structure.step)
        return slice(*[mapped(each, change) for each in ends])
    return structure


def probes(structure: T) -> T:
    return cast(T, mapped(structure, lambda each: each.probe if isinstance(each, Delayed) else each))


def delayed_in(structure: Any) -> list[Delayed]:
    """All delayed values, each once."""
    found: dict[int, Delayed] = {}
    mapped(structure, lambda each: found.setdefault(id(each), each) if isinstance(each, Delayed) else None)
    return list(found.values())


def is_known(*values: Any) -> bool:
    return all(each.unknown is None for each in values if isinstance(each, Delayed))


def is_affine(*values: Any) -> bool:
    return all(each.is_affine for each in values if isinstance(each, Delayed))


def const_of(value: Any) -> Any:
    return value.const if isinstance(value, Delayed) else value
