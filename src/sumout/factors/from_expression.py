"""A lazy funsor expression read as a factor graph.

The walk goes from the root to the leaves and carries what encloses a node: the names bound so far, the
plates, and the two kinds of power. ``scale`` multiplies what stands outside all sums over variables; it is
the factors' scale. ``power`` multiplies what stands inside one: a table is raised to it, a sum over
variables gets a plate with one element and that scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from funsor import ops
from funsor.cnf import Contraction
from funsor.tensor import Tensor
from funsor.terms import Align, Binary, Funsor, Number, Reduce

from sumout.errors import GraphError
from sumout.factors.parts import Factor, GraphData, Plate, Variable
from sumout.factors.to_expression import BOUND


@dataclass(frozen=True)
class _Node:
    """A subexpression and what encloses it; ``names`` maps names bound in funsor to names of the graph."""

    expression: Any
    names: Mapping[str, str]
    plates: frozenset[str] = frozenset()
    summed: bool = False  # inside a sum over variables
    scale: float = 1.0
    power: float = 1.0

    def times(self, number: float) -> _Node:
        if self.summed:
            return replace(self, power=self.power * number)
        return replace(self, scale=self.scale * number)


def read_expression(expression: Any) -> GraphData:
    """The content of ``FactorGraph.from_funsor``, not yet checked."""
    if not isinstance(expression, Funsor):
        raise GraphError(f"Only a funsor can be read as a factor graph, not {type(expression).__name__}.")
    return _Reader().read(expression)


class _Reader:
    """Collects the parts of the graph while it walks; used once."""

    def __init__(self) -> None:
        self.factors: list[Factor] = []
        self.variables: dict[str, Variable] = {}
        self.plates: dict[str, Plate] = {}
        self.constants: list[int] = []  # factors from Numbers, which have no dtype of their own

    def read(self, expression: Any) -> GraphData:
        stack = [_Node(expression, {})]
        while stack:
            # Reversed, so that factors come in the order in which they are written.
            stack.extend(reversed(list(self.children(stack.pop()))))
        constants = set(self.constants)
        like = next((each.data for index, each in enumerate(self.factors) if index not in constants), None)
        if like is not None:
            for index in constants:
                constant = self.factors[index]
                self.factors[index] = replace(constant, data=constant.data.to(like.device, like.dtype))
        return GraphData(tuple(self.factors), self.variables, self.plates)

    def children(self, node: _Node) -> Iterator[_Node]:
        expression = node.expression
        if isinstance(expression, Number):
            self.add_number(node)
        elif isinstance(expression, Tensor):
            self.add_table(node)
        elif isinstance(expression, Align):
            yield replace(node, expression=expression.arg)
        elif isinstance(expression, Reduce):
            yield self.reduced(node, expression.op, expression.reduced_vars, expression.arg)
        elif isinstance(expression, Binary):
            yield from self.combined(node, expression.op, (expression.lhs, expression.rhs))
        elif isinstance(expression, Contraction):
            inner = node
            if expression.reduced_vars:
                inner = self.reduced(node, expression.red_op, expression.reduced_vars, expression)
            yield from self.combined(inner, expression.bin_op, expression.terms)
        else:
            raise GraphError(
                f"A {type(expression).__name__} cannot be read as a part of a factor graph: only Tensor, "
                "Number, Binary, Reduce and Contraction can. Evaluate it first."
            )

    def combined(self, node: _Node, op: Any, terms: tuple[Any, ...]) -> Iterator[_Node]:
        """The terms of a sum, or the one term that is multiplied by numbers."""
        if op is ops.add or len(terms) == 1:
            yield from (replace(node, expression=term) for term in terms)
            return
        numbers = [term.data for term in terms if isinstance(term, Number)]
        if op is not ops.mul or len(numbers) < len(terms) - 1:
            kinds = ", ".join(type(term).__name__ for term in terms)
            raise GraphError(
                f"{getattr(op, '__name__', op)!r} of {kinds} is no step of a log-space sum-product: terms "
                "are added, or multiplied by a Number."
            )
        number = math.prod(numbers)
        if not (math.isfinite(number) and number > 0):
            raise GraphError(f"A term is multiplied by {number}: a power is a finite number above 0.")
        rest = [term for term in terms if not isinstance(term, Number)] or [Number(1.0)]
        product = _reduced_plates(rest[0])
        if len(product) == 1:
            # The number is the plate's own scale.
            name, size = product[0]
            inner = self.in_plate(replace(node, expression=rest[0]), name, Plate(size, number))
            if isinstance(rest[0], Reduce):
                yield replace(inner, expression=rest[0].arg)
            else:
                yield from self.combined(inner, rest[0].bin_op, rest[0].terms)
        else:
            yield replace(node, expression=rest[0]).times(number)

    def reduced(self, node: _Node, op: Any, bound: frozenset[Any], arg: Any) -> _Node:
        """The body of a reduction, its names bound to variables or plates of the graph."""
        sizes = {
            variable.name: variable.output for variable in sorted(bound, key=lambda each: str(each.name))
        }
        for name, domain in sizes.items():
            if not isinstance(domain.dtype, int) or domain.shape:
                raise GraphError(
                    f"{name!r} is {domain}: only inputs with finitely many states can be reduced."
                )
        if op is ops.logaddexp:
            return self.in_sum(node, {name: domain.size for name, domain in sizes.items()}, arg)
        if op is not ops.add:
            raise GraphError(
                f"A reduction by {getattr(op, '__name__', op)!r} is no step of a log-space sum-product: "
                "variables are reduced by logaddexp, plates by add."
            )
        if node.summed and node.power != 1:
            node = self.powered(node)
        for name, domain in sizes.items():
            node = self.in_plate(node, name, Plate(domain.size))
        return replace(node, expression=arg)

    def in_sum(self, node: _Node, sizes: Mapping[str, int], arg: Any) -> _Node:
        if node.power != 1:
            node = self.powered(node)
        names = dict(node.names)
        for name, size in sizes.items():
            names[name] = self.free_name(name)
            self.variables[names[name]] = Variable(size, node.plates)
        return replace(node, expression=arg, names=names, summed=True)

    def in_plate(self, node: _Node, name: str, plate: Plate) -> _Node:
        base = name.split(BOUND)[0]
        known, count = base, 1
        # A plate of the same name is the same plate, unless it differs or encloses this one.
        while known in self.variables or (
            known in self.plates and (self.plates[known] != plate or known in node.plates)
        ):
            count += 1
            known = f"{base}_{count}"
        self.plates[known] = plate
        return replace(node, names={**node.names, name: known}, plates=node.plates | {known})

    def powered(self, node: _Node) -> _Node:
        """The power of a whole sum, as a plate of one element."""
        return self.in_plate(replace(node, power=1.0), "power", Plate(1, node.power))

    def free_name(self, name: str) -> str:
        base = name.split(BOUND)[0]
        free, count = base, 1
        while free in self.variables or free in self.plates:
            count += 1
            free = f"{base}_{count}"
        return free

    def add_number(self, node: _Node) -> None:
        if node.expression.data == 0:
            return  # the empty sum
        data = torch.tensor(float(node.expression.data) * node.power, dtype=torch.get_default_dtype())
        self.constants.append(len(self.factors))
        self.factors.append(Factor("constant", (), data, node.plates, node.scale))

    def add_table(self, node: _Node) -> None:
        term = node.expression
        if term.output.shape or term.dtype != "real":
            raise GraphError(f"A table of a factor graph has real scalars as entries, not {term.output}.")
        free = [name for name in term.inputs if name not in node.names]
        if free:
            raise GraphError(
                f"The inputs {free} of a Tensor are not reduced: reduce variables by ops.logaddexp and "
                "plates by ops.add."
            )
        data = term.data
        inputs: list[str] = []
        for name in term.inputs:
            known, dim = node.names[name], len(inputs)
            # A stride of zero says that the table is constant along the plate, as it is when we write one.
            if known in self.plates and data.stride(dim) == 0:
                data = data.select(dim, 0)
            else:
                inputs.append(known)
        data = data if node.power == 1 else data * node.power
        self.factors.append(
            Factor(",".join(inputs) or "constant", tuple(inputs), data, node.plates, node.scale)
        )


def _reduced_plates(expression: Any) -> list[tuple[str, int]]:
    """The plates that the outermost node of the expression reduces."""
    if isinstance(expression, Contraction):
        op: Any = expression.red_op
    elif isinstance(expression, Reduce):
        op = expression.op
    else:
        return []
    return [(var.name, var.output.size) for var in expression.reduced_vars] if op is ops.add else []
