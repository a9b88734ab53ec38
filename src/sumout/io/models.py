"""Tables that come as arrays, from models of other libraries, become a network: the checks that they need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from sumout.errors import GraphError
from sumout.io.conditionals import Conditionals
from sumout.io.network import MOST_DIMS, Complaint, Network, Table


@dataclass(frozen=True)
class Part:
    """A table of a model.

    Attributes:
        scope: its variables; for a conditional table the child last.
        states: the labels of each of these.
        entries: one dim a variable; anything that is an array of numbers.
    """

    scope: tuple[str, ...]
    states: tuple[tuple[str, ...], ...]
    entries: Any

    def array(self) -> Table:
        """The entries, checked.

        Raises:
            GraphError: they are of another shape, negative or not finite.
        """
        array = torch.as_tensor(self.entries).detach().to("cpu", torch.float64).numpy()
        shape = tuple(map(len, self.states))
        what = f"The table over {', '.join(self.scope) or 'no variables'}"
        if array.shape != shape:
            raise GraphError(
                f"{what} has shape {array.shape}, but its variables have {shape} states: give each entry."
            )
        if len(shape) > MOST_DIMS:
            raise GraphError(f"{what} has {len(shape)} variables; {MOST_DIMS} are the most.")
        wrong = array[~(np.isfinite(array) & (array >= 0))]
        if wrong.size:
            raise GraphError(f"{what} has the entry {wrong[0]:g}; entries are finite and not negative.")
        return array


def bayesian_network(nodes: Iterable[str], parts: Iterable[Part]) -> Network:
    """The Bayesian network of conditional tables; rows are normalised.

    Raises:
        GraphError: a variable has no table or two, a row is off 1 by more than 1e-3, the parents form a cycle,
            or two tables list a variable's states differently.
    """
    found = Conditionals()
    of_child: dict[str, Part] = {}
    for part in parts:
        if part.scope[-1] in of_child:
            raise GraphError(f"There are two tables of {part.scope[-1]!r}: give one for each variable.")
        of_child[part.scope[-1]] = part
    for name in nodes:
        if name not in of_child:
            raise GraphError(f"The variable {name!r} has no table of probabilities: add one to the model.")
        found.declare(name, of_child[name].states[-1], _complaint(name))
    for child, part in of_child.items():
        for name, labels in zip(part.scope, part.states, strict=True):
            found.known(name, _complaint(child))
            _same(name, found.states[name], labels)
        complaint = _complaint(child)
        found.define(child, part.scope[:-1], part.array().ravel(), complaint, partial(_anywhere, complaint))
    return found.network(GraphError)


def markov_network(parts: Iterable[Part]) -> Network:
    """The Markov network of any tables.

    Raises:
        GraphError: two tables list a variable's states differently.
    """
    states: dict[str, tuple[str, ...]] = {}
    tables: dict[str, tuple[tuple[str, ...], Table]] = {}
    for number, part in enumerate(parts):
        for name, labels in zip(part.scope, part.states, strict=True):
            _same(name, states.setdefault(name, labels), labels)
        tables[f"function {number} ({', '.join(part.scope)})"] = part.scope, part.array()
    return Network(states, tables, directed=False)


def merged(network: Network) -> Iterator[tuple[tuple[str, ...], Table]]:
    """The tables of a network with those over the same variables multiplied, and constants with the first of all."""
    found: dict[frozenset[str], tuple[tuple[str, ...], Table]] = {}
    constant = 1.0
    for scope, entries in network.tables.values():
        if not scope:
            constant *= float(entries)
            continue
        first, product = found.get(frozenset(scope), (scope, np.ones(())))
        found[frozenset(scope)] = first, product * entries.transpose([scope.index(name) for name in first])
    for scope, entries in found.values():
        yield scope, _finite(scope, entries * constant)
        constant = 1.0


def labels(values: Iterable[Any]) -> tuple[str, ...]:
    """State names of any kind as strings."""
    return tuple(map(str, values))


def _finite(scope: Sequence[str], entries: Table) -> Table:
    if not np.isfinite(entries).all():
        raise GraphError(f"The product of the tables over {', '.join(scope)} is no float.")
    return entries


def _same(name: str, known: tuple[str, ...], listed: tuple[str, ...]) -> None:
    if known != listed:
        raise GraphError(
            f"Two tables list the states of {name!r} differently, {known} and {listed}: give them one order."
        )


def _anywhere(complaint: Complaint, _: int) -> Complaint:
    return complaint


def _complaint(name: str) -> Complaint:
    return lambda problem: GraphError(f"The table of {name!r}: {problem}.")
