"""The answers of exact queries: mappings from name to value that remember evidence and plan, and print as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sumout.errors import ModelError, nearest
from sumout.infer.answers.continuous import moments_of, states_of
from sumout.infer.answers.joint import Joint
from sumout.plan import EliminationPlan
from sumout.plan.structure import Readout
from sumout.text import aligned

K = TypeVar("K", bound=Readout)
V = TypeVar("V")

_ROWS = 12


class Answer(Mapping[K, V], Generic[K, V]):
    """A mapping from the name of a site or variable (or from several) to its answer.

    Attributes:
        plan: the plan that was run.
        states: state labels by name, where the graph has them.
    """

    def __init__(
        self, values: Mapping[K, V], plan: EliminationPlan, states: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._values = dict(values)
        self.plan = plan
        self.states = states

    def __getitem__(self, name: K) -> V:
        try:
            return self._values[name]
        except KeyError:
            known = [each for each in self if isinstance(each, str)]
            raise KeyError(f"{name!r} is not among the answers.{nearest(str(name), known)}") from None

    def __iter__(self) -> Iterator[K]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return str(self)


class Marginals(Answer[Readout, Any]):
    """Posterior marginals: name to ``sumout.distributions`` object with the plates' batch shape.

    A tuple of names leads to their ``Joint`` table. A node of a network is a ``Categorical`` over its states, in the
    order of ``states[name]``. A site that ``collapse`` integrated out has the distribution of its family.

    Attributes:
        log_evidence: the natural logarithm of the probability of what was observed.
        tables: those of discrete sites as plain tensors of probabilities, the states last.
    """

    def __init__(
        self,
        tables: Mapping[Readout, Tensor],
        wrap: Callable[[Readout, Tensor], Any],
        plan: EliminationPlan,
        states: Mapping[str, tuple[str, ...]],
        log_evidence: Tensor,
        continuous: Mapping[Readout, Callable[[], Any]] = MappingProxyType({}),
        unknown: Mapping[Readout, Callable[[], Any]] = MappingProxyType({}),
    ) -> None:
        super().__init__({}, plan, states)
        self.tables = tables
        self.log_evidence = log_evidence
        self._wrap = wrap
        self._continuous, self._unknown = continuous, unknown

    def __getitem__(self, name: Readout) -> Any:
        if name not in self._values:  # Made when first looked at: that takes time.
            if name in self.tables:
                self._values[name] = self._wrap(name, self.tables[name])
            elif name in self._continuous:
                self._values[name] = self._continuous[name]()
            elif name in self._unknown:
                self._unknown[name]()  # Raises, and tells why there is none.
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[Readout]:
        return iter([*self.tables, *self._continuous])

    def __len__(self) -> int:
        return len(self.tables) + len(self._continuous)

    def __str__(self) -> str:
        rows = [("name", "element", "marginal")]
        tables = []
        for name, each in self.items():
            if name in self._continuous:
                title = name if isinstance(name, str) else ", ".join(name)
                probs = states_of(each)
                told = moments_of(each) if probs is None else _elements(probs, None)
                rows += [(_shorten(title, 30), *cells) for cells in told]
            elif isinstance(name, str):
                labels = self.states.get(name)
                rows += [(name, element, text) for element, text in _elements(_probabilities(each), labels)]
            else:
                tables.append(str(each))
        rows += [(str(name), "", "no closed form; posterior_samples draws it") for name in self._unknown]
        text = _headline("log evidence", self.log_evidence)
        if len(rows) > 1:
            text += "\n" + _table(rows)
        return "\n\n".join([text, *tables])


class Beliefs(Answer[str, Joint]):
    """Joint posteriors of the variables of factors: name of the factor to ``Joint`` table.

    ``log_evidence`` is the natural logarithm of the probability of what was observed.
    """

    def __init__(
        self,
        values: Mapping[str, Joint],
        plan: EliminationPlan,
        states: Mapping[str, tuple[str, ...]],
        log_evidence: Tensor,
    ) -> None:
        super().__init__(values, plan, states)
        self.log_evidence = log_evidence

    def __str__(self) -> str:
        tables = [f"factor {name}\n{each}" for name, each in self.items() if each.names]
        return "\n\n".join([_headline("log evidence", self.log_evidence), *tables])


class Assigned(Answer[str, Tensor]):
    """Values by name, with ``log_prob``; ``log_evidence`` is computed when it is first read."""

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

    @cached_property
    def log_evidence(self) -> Tensor:
        """The natural logarithm of the probability of what was observed."""
        return self._ask_evidence()


class Assignment(Assigned):
    """A most probable joint assignment: name to value (for a network, the index of the state).

    ``log_prob`` is the logarithm of the joint probability of the assignment and what was observed.
    ``labels`` gives a network's states by name; ``log_evidence`` is computed when it is first read. ``left_out`` tells
    of sites that are no part of it why; asked for one of them it raises ``ModelError``.
    """

    left_out: Mapping[str, str] = MappingProxyType({})

    def __getitem__(self, name: str) -> Tensor:
        if name in self.left_out:
            raise ModelError(self.left_out[name])
        return super().__getitem__(name)

    @property
    def labels(self) -> dict[str, Any]:
        """The assignment in state labels, where there are any; else in plain numbers; nested by rows and plates."""
        return {
            name: _labelled(value.tolist(), self.states[name]) if name in self.states else value.tolist()
            for name, value in self.items()
        }

    def __str__(self) -> str:
        rows = [
            ("name", "value"),
            *((name, _shorten(_written(value))) for name, value in self.labels.items()),
            *((name, "left out: a prediction") for name in self.left_out),
        ]
        return _headline("log probability", self.log_prob) + "\n" + _table(rows)


class MarginalAssignment(Assignment):
    """A most probable assignment of some variables, with all others summed out.

    ``width`` is the induced width of the constrained order: variables in the largest scope that it meets, less one.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        plan: EliminationPlan,
        states: Mapping[str, tuple[str, ...]],
        log_prob: Tensor,
        log_evidence: Callable[[], Tensor],
        widest_factor: int,
    ) -> None:
        super().__init__(values, plan, states, log_prob, log_evidence)
        self.width = max(widest_factor - 1, plan.width)


