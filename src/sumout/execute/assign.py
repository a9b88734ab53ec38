"""The best assignment: the plan walked in reverse, each maximum taken where its parents' choices point."""

from __future__ import annotations

from torch import Tensor

from sumout.execute.sweep import Tape
from sumout.execute.walk import Choice, walk
from sumout.plan import EliminationPlan


def best_assignment(plan: EliminationPlan, tape: Tape) -> dict[str, Choice]:
    """A maximum of the joint distribution.

    Args:
        plan: the plan that was run.
        tape: its forward sweep with ``maximum=True`` and operands kept.

    Returns:
        For every variable that some factor mentions, its state. Where several assignments are best, one of
        them is returned as a whole: no variable is chosen apart from the others.
    """
    choices = walk(plan, tape, _best)
    return {name: Choice(choice.states[0], choice.plates) for name, choice in choices.items()}


def _best(weights: Tensor, _: slice) -> Tensor:
    return weights.argmax(-1)
