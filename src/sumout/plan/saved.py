"""Plans in files: what was asked and the paths that were found. All else follows from these, and is made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sumout.errors import PlanError
from sumout.plan.choose import Considered
from sumout.plan.cost import Machine
from sumout.plan.problem import Path
from sumout.plan.record import PlanRecord
from sumout.plan.structure import FactorShape, Readout, Structure

FORMAT = "sumout plan"
VERSION = 1

T = TypeVar("T")


class Saved(NamedTuple):
    """The content of a file."""

    asked: Structure
    marginals: tuple[Readout, ...]
    maximised: tuple[str, ...]
    unrolled: tuple[str, ...]
    sliced: tuple[str, ...]
    frugal: bool
    shared: bool
    order: str
    paths: tuple[Path, ...]
    considered: tuple[Considered, ...]
    machine: Machine
    safe: int


def to_json(plan: PlanRecord) -> str:
    """The text of a plan's file."""
    asked, machine = plan.asked, plan.machine
    content = {
        "format": FORMAT,
        "version": VERSION,
        "structure": {
            "factors": [[list(each.inputs), sorted(each.plates), each.scale] for each in asked.factors],
            "sizes": [list(each) for each in asked.sizes],
            "variables": [[name, sorted(ordinal)] for name, ordinal in asked.variables],
            "plates": [list(each) for each in asked.plates],
            "batch": list(asked.batch),
        },
        "marginals": [each if isinstance(each, str) else list(each) for each in plan.marginals],
        "maximised": list(plan.maximised),
        "unrolled": list(plan.unrolled),
        "sliced": [name for name, _ in plan.sliced],
        "frugal": plan.frugal,
        "shared": plan.shared,
        "order": plan.order,
        "paths": [[list(pair) for pair in path] for path in plan.paths],
        "considered": [list(each) for each in plan.considered],
        "machine": [machine.flops_per_second, machine.entries_per_second, machine.seconds_per_launch],
        "safe": plan.simplified.safe,
    }
    return json.dumps(content, separators=(",", ":"))


def from_json(text: str, source: str) -> Saved:
    """Reads a plan's file.

    Args:
        text: its content.
        source: its name, for errors.

    Raises:
        PlanError: if it is no plan, of another version, or damaged.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter for what is nested a thousand deep
        raise PlanError(f"{source} is no plan: it is not JSON ({error}).") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PlanError(f'{source} is no plan: it does not say "format": "{FORMAT}".')
    if content.get("version") != VERSION:
        raise PlanError(
            f"{source} is a plan of version {content.get('version')!r}, and this library reads version {VERSION}. "
            "Make the plan again with make_plan and save it."
        )
    try:
        return _read(content)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(f"{source} is a damaged plan: {error!r}. Make it again with make_plan.") from error


def _read(content: dict[str, Any]) -> Saved:
    structure = content["structure"]
    asked = Structure(
        tuple(
            [
                FactorShape(
                    _strings(inputs), frozenset(_strings(plates)), None if scale is None else float(scale)
                )
                for inputs, plates, scale in structure["factors"]
            ]
        ),
        tuple([(_string(name), _count(size)) for name, size in structure["sizes"]]),
        tuple([(_string(name), frozenset(_strings(plates))) for name, plates in structure["variables"]]),
        tuple([(_string(name), float(weight)) for name, weight in structure["plates"]]),
        _strings(structure["batch"]),
    )
    return Saved(
        asked,
        tuple([each if isinstance(each, str) else _strings(each) for each in content["marginals"]]),
        _strings(content["maximised"]),
        _strings(content["unrolled"]),
        _strings(content["sliced"]),
        bool(content["frugal"]),
        bool(content["shared"]),
        _string(content["order"]),
        _each(content["paths"], lambda path: _each(path, _pair)),
        _each(
            content["considered"],
            lambda each: Considered(_string(each[0]), float(each[1]), float(each[2]), _count(each[3])),
        ),
        Machine(*[float(rate) for rate in content["machine"]]),
        _count(content["safe"]),
    )


def check_path(path: Path, operands: int) -> None:
    """Raises ``PlanError`` unless a path joins every operand and every result but the last exactly once."""
    used: set[int] = set()
    for number, pair in enumerate(path, start=operands):
        if not all(0 <= each < number and each not in used for each in pair) or pair[0] == pair[1]:
            raise PlanError(f"A damaged plan: {pair} cannot be multiplied as number {number} of its path.")
        used.update(pair)
    if len(path) != operands - 1:
        raise PlanError(f"A damaged plan: a path of {len(path)} pairs for {operands} operands.")


def _each(items: Any, read: Callable[[Any], T]) -> tuple[T, ...]:
    if not isinstance(items, list):
        raise TypeError(f"a list was expected, not {items!r}")
    return tuple([read(each) for each in items])


def _string(item: Any) -> str:
    if not isinstance(item, str):
        raise TypeError(f"a name was expected, not {item!r}")
    return item


def _strings(items: Any) -> tuple[str, ...]:
    return _each(items, _string)


def _count(item: Any) -> int:
    if not isinstance(item, int) or isinstance(item, bool) or item < 0:
        raise TypeError(f"a count was expected, not {item!r}")
    return item


def _pair(item: Any) -> tuple[int, int]:
    lhs, rhs = _each(item, _count)
    return lhs, rhs
