"""The written specification of a factor graph."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import torch

from sumout.errors import GraphError, nearest
from sumout.factors.parts import Factor, GraphData
from sumout.plan.components import components


def check(graph: GraphData) -> None:
    """Raises `GraphError`, naming the factor, input and sizes, unless all of this holds.

    Names
        1. A name is a non-empty string, and a variable or a plate, never both.
        2. Sizes are integers of at least 1. Scales are finite and above 0.
        3. The plates of a variable are plates of the graph.
        4. State labels belong to a variable, are as many as its states, and are distinct strings.
    Each factor
        5. Its inputs are distinct names of variables and plates; its plates are plates of the graph.
        6. Its table has one dim per input, of the size of that input.
        7. Its plates contain the plates among its inputs, and the plates of its variables.
        8. Its table is a tensor of a real floating dtype, without NaN or +inf (-inf is probability 0).
    All factors
        9. They have one dtype and one device.
        10. Factors that are connected by variables have one scale.
    """
    _check_names(graph)
    _check_states(graph)
    for factor in graph.factors:
        _check_inputs(graph, factor)
        _check_table(graph, factor)
    _check_agreement(graph)
    for factor in graph.factors:
        _check_values(factor)


def _check_names(graph: GraphData) -> None:
    for kind, names in (("variable", graph.variables), ("plate", graph.plates)):
        for name in names:
            if not isinstance(name, str) or not name:
                raise GraphError(f"The name of a {kind} is a non-empty string, not {name!r}.")
            _check_size(f"The {kind} {name!r}", graph.size(name))
    both = sorted(set(graph.variables) & set(graph.plates))
    if both:
        raise GraphError(f"{both[0]!r} is both a variable and a plate. Rename one of them.")
    for name, plate in graph.plates.items():
        _check_scale(f"The plate {name!r}", plate.scale)
    for name, variable in graph.variables.items():
        for plate_name in sorted(variable.plates):
            if plate_name not in graph.plates:
                raise GraphError(
                    f"The variable {name!r} lives in {plate_name!r}, which is no plate of the graph."
                    + nearest(plate_name, graph.plates)
                )


def _check_size(what: str, size: int) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise GraphError(f"{what} has size {size!r}: a size is an integer of at least 1.")


def _check_scale(what: str, scale: float) -> None:
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
        raise GraphError(f"{what} has scale {scale!r}: a scale is a finite number above 0.")


def _check_states(graph: GraphData) -> None:
    for name, labels in graph.states.items():
        variable = graph.variables.get(name)
        if variable is None:
            raise GraphError(
                f"There are state labels for {name!r}, which is no variable of the graph."
                + nearest(name, graph.variables)
            )
        if len(labels) != variable.size:
            raise GraphError(
                f"The variable {name!r} has {variable.size} states but {len(labels)} labels: {labels}."
            )
        if len(set(labels)) < len(labels):
            repeated = min(label for label, count in Counter(labels).items() if count > 1)
            raise GraphError(f"Two states of the variable {name!r} are both labelled {repeated!r}.")


def _check_inputs(graph: GraphData, factor: Factor) -> None:
    for position, name in enumerate(factor.inputs):
        if name not in graph.variables and name not in graph.plates:
            raise GraphError(
                f"The factor {factor.name!r} has the input {name!r}, no variable or plate of the graph."
                + nearest(name, [*graph.variables, *graph.plates])
            )
        if name in factor.inputs[:position]:
            raise GraphError(f"The factor {factor.name!r} has the input {name!r} twice: {factor.inputs}.")
    for plate in sorted(factor.plates):
        if plate not in graph.plates:
            raise GraphError(
                f"The factor {factor.name!r} lives in {plate!r}, which is no plate of the graph."
                + nearest(plate, graph.plates)
            )
    for name in factor.inputs:
        variable = graph.variables.get(name)
        needed: frozenset[str] = variable.plates if variable is not None else frozenset([name])
        missing = sorted(needed - factor.plates)
        if missing:
            what = f"its variable {name!r} lives in" if variable is not None else "it has as an input"
            raise GraphError(
                f"The factor {factor.name!r} lives in the plates {sorted(factor.plates)}, but {what} "
                f"{missing[0]!r}: a factor's plates contain those of its inputs."
            )


def _check_table(graph: GraphData, factor: Factor) -> None:
    data = factor.data
    if not isinstance(data, torch.Tensor) or not data.dtype.is_floating_point:
        found = data.dtype if isinstance(data, torch.Tensor) else type(data).__name__
        raise GraphError(
            f"The table of factor {factor.name!r} is of {found}: it must be a real floating tensor."
        )
    sizes: Mapping[str, int] = {name: graph.size(name) for name in factor.inputs}
    if tuple(data.shape) != tuple(sizes.values()):
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise GraphError(
            f"The table of factor {factor.name!r} has shape {tuple(data.shape)}, but its inputs have the "
            f"sizes ({listed})."
        )
    _check_scale(f"The factor {factor.name!r}", factor.scale)


def _check_values(factor: Factor) -> None:
    # The largest entry is NaN if any is, +inf if any other is.
    if factor.data.numel() and not factor.data.detach().max().item() < math.inf:
        raise GraphError(
            f"The table of factor {factor.name!r} contains NaN or +inf. Entries are log-values: finite, "
            "or -inf for probability zero."
        )


def _check_agreement(graph: GraphData) -> None:
    for factor in graph.factors:
        for what in ("dtype", "device"):
            mine, others = getattr(factor.data, what), getattr(graph.factors[0].data, what)
            if mine != others:
                raise GraphError(
                    f"The factor {factor.name!r} has {what} {mine}, but {graph.factors[0].name!r} has "
                    f"{others}: all tables of a graph have one {what}."
                )
    if all(factor.scale == 1 for factor in graph.factors):
        return
    for component in components(graph.factors, graph.variables):
        for factor in component[1:]:
            if factor.scale != component[0].scale:
                raise GraphError(
                    f"The factors {component[0].name!r} and {factor.name!r} are connected by variables but "
                    f"have the scales {component[0].scale} and {factor.scale}: they must have one."
                )
