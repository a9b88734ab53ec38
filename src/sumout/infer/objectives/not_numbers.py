"""Losses and gradients that are NaN: what they come from, before a step spoils all parameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sumout.effects.handlers import BlockMessenger, ReplayMessenger, trace
from sumout.effects.handlers.named import unused_names_allowed
from sumout.effects.random_state import kept_rng_state
from sumout.effects.trace import sample_sites
from sumout.errors import ModelError
from sumout.infer.objectives.pair import Program
from sumout.infer.programs.program import Rehearsal

_UNCHANGED = "No parameter was changed by this step."


def refuse_nan_loss(
    loss: float, params: Mapping[str, Tensor], programs: tuple[Program, Program], args: Any, kwargs: Any
) -> None:
    """Raises ``ModelError`` for a loss that is NaN, with the parameters and sites that are."""
    if not math.isnan(loss):
        return
    wrong = [name for name, param in params.items() if not bool(param.isfinite().all())]
    if wrong:
        told = f"Parameter {wrong[0]!r} is {_shown(params[wrong[0]])} (unconstrained)."
    else:
        told = _of_sites(programs, args, kwargs)
    raise ModelError(f"The loss is NaN. {told} {_UNCHANGED}")


def refuse_nan_gradients(params: Mapping[str, Tensor]) -> None:
    """Raises ``ModelError`` for a parameter whose gradient is NaN."""
    gradients = {name: param.grad for name, param in params.items() if param.grad is not None}
    # A norm is NaN if and only if an element is.
    norms = torch._foreach_norm([_elements(each) for each in gradients.values()]) if gradients else ()
    for name, norm in zip(gradients, norms, strict=True):
        if math.isnan(float(norm)):
            raise ModelError(
                f"The gradient of parameter {name!r} is NaN, at {_shown(params[name])} (unconstrained), and the loss "
                "is a number: an operation has no derivative there, as sqrt at 0, even if torch.where leaves its "
                f"value out. Keep its argument away from such places (clamp it before). {_UNCHANGED}"
            )


def _elements(gradient: Tensor) -> Tensor:
    return gradient._values() if gradient.is_sparse else gradient


def _shown(param: Tensor) -> str:
    return str(param.detach().flatten()[:4].tolist()) if param.dim() else str(param.item())


def _of_sites(programs: tuple[Program, Program], args: Any, kwargs: Any) -> str:
    """Which sites of one more run have a log-probability that is no number."""
    model, guide = programs
    found: list[str] = []
    with (
        kept_rng_state(),
        BlockMessenger(),
        Rehearsal(),
        unused_names_allowed(),
        torch.no_grad(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            of_guide = trace(guide).get_trace(*args, **kwargs)
            of_model = trace(ReplayMessenger(trace=of_guide)(model)).get_trace(*args, **kwargs)
            for title, run in (("guide", of_guide), ("model", of_model)):
                for site in sample_sites(run):
                    logs = torch.as_tensor(site["log_prob"])
                    if not bool(logs.isfinite().all()):
                        found.append(
                            f"{site.name!r} of the {title} ({'NaN' if logs.isnan().any() else 'infinite'})"
                        )
        except ValueError as error:  # of a distribution whose parameters are none, with its site
            return str(error).splitlines()[0]
    if found:
        return f"Log-probabilities that are no numbers, in one more run: {', '.join(found)}."
    return "Each site alone has a log-probability in one more run: look for infinities that cancel."