class MaxMarginals(Answer[str, Tensor]):
    """Log-probabilities of the best assignment with each state: name to a tensor ``(*batch_shape, states)``.

    ``log_prob`` is that of the best assignment of all.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        plan: EliminationPlan,
        states: Mapping[str, tuple[str, ...]],
        log_prob: Tensor,
    ) -> None:
        super().__init__(values, plan, states)
        self.log_prob = log_prob

    def __str__(self) -> str:
        rows = [("name", "element", "log probability at best")]
        for name, logs in self.items():
            rows += [(name, *cells) for cells in _elements(logs.detach(), self.states.get(name))]
        return f"log probability {float(self.log_prob.detach()):.6f}\n" + _table(rows)


class BestAssignments(Assigned):
    """The most probable joint assignments, best first along dimension 0: name to values.

    ``log_prob`` has the logarithm of the joint probability of each and what was observed; ``log_evidence`` is
    computed when it is first read.
    """

    def __str__(self) -> str:
        return _numbered("rank", self, self.log_prob)


class PosteriorSamples(Answer[str, Tensor]):
    """Joint samples from the posterior: name to values, the samples along dimension 0.

    Attributes:
        log_prob: each sample's posterior log-probability, shape ``(samples,)``.
        log_evidence: the natural logarithm of the probability of what was observed.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        plan: EliminationPlan,
        states: Mapping[str, tuple[str, ...]],
        log_prob: Tensor,
        log_evidence: Tensor,
    ) -> None:
        super().__init__(values, plan, states)
        self.log_prob = log_prob
        self.log_evidence = log_evidence

    @property
    def log_joint(self) -> Tensor:
        """The logarithm of the joint probability of each sample and what was observed, shape ``(samples,)``."""
        return self.log_prob + self.log_evidence

    def __str__(self) -> str:
        return f"log evidence {float(self.log_evidence):.6f}\n" + _numbered("sample", self, self.log_prob)


def _numbered(title: str, answer: Answer[str, Tensor], log_prob: Tensor) -> str:
    """Assignments as a table, a row each."""
    rows = [(title, *answer, "log probability")]
    for number, logs in enumerate(log_prob.tolist()[:_ROWS]):
        cells = [_label(answer.states.get(name), value[number]) for name, value in answer.items()]
        rows.append((str(number), *cells, f"{logs:.4f}"))
    more = f"\n({len(log_prob) - _ROWS} more)" if len(log_prob) > _ROWS else ""
    return aligned(rows) + more


def _label(labels: tuple[str, ...] | None, value: Tensor) -> str:
    """A value as its state label, where it has one, else as plain numbers."""
    return labels[int(value)] if labels and value.ndim == 0 else _shorten(_written(value.tolist()), 24)


def _written(value: Any) -> str:
    """Values, nested in lists, with few digits."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    text = str(value)
    return f"{value:.4g}" if isinstance(value, float) and len(text) > 6 else text


def _labelled(value: Any, labels: tuple[str, ...]) -> Any:
    """State labels for indices, in lists like theirs."""
    return [_labelled(each, labels) for each in value] if isinstance(value, list) else labels[int(value)]


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


def _headline(what: str, value: Tensor) -> str:
    """A number, or the first of the numbers of the rows of a table of evidence."""
    numbers = value.detach().reshape(-1).tolist()
    text = ", ".join(f"{each:.6f}" for each in numbers[:4])
    return f"{what} {text}" + (f", ... ({len(numbers)} rows)" if len(numbers) > 4 else "")


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    if all(not row[1] for row in rows[1:]) and len(rows[0]) > 2:
        rows = [(row[0], *row[2:]) for row in rows]
    return aligned(rows)
