"""Bounds by visiting every joint value of every discrete site of a guide and a model, one plain run for each.

Nothing of the engine takes part: programs are run without enumeration, and log-probabilities are those of their traces.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

import sumout
from sumout.effects import Messenger, Trace
from sumout.effects.handlers import trace


class Chosen(Messenger):
    """Gives sites chosen values: tensors, or functions of the distribution; notes the sites that have none."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = values
        self.first: Any = None

    def _pyro_sample(self, msg: Any) -> None:
        if msg.is_observed or msg.done:
            return
        if msg.name in self.values:
            value = self.values[msg.name]
            msg.value = value(msg.fn) if callable(value) else value
            msg.done = True
        elif self.first is None and msg.fn.has_enumerate_support:
            self.first = msg.name, msg.fn


def runs(program: Callable[[], Any], values: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Trace]]:
    """The runs at every joint value of the discrete sites that have none yet, with all values."""
    chosen = Chosen(values)
    record = trace(chosen(program)).get_trace()
    if chosen.first is None:
        yield dict(values), record
        return
    name, fn = chosen.first
    support = fn.enumerate_support(expand=False).reshape([-1, *fn.event_shape])
    count = fn.batch_shape.numel()
    for index in itertools.product(range(len(support)), repeat=count):
        value = support[torch.tensor(index)].reshape([*fn.batch_shape, *fn.event_shape])
        yield from runs(program, {**values, name: value})


def plain_log_prob(record: Trace, names: Any) -> Tensor:
    """The log-probability of drawing the values, whatever scales and masks say."""
    found = [record.nodes[name]["unscaled_log_prob"].sum() for name in names]
    return torch.stack(found).sum() if found else torch.zeros((), dtype=torch.float64)


def bound(
    model: Callable[[], Any], guide: Callable[[], Any], fixed: Mapping[str, Any] | None = None
) -> Tensor:
    """``Σ_z q(z) (log Σ_y p(x, y, z) - log q(z))`` by definition; ``fixed`` are values of continuous sites."""
    fixed = fixed or {}
    total = torch.zeros((), dtype=torch.float64)
    for values, guide_trace in runs(guide, fixed):
        drawn = {name: guide_trace.nodes[name]["value"] for name in values if name in guide_trace.nodes}
        discrete = [name for name in drawn if name not in fixed]
        q = plain_log_prob(guide_trace, discrete).exp()
        joint = [torch.as_tensor(record.log_prob_sum()) for _, record in runs(model, drawn)]
        total = total + q * (torch.logsumexp(torch.stack(joint), 0) - guide_trace.log_prob_sum())
    return total


def gradients(value: Tensor) -> dict[str, Tensor]:
    """By the leaves of the parameters in the store."""
    leaves = dict(sumout.get_param_store().named_parameters())
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if each is None else each
        for (name, leaf), each in zip(leaves.items(), found, strict=True)
    }


class Drawn(Messenger):
    """Draws given values at some sites and adds up their log-probabilities; notes the first that has none."""

    def __init__(self, names: Collection[str], values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names, self.values = names, values
        self.first: Any = None
        self.log_probs: dict[str, float] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg.name not in self.names or msg.is_observed or self.first is not None:
            return
        if msg.name not in self.values:
            self.first = msg.name, msg.fn
            return
        msg.value = self.values[msg.name]
        # What a run draws when its program is run again, to be checked, is no draw of its own.
        self.log_probs.setdefault(msg.name, msg.fn.log_prob(msg.value).sum().item())


def mean_over_draws(
    loss: Callable[[Callable[[], Any]], Tensor], guide: Callable[[], Any], names: Collection[str]
) -> tuple[float, dict[str, Tensor]]:
    """The mean of a loss and of its gradients over every joint draw of some discrete sites of the guide.

    A site that is drawn for each value of an enumerated one has all these draws apart.
    """
    mean, grads, waiting = 0.0, dict[str, Tensor](), [dict[str, Tensor]()]
    while waiting:
        values = waiting.pop()
        drawn = Drawn(names, values)
        found = loss(drawn(guide))
        if drawn.first is not None:
            name, fn = drawn.first
            support = fn.enumerate_support(expand=False).reshape([-1, *fn.event_shape])
            for index in itertools.product(range(len(support)), repeat=fn.batch_shape.numel()):
                value = support[torch.tensor(index)].reshape([*fn.batch_shape, *fn.event_shape])
                waiting.append({**values, name: value})
            continue
        weight = math.exp(sum(drawn.log_probs.values()))
        mean += weight * found.item()
        for name, each in gradients(found).items():
            grads[name] = grads.get(name, 0.0) + weight * each
    return mean, grads


def assert_unbiased(
    loss: Callable[[Callable[[], Any]], Tensor],
    guide: Callable[[], Any],
    names: Collection[str],
    exact: Tensor,
) -> None:
    """The mean over all draws is exact, that of the gradients too."""
    mean, grads = mean_over_draws(loss, guide, names)
    torch.testing.assert_close(mean, exact.item(), rtol=1e-9, atol=1e-10)
    for name, each in gradients(exact).items():
        torch.testing.assert_close(grads[name], each, rtol=1e-9, atol=1e-10, msg=f"{{}}: {name}".format)


def assert_same(loss: Tensor, exact: Tensor) -> None:
    """The same number, and the same gradients by all parameters."""
    torch.testing.assert_close(loss, exact, rtol=1e-9, atol=1e-10)
    expected = gradients(exact)
    for name, each in gradients(loss).items():
        torch.testing.assert_close(each, expected[name], rtol=1e-9, atol=1e-10, msg=f"{{}}: {name}".format)
