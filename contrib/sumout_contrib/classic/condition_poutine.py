"""Observing sites from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sumout
from sumout.poutine.condition_messenger import ConditionMessenger
from sumout_contrib.classic.poutine import Poutine, Program


class ConditionPoutine(Poutine, ConditionMessenger):
    """Adds values at sample sites, which become observed: the program no longer samples them.

    Args:
        fn: a program.
        data: values by name, or a trace whose values are taken.

    >>> import torch
    >>> from sumout.distributions import Normal
    >>> from sumout_contrib.classic.trace_poutine import TracePoutine
    >>> def fn():
    ...     return sumout.sample("z", Normal(0.0, 1.0))
    >>> trace = TracePoutine(ConditionPoutine(fn, {"z": torch.tensor(2.0)})).get_trace()
    >>> trace.observation_nodes, trace.log_pdf()
    (['z'], tensor(-2.9189))
    """

    def __init__(self, fn: Program | None, data: Mapping[str, Any] | sumout.poutine.Trace) -> None:
        Poutine.__init__(self, fn)
        ConditionMessenger.__init__(self, data)
