"""The plan as a value: frozen, hashable, printable, made before anything is paid for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from sumout.errors import MemoryLimitError
from sumout.plan.cost import figure, in_bytes, rounded
from sumout.plan.explain import compared, counted, explained, operation
from sumout.plan.outline import listed
from sumout.plan.record import PlanRecord
from sumout.plan.saved import to_json
from sumout.plan.show import dot, drawn
from sumout.text import aligned

_MOST_DRAWN = 300
"""How many steps a plan may have to be drawn without being asked."""


@dataclass(frozen=True)
class EliminationPlan(PlanRecord):
    """How to eliminate the variables of a structure; what it holds is said in ``PlanRecord``.

    Printing a plan shows its totals and its groups of steps; ``explain`` says why it is this one.

    >>> from sumout.plan import FactorShape, Structure, make_plan
    >>> pair = Structure((FactorShape(("x", "y")),), (("x", 2), ("y", 3)), (("x", frozenset()), ("y", frozenset())))
    >>> print(make_plan(pair))
    plan by greedy: 1 step in 1 group, 6 flops, width 1, largest table 6 entries, 232 B
    group  steps  operation  over  result  entries
    0      1      sum        x y           1
    """

    def check_memory(self, limit: int, itemsize: int = 8, backward: bool = False, tried: str = "") -> None:
        """Refuses a plan that is too large, before anything is allocated.

        Args:
            limit: bytes that there are.
            itemsize, backward: as in ``bytes``.
            tried: what was tried to make it fit, for the error.

        Raises:
            MemoryLimitError: naming the variables of the largest table.
        """
        needed = self.bytes(itemsize, backward)
        if needed <= limit:
            return
        done = [
            f"The plates {list(self.unrolled)} are written out." if self.unrolled else "",
            f"It runs in {self.slices:,} slices already." if self.sliced else "",
            tried,
        ]
        raise MemoryLimitError(
            f"The plan needs {in_bytes(needed)} and the limit is {in_bytes(limit)}. Its largest table has "
            f"{figure(self.largest)} entries over {listed(self.largest_dims, 12)} (induced width {self.width}). "
            + "".join([f"{each} " for each in done if each])
            + "Observe one of these variables, or raise the limit: settings.override(memory_limit=...)."
        )

    def explain(self) -> str:
        """What was considered and why this plan won, what was simplified, unrolled and sliced, and every step."""
        return explained(self)

    def compare(self, other: EliminationPlan) -> str:
        """The figures of two plans side by side, and those of the other as multiples of this one's.

        Both times are estimated by this plan's machine.

        >>> from sumout.plan import FactorShape, Structure, make_plan
        >>> pair = Structure((FactorShape(("x", "y")),), (("x", 2), ("y", 3)), (("x", frozenset()), ("y", frozenset())))
        >>> print(make_plan(pair).compare(make_plan(pair._replace(sizes=(("x", 2), ("y", 6))))).splitlines()[1])
        flops                6      12     2 times
        """
        return compared(self, other)

    def to_dot(self) -> str:
        """The elimination tree in Graphviz's DOT language: tables are boxes, steps ellipses, the answer on top."""
        return dot(self)

    def draw(self, path: str | Path | None = None) -> str:
        """The elimination tree as a picture.

        Args:
            path: where it is written; its ending (``.svg``, ``.pdf``, ``.png``) is its format.

        Returns:
            The picture as SVG.

        Raises:
            MissingExtraError: if the extra ``draw`` or the program ``dot`` is not installed.
        """
        return drawn(self.to_dot(), path)

    def _repr_svg_(self) -> str | None:
        """What a notebook shows of a plan that is not too large; where nothing can draw, it shows the text."""
        return drawn(self.to_dot(), None, quiet=True) or None if len(self.steps) <= _MOST_DRAWN else None

    def save(self, path: str | Path) -> None:
        """Writes the plan to a file, from which ``load_plan`` makes it again without a search."""
        Path(path).write_text(to_json(self), encoding="utf-8")

    def __str__(self) -> str:
        total = (
            f"plan by {self.order}: {counted(len(self.steps), 'step')} in {counted(self.cost.launches, 'group')}, "
            f"{rounded(self.flops)} flops, width {self.width}, largest table {self.largest:,} entries, "
            f"{in_bytes(self.bytes())}"
        )
        if self.unrolled:
            total += f", {' '.join(self.unrolled)} written out"
        if self.sliced:
            total += f", {self.slices:,} slices over {' '.join(name for name, _ in self.sliced)}"
        rows = [("group", "steps", "operation", "over", "result", "entries")]
        for number, group in enumerate(self.schedule.groups):
            step = group.steps[0]
            rows.append(
                (
                    str(number),
                    str(group.rows),
                    operation(step),
                    _names(step.over),
                    _names(step.out),
                    f"{math.prod(group.result_shape[1:]):,}",
                )
            )
        return f"{total}\n{aligned(rows)}"


def _names(names: tuple[str, ...], limit: int = 40) -> str:
    text = " ".join(names)
    return text if len(text) <= limit else text[: limit - 3] + "..."
