"""The answers of exact queries: mappings from name to value that remember evidence and plan, and print as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sumout.distributions import Distribution
from sumout.errors import nearest
from sumout.plan import EliminationPlan
from sumout.text import aligned

V = TypeVar("V")

_ROWS = 12


class Answer(Mapping[str, V], Generic[V]):
    """A mapping from the name of a site or variable to its answer.

    Attributes:
        plan: the plan that was run.
        states: state labels by name, where the graph has them.
    """

    def __init__(
        self, values: Mapping[str, V], plan: EliminationPlan, states: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._values = dict(values)
        self.plan = plan
        self.states = states

    def __getitem__(self, name: str) -> V:
        try:
            return self._values[name]
        except KeyError:
            raise KeyError(f"{name!r} is not among the answers.{nearest(name, self._values)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return str(self)


class Marginals(Answer[Distribution]):
    """Posterior marginals: name to ``sumout.distributions`` object with the plates' batch shape.

    ``log_evidence`` is the natural logarithm of the probability of what was observed. A node of a network is a
    ``Categorical`` over its states, in the order of ``states[name]``.
    """

    def __init__(
        self,
        values: Mapping[str, Distribution],
        plan: EliminationPlan,
        states: Mapping[str, tuple[str, ...]],
        log_evidence: Tensor,
    ) -> None:
        super().__init__(values, plan, states)
        self.log_evidence = log_evidence

    def __str__(self) -> str:
        rows = [("name", "element", "marginal")]
        for name, each in self.items():
            rows += [
                (name, element, text)
                for element, text in _elements(_probabilities(each), self.states.get(name))
            ]
        return f"log evidence {float(self.log_evidence.detach()):.6f}\n" + _table(rows)


class Assignment(Answer[Tensor]):
    """A most probable joint assignment: name to value (for a network, the index of the state).

    ``log_prob`` is the logarithm of the joint probability of the assignment and what was observed.
    ``labels`` gives a network's states by name; ``log_evidence`` is computed when it is first read.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        plan: EliminationPlan,
        states: Mapping[str, tuple[str, ...]],
        log_prob: Tensor,
        log_evidence: Callable[[], Tensor],
    ) -> None:
        super().__init__(values, plan, states)
        self.log_prob = log_prob
        self._ask_evidence = log_evidence
        self._log_evidence: Tensor | None = None

    @property
    def log_evidence(self) -> Tensor:
        """The natural logarithm of the probability of what was observed."""
        if self._log_evidence is None:
            self._log_evidence = self._ask_evidence()
        return self._log_evidence

    @property
    def labels(self) -> dict[str, Any]:
        """The assignment in state labels, where there are any; else in plain numbers, nested by plates."""
        return {
            name: self.states[name][int(value)] if name in self.states and value.ndim == 0 else value.tolist()
            for name, value in self.items()
        }

    def __str__(self) -> str:
        rows = [("name", "value"), *((name, _shorten(str(value))) for name, value in self.labels.items())]
        return f"log probability {float(self.log_prob.detach()):.6f}\n" + _table(rows)


def _probabilities(marginal: Any) -> Tensor:
    """One row of probabilities for each element of a marginal's batch."""
    if (
        hasattr(marginal, "enumerate_support")
        and marginal.has_enumerate_support
        and marginal.event_shape == ()
    ):
        support = marginal.enumerate_support(expand=False)
        logs = marginal.log_prob(support.reshape(-1, *(1,) * len(marginal.batch_shape)))
        return torch.as_tensor(logs.detach().exp().movedim(0, -1))
    probs = marginal.probs if hasattr(marginal, "probs") else marginal.log_weights.exp()
    return torch.as_tensor(probs.detach())


def _elements(probs: Tensor, labels: tuple[str, ...] | None) -> Iterator[tuple[str, str]]:
    batch = probs.shape[:-1]
    flat = probs.reshape(-1, probs.shape[-1])
    for number, row in enumerate(flat[:_ROWS]):
        index = [int(each) for each in torch.unravel_index(torch.tensor(number), batch)] if batch else []
        states = labels or tuple(map(str, range(len(row))))
        cells = [f"{state}: {float(p):.4f}" for state, p in zip(states, row, strict=True)]
        yield ", ".join(map(str, index)), _shorten("  ".join(cells), 90)
    if len(flat) > _ROWS:
        yield "...", f"({len(flat) - _ROWS} more)"


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    if all(not row[1] for row in rows[1:]) and len(rows[0]) > 2:
        rows = [(row[0], *row[2:]) for row in rows]
    return aligned(rows)
