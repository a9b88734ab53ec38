"""A factor graph as text: a table to read, and DOT to draw."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sumout.factors.parts import GraphData
from sumout.text import aligned

Rows = list[tuple[str, ...]]

MOST_ROWS = 40
"""How many rows of one kind the text table shows."""

MOST_DRAWN = 300
"""How many factors a graph may have to be drawn without being asked."""


def table(graph: GraphData) -> str:
    """The graph as an aligned text table: plates, variables, factors."""
    counts = ", ".join(
        f"{len(items)} {kind}{'' if len(items) == 1 else 's'}"
        for items, kind in ((graph.factors, "factor"), (graph.variables, "variable"), (graph.plates, "plate"))
    )
    entries = sum(factor.data.numel() for factor in graph.factors)
    blocks = [f"FactorGraph: {counts}, {entries} table entries"]
    if graph.plates:
        rows: Rows = [(name, str(plate.size), f"{plate.scale:g}") for name, plate in graph.plates.items()]
        blocks.append(_listed(("plate", "size", "scale"), rows))
    if graph.variables:
        rows = [
            (name, str(variable.size), _names(variable.plates), " ".join(graph.states.get(name, ())))
            for name, variable in graph.variables.items()
        ]
        blocks.append(_listed(("variable", "size", "plates", "states"), rows))
    if graph.factors:
        scaled = any(factor.scale != 1 for factor in graph.factors)
        rows = [
            (
                factor.name,
                " ".join(factor.inputs),
                "x".join(map(str, factor.data.shape)),
                _names(factor.plates),
            )
            + ((f"{factor.scale:g}",) if scaled else ())
            for factor in graph.factors
        ]
        blocks.append(_listed(("factor", "inputs", "shape", "plates") + ("scale",) * scaled, rows))
    return "\n\n".join(blocks)


def _names(plates: Collection[str]) -> str:
    return " ".join(sorted(plates))


def _listed(header: Sequence[str], rows: Rows) -> str:
    shown = [header, *rows[:MOST_ROWS]]
    # A column without a single value tells nothing.
    kept = [column for column in range(len(header)) if any(row[column] for row in rows)]
    text = aligned([[row[column] for column in kept] for row in shown])
    return f"{text}\n... {len(rows) - MOST_ROWS} more" if len(rows) > MOST_ROWS else text


def dot(graph: GraphData) -> str:
    """The bipartite graph in DOT; a cluster per ordinal, inside that of the largest ordinal it contains."""
    members: dict[frozenset[str], list[str]] = {frozenset(): []}
    for name, variable in graph.variables.items():
        label = f"{name}\n{variable.size} states"
        members.setdefault(variable.plates, []).append(f"{_quoted('v:' + name)} [label={_quoted(label)}];")
    edges: list[str] = []
    for index, factor in enumerate(graph.factors):
        node = _quoted(f"f:{index}")
        members.setdefault(factor.plates, []).append(f"{node} [shape=box, label={_quoted(factor.name)}];")
        edges += [f"  {node} -- {_quoted('v:' + name)};" for name in factor.inputs if name in graph.variables]
    children: dict[frozenset[str], list[frozenset[str]]] = {ordinal: [] for ordinal in members}
    for ordinal in sorted(members, key=sorted):
        if ordinal:
            inside = [other for other in members if other < ordinal]
            children[max(inside, key=lambda other: (len(other), sorted(other)))].append(ordinal)
    numbers = {ordinal: number for number, ordinal in enumerate(members)}

    def cluster(ordinal: frozenset[str], parent: frozenset[str], indent: str) -> Iterable[str]:
        new = ", ".join(f"{plate} ({graph.plates[plate].size})" for plate in sorted(ordinal - parent))
        yield f"{indent}subgraph {_quoted(f'cluster_{numbers[ordinal]}')} {{"
        yield f"{indent}  label={_quoted(new)};"
        yield from body(ordinal, indent + "  ")
        yield f"{indent}}}"

    def body(ordinal: frozenset[str], indent: str) -> Iterable[str]:
        yield from (indent + line for line in members[ordinal])
        for child in children[ordinal]:
            yield from cluster(child, ordinal, indent)

    return "\n".join(["graph {", *body(frozenset(), "  "), *edges, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
