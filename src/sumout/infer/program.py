"""Running a program so that its discrete sites are summed out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sumout.effects import Message
from sumout.effects.handlers import BlockMessenger, EnumMessenger, TraceMessenger
from sumout.effects.trace import Trace, site_is_subsample
from sumout.errors import EnumerationError
from sumout.infer.enumerate import config_enumerate


def plate_nesting(trace: Trace) -> int:
    """How many tensor dimensions the plates of a run take up.

    >>> from sumout import plate, sample
    >>> from sumout.effects.handlers import trace
    >>> import sumout.distributions as dist
    >>> def model():
    ...     with plate("data", 3, dim=-2):
    ...         sample("x", dist.Normal(0.0, 1.0))
    >>> plate_nesting(trace(model).get_trace())
    2
    """
    dims = [
        frame.dim
        for site in trace.nodes.values()
        if site.type == "sample"
        for frame in site.cond_indep_stack
        if frame.dim is not None
    ]
    return -min(dims, default=0)


def guess_plate_nesting(program: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """``plate_nesting`` of a trial run that no handler outside sees and that leaves the random state alone."""
    with torch.random.fork_rng(), BlockMessenger(), TraceMessenger() as recorder:
        program(*args, **kwargs)
    return plate_nesting(recorder.trace)


class EnumeratedProgram:
    """A program whose runs are recorded with all finite discrete latent sites enumerated.

    Args:
        program: the model; its own ``infer={"enumerate": ...}`` marks are kept.
        max_plate_nesting: tensor dimensions to leave for plates; found by a trial run if ``None``.
    """

    def __init__(self, program: Callable[..., Any], max_plate_nesting: int | None = None) -> None:
        self.program = program
        self.fixed = max_plate_nesting is not None
        self.max_plate_nesting = max_plate_nesting

    def trace(self, *args: Any, **kwargs: Any) -> Trace:
        """Runs the program once and checks that it can be solved exactly.

        Raises:
            EnumerationError: if a latent site is left that has no finite support or is not enumerated in
                parallel, or if a plate needs more dimensions than ``max_plate_nesting``.
        """
        if self.max_plate_nesting is None:
            self.max_plate_nesting = guess_plate_nesting(self.program, *args, **kwargs)
        nesting = self.max_plate_nesting
        marked = EnumMessenger(first_available_dim=-1 - nesting)(config_enumerate(self.program))
        with TraceMessenger() as recorder:
            marked(*args, **kwargs)
        trace: Trace = recorder.trace
        needed = plate_nesting(trace)
        if needed > nesting:
            if self.fixed:
                raise EnumerationError(
                    f"The plates take up {needed} dims and max_plate_nesting is {nesting}. "
                    f"Give max_plate_nesting={needed}, or leave it out to have it found."
                )
            self.max_plate_nesting = needed
            return self.trace(*args, **kwargs)
        for site in trace.nodes.values():
            settled = site.type != "sample" or site.is_observed or site.enum_dim is not None
            if not settled and not site_is_subsample(site):
                _refuse(site)
        return trace


def _refuse(site: Message) -> None:
    """Says why a latent site that was not enumerated has no exact answer."""
    if site.infer.get("enumerate") == "sequential":
        raise EnumerationError(
            f"Site {site.name!r} is marked for sequential enumeration, which exact queries do not do yet. "
            "Mark it infer={'enumerate': 'parallel'}."
        )
    raise EnumerationError(
        f"Site {site.name!r} is latent with {type(site.fn).__name__} of infinite support, so it cannot be summed out. "
        "Observe it (obs=..., or the condition handler), fix it with a param, or use a guide with TraceEnum_ELBO."
    )
