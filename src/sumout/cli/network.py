"""What both commands begin with: a network and evidence about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sumout.cli.evidence import gather
from sumout.factors import FactorGraph
from sumout.io import Network, parse_network
from sumout.io.source import read_text


@dataclass(frozen=True)
class Question:
    """A network with evidence.

    Attributes:
        title: the file's name.
        network: what the file says.
        graph: the same as a factor graph.
        evidence: node -> position of its observed state.
    """

    title: str
    network: Network
    graph: FactorGraph
    evidence: dict[str, int]

    @property
    def observed(self) -> dict[str, str]:
        """Node -> label of its observed state, in the network's order."""
        states = self.network.states
        return {name: labels[self.evidence[name]] for name, labels in states.items() if name in self.evidence}


def ask(path: str, evidence: Sequence[str], evidence_file: str | None) -> Question:
    """Reads the network and the evidence."""
    network = parse_network(path, read_text(path))
    return Question(
        Path(path).name, network, network.to_graph(), gather(network.states, evidence, evidence_file)
    )
