"""Exact samples of all variables at once: the plan walked in reverse, each state drawn given those drawn before."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sumout.execute.sweep import Tape
from sumout.execute.walk import Choice, walk
from sumout.plan import EliminationPlan


class Samples(NamedTuple):
    """``choices`` have the samples as dimension 0; ``log_prob`` is each one's posterior log-probability.

    ``value`` is the logarithm of the sum over all assignments. There are no samples unless it is a finite number.
    """

    value: Tensor
    choices: dict[str, Choice]
    log_prob: Tensor


def draw(plan: EliminationPlan, tape: Tape, count: int, generator: torch.Generator | None = None) -> Samples:
    """Draws from the posterior.

    Args:
        plan: the plan that was run.
        tape: its forward sweep with ``maximum=False`` and operands kept.
        count: how many samples.
        generator: where random numbers come from; torch's own if ``None``.

    Source: backward sampling for hidden Markov models (Scott, *Bayesian methods for hidden Markov models*,
    2002), which on a general elimination order is the sampling of Dawid, *Applications of a general propagation
    algorithm for probabilistic expert systems* (1992), section 7.
    """
    log_prob = tape.value.new_zeros(count)

    def decide(weights: Tensor, columns: slice) -> Tensor:
        settled, alike, states = weights.shape
        size = columns.stop - columns.start
        logs = torch.log_softmax(weights, -1)
        probs = logs.exp()
        total = probs.cumsum(-1)
        # Where the samples have nothing behind them that they could differ in, they share one distribution.
        shape = (settled, alike, size // alike)
        uniform = torch.rand(shape, dtype=total.dtype, device=total.device, generator=generator)
        index = torch.searchsorted(total, uniform * total[..., -1:], right=True).clamp_(max=states - 1)
        # A sum in another order (on a GPU) may step at a state of probability zero, which must not be drawn.
        index = torch.where(probs.gather(-1, index) > 0, index, probs.argmax(-1, keepdim=True))
        log_prob[columns] += logs.gather(-1, index).reshape(settled, size).sum(0)
        return index.reshape(settled, size)

    if not tape.value.isfinite():
        return Samples(tape.value, {}, log_prob[:0])
    return Samples(tape.value, walk(plan, tape, decide, count), log_prob)
