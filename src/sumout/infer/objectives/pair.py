"""A run of a guide and the run of the model that takes its values, side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from sumout.effects import CondIndepStackFrame, Message, Trace
from sumout.effects.handlers import BlockMessenger, ReplayMessenger, enum, trace
from sumout.effects.handlers.named import unused_names_allowed
from sumout.effects.messenger import level_outside
from sumout.effects.random_state import kept_rng_state
from sumout.effects.steps import names_of_steps, sources, unrolled_step
from sumout.effects.trace import sample_sites, tensor_plates
from sumout.errors import EnumerationError, ModelError, PlateError, nearest
from sumout.infer.programs.program import Rehearsal, check_declared, plate_nesting
from sumout.settings import settings

Program = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


def frames(site: Message) -> frozenset[CondIndepStackFrame]:
    """The plates of a site that are tensor dimensions; the steps of a chain are not independent, so they are none."""
    step = unrolled_step(site)
    chain = None if step is None else step.chain
    return frozenset([frame for frame in tensor_plates(site).values() if frame.name != chain])


def cost(site: Message) -> tuple[frozenset[CondIndepStackFrame], Tensor]:
    """A site's plates and its log-probability over these: that of all steps of a chain is one term."""
    log_prob: Tensor = site["log_prob"]
    step = unrolled_step(site)
    if step is not None and step.dim is not None and log_prob.dim() >= -step.dim:
        log_prob = log_prob.sum(step.dim, keepdim=True)
    return frames(site), log_prob


def trace_pair(
    model: Program,
    guide: Program,
    args: Args,
    kwargs: Kwargs,
    first_available_dim: int | None = None,
) -> tuple[Trace, Trace]:
    """Runs the guide, then the model with the guide's values.

    Args:
        model, guide: programs.
        args, kwargs: the arguments of both.
        first_available_dim: if given, the model's marked sites that the guide lacks are enumerated.

    Returns:
        The model's trace and the guide's.

    Raises:
        ModelError: under validation, if the two disagree on the shape of a site.
    """
    guide_trace = trace(guide).get_trace(*args, **kwargs)
    replayer = ReplayMessenger(trace=guide_trace)
    replayer.reports_unused = False  # _check_match tells more
    replayed = replayer(model)
    if first_available_dim is not None:
        replayed = enum(replayed, first_available_dim=first_available_dim)
    model_trace = trace(replayed).get_trace(*args, **kwargs)
    if settings.validation:
        _check_match(model_trace, guide_trace)
    return model_trace, guide_trace


def pair_nesting(model: Program, guide: Program, args: Args, kwargs: Kwargs) -> int:
    """How many tensor dimensions the plates of both take up, found by running them once, unseen and unmarked.

    No handler outside sees the run, and the random state is put back after it.
    """
    with kept_rng_state(), BlockMessenger(), Rehearsal(), unused_names_allowed():
        guide_trace = trace(guide).get_trace(*args, **kwargs)
        model_trace = trace(ReplayMessenger(trace=guide_trace)(model)).get_trace(*args, **kwargs)
    check_declared(model_trace)
    return max(plate_nesting(guide_trace), plate_nesting(model_trace))


def check_plates(sites: Iterable[Message]) -> None:
    """Checks that log-probabilities vary along dimensions of plates only.

    Raises:
        PlateError: naming the site and the dimension.
    """
    for site in sites:
        shape = site["log_prob"].shape
        declared = {frame.dim for frame in site.cond_indep_stack}
        for dim in range(-len(shape), 0):
            if shape[dim] > 1 and dim not in declared:
                raise PlateError(
                    f"Site {site.name!r} varies along dim {dim} (size {shape[dim]}), which belongs to no plate "
                    "around it. Declare it with a plate, or make it part of the event with .to_event()."
                )


def _check_match(model_trace: Trace, guide_trace: Trace) -> None:
    model = {site.name or "": site for site in sample_sites(model_trace) if not site.is_observed}
    guide = {site.name or "": site for site in sample_sites(guide_trace) if not site.is_observed}
    for name, site in guide.items():
        if name in model:
            _check_shapes(model[name], site)
    lacking: list[str] = []
    used: set[str] = set()
    for name, site in model.items():
        # The two may take the steps of a chain in different ways.
        taken = [name] if name in guide else [each for each, _, _ in _sources(site, guide)]
        used.update(taken)
        if not taken and site.enum_dim is None:
            lacking.append(name)
    steps = {each for site in model.values() for each in names_of_steps(site)}
    extra = [
        each
        for name, site in guide.items()
        if not site.infer.get("is_auxiliary")
        for each in ([name] if name not in used else names_of_steps(site))
        if name not in used or each not in steps
    ]
    if extra:
        told = [
            f"Site {name!r} is in the guide but is no latent site of the model.{nearest(name, lacking)}"
            for name in extra
        ]
        remedy = "Mark it infer={'is_auxiliary': True} if it is meant."
        warnings.warn(f"{' '.join(told)} {remedy}", stacklevel=level_outside())
    for name in lacking:
        if model[name].infer.get("enumerate") == "sequential":
            raise EnumerationError(
                f"Site {name!r} of the model is marked for sequential enumeration, which objectives do not do. "
                "Mark it infer={'enumerate': 'parallel'} and use TraceEnum_ELBO."
            )
    # A site of the model that the guide has under another name was told above.
    lacking = [name for name in lacking if not any(nearest(each, [name]) for each in extra)]
    if lacking:
        warnings.warn(
            f"Latent sites of the model that the guide lacks are drawn from the prior: {lacking}. Add them to "
            "the guide, or enumerate the discrete ones (config_enumerate with TraceEnum_ELBO).",
            stacklevel=level_outside(),
        )


def _sources(site: Message, guide: Mapping[str, Message]) -> list[tuple[str, int, int]]:
    return sources(site, guide) if "_chain" in site.infer else []


def _check_shapes(model: Message, guide: Message) -> None:
    for attribute in ("event_shape", "batch_shape"):
        expected, found = getattr(model.fn, attribute, None), getattr(guide.fn, attribute, None)
        if expected == found or expected is None or found is None:
            continue
        enumerated = (model.enum_dims or {}) if attribute == "batch_shape" else {}
        for dim in range(-max(len(expected), len(found)), 0):
            sizes = [shape[dim] if len(shape) >= -dim else 1 for shape in (expected, found)]
            if sizes[0] != sizes[1] and dim not in enumerated:
                raise ModelError(
                    f"Site {model.name!r} has {attribute} {tuple(expected)} in the model and {tuple(found)} in "
                    "the guide. Give both the same plates and the same .to_event()."
                )
