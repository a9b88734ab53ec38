"""What both commands begin with: a network, evidence about it, and what is asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from sumout.cli.evidence import Observed, gather
from sumout.errors import EvidenceError, GraphError, nearest
from sumout.factors import FactorGraph
from sumout.io import Network, parse_network, read_query
from sumout.io.source import read_text


class Numbers(NamedTuple):
    """What the tables are made of, and where: a dtype's name and a device's."""

    dtype: str = "float64"
    device: str = "cpu"


class Drawing(NamedTuple):
    """How many samples are drawn, and from which seed."""

    samples: int = 1
    seed: int | None = None


@dataclass(frozen=True)
class Question:
    """A network with evidence.

    Attributes:
        title: the file's name.
        network: what the file says.
        graph: the same as a factor graph.
        observed: what was observed, once or in many rows.
        asked: the nodes that are asked for.
        named: whether they were named; all are asked for otherwise.
        drawing: how to sample.
    """

    title: str
    network: Network
    graph: FactorGraph
    observed: Observed
    asked: tuple[str, ...]
    named: bool
    drawing: Drawing

    @cached_property
    def generator(self) -> torch.Generator | None:
        """The one source of all random numbers, where a seed was given."""
        if self.drawing.seed is None:
            return None
        device = self.graph.factors[0].data.device if self.graph.factors else "cpu"
        return torch.Generator(device).manual_seed(self.drawing.seed)

    @cached_property
    def evidence(self) -> dict[str, int]:
        """The one observation, or the first of the rows: node -> position of its state."""
        return next(iter(self.observed.part(slice(1)).rows()), {})

    def hidden(self, observed: Collection[str]) -> tuple[str, ...]:
        """The nodes that are asked for and not observed."""
        return tuple([name for name in self.asked if name not in observed])


def ask(
    path: str,
    evidence: Sequence[str] = (),
    evidence_file: str | None = None,
    csv_file: str | None = None,
    query: Sequence[str] = (),
    query_file: str | None = None,
    numbers: Numbers = Numbers(),  # noqa: B008  (a tuple)
    drawing: Drawing = Drawing(),  # noqa: B008  (a tuple)
) -> Question:
    """Reads the network, the evidence and what is asked."""
    network = parse_network(path, read_text(path))
    graph = network.to_graph(getattr(torch, numbers.dtype), _device(numbers.device))
    observed = gather(graph, evidence, evidence_file, csv_file)
    names = _asked(network, query, query_file)
    return Question(
        Path(path).name,
        network,
        graph,
        observed,
        names or tuple(network.states),
        bool(names),
        drawing,
    )


def _asked(network: Network, query: Sequence[str], query_file: str | None) -> tuple[str, ...]:
    """The nodes named, in that order."""
    names: list[str] = []
    for item in query:
        names += [item] if item in network.states else [each.strip() for each in item.split(",")]
    if query_file is not None:
        names += read_query(query_file)
    for name in names:
        if name not in network.states:
            raise EvidenceError(f"The query names {name!r}, which is no node.{nearest(name, network.states)}")
    return tuple(dict.fromkeys(names))


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise GraphError(f"The device {name!r} cannot be used here: {first}") from None
    return device
