"""The elimination tree as DOT, and as a picture where Graphviz is there to draw it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from sumout.errors import MissingExtraError
from sumout.plan.record import PlanRecord


def dot(plan: PlanRecord) -> str:
    """The text of ``EliminationPlan.to_dot``."""
    return "\n".join(["digraph {", '  rankdir="BT";', *_lines(plan), "}"]) + "\n"


def _lines(plan: PlanRecord) -> Iterator[str]:
    sizes = dict(plan.structure.sizes)
    given = len(plan.structure.factors)
    factors = given + len(plan.probes)
    dims = plan.elimination.dims
    for node in range(factors):
        style = "" if node < given else ", style=dashed"
        yield f"  {node} [shape=box{style}, label={_quoted(_table(dims[node], sizes))}];"
    for node, step in enumerate(plan.steps, start=factors):
        what = "max" if step.maximum else "sum" if step.kind != "product" else "product"
        over = f"{what} {' '.join(step.over)}" if step.over else "times" if step.kind != "product" else what
        power = f" to the power {step.times:g}" if step.times != 1.0 else ""
        yield f"  {node} [label={_quoted(f'{over}{power}' + chr(10) + _table(step.out, sizes))}];"
        for arg in step.args:
            yield f"  {arg} -> {node};"
    if plan.elimination.totals:
        yield "  answer [shape=plaintext];"
        for total in plan.elimination.totals:
            weight = f" [label={_quoted(f'{total.weight:g}')}]" if total.weight != 1.0 else ""
            yield f"  {total.node} -> answer{weight};"


def _table(dims: tuple[str, ...], sizes: Mapping[str, int]) -> str:
    if not dims:
        return "1"
    extent = [sizes[each] for each in dims]
    return f"{' '.join(dims)}\n{' x '.join(map(str, extent))} = {math.prod(extent):,}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def drawn(text: str, path: str | Path | None, quiet: bool = False) -> str:
    """A picture of a graph in DOT, as SVG.

    Args:
        text: the graph.
        path: where it is to be written too, in the format of its ending.
        quiet: whether nothing is returned, instead of an error raised, where nothing can draw.

    Raises:
        MissingExtraError: if the package ``graphviz`` or its program ``dot`` is not installed.
    """
    try:
        graphviz = importlib.import_module("graphviz")
    except ImportError:
        if quiet:
            return ""
        raise MissingExtraError("graphviz", "draw", "Drawing") from None
    source = graphviz.Source(text)
    try:
        if path is not None:
            ending = Path(path).suffix.lstrip(".") or "svg"
            Path(path).write_bytes(source.pipe(format=ending))
        return str(source.pipe(format="svg", encoding="utf-8"))
    except graphviz.ExecutableNotFound:
        if quiet:
            return ""
        raise MissingExtraError(
            "graphviz (and the program dot, from https://graphviz.org)", "draw", "Drawing"
        ) from None
