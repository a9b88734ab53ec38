"""A run of a guide and the run of the model that takes its values, side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sumout.effects import Message, Trace
from sumout.effects.handlers import BlockMessenger, EnumMessenger, ReplayMessenger, trace
from sumout.effects.handlers.named import unused_names_allowed
from sumout.effects.handlers.sequential import is_sequential
from sumout.effects.messenger import level_outside
from sumout.effects.random_state import kept_rng_state
from sumout.effects.steps import names_of_steps
from sumout.effects.trace import sample_sites
from sumout.errors import ControlFlowError, EnumerationError, ModelError, PlateError, SumoutError, nearest
from sumout.infer.objectives.guide_values import GuideValues, InModelDims
from sumout.infer.programs.modes import Mode, finished
from sumout.infer.programs.program import Rehearsal, check_declared, plate_nesting
from sumout.settings import settings

_OF_A_RUN = ("args", "return")
"""Types of what is recorded of any run: where there is nothing else, nothing can be replayed."""

Program = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


class GuideTrace(NamedTuple):
    """A run of a guide: as the values look to programs, and with dimensions for enumerated values."""

    values: Trace
    trace: Trace


def trace_guide(
    guide: Program, args: Args, kwargs: Kwargs, first_available_dim: int | None = None, mode: Mode = Mode.DIMS
) -> GuideTrace:
    """Runs the guide; with ``first_available_dim``, sites that are marked for it are enumerated, in the given mode."""
    if first_available_dim is None:
        recorded: Trace = trace(guide).get_trace(*args, **kwargs)
        return GuideTrace(recorded, recorded)
    handler = mode.handler(first_available_dim)
    recorded = trace(handler(guide)).get_trace(*args, **kwargs)
    return GuideTrace(recorded, finished(handler, recorded))


def trace_model(
    model: Program,
    guide: GuideTrace,
    args: Args,
    kwargs: Kwargs,
    first_available_dim: int | None = None,
    mode: Mode = Mode.DIMS,
) -> Trace:
    """Runs the model with the guide's values.

    Args:
        model: a program.
        guide: the guide's run.
        args, kwargs: the arguments of both.
        first_available_dim: that of the guide's run; with it, the model's marked sites that the guide lacks are
            enumerated. Sites that the guide enumerates have all their values, along the dimensions of the guide, or
            in chains along dimensions that are found anew.
        mode: that of the guide's run.

    Raises:
        ModelError: under validation, if the two disagree on the shape of a site.
    """
    handler = None if first_available_dim is None else mode.handler(first_available_dim)
    replayed = model
    if any(site.enum_dim is not None for site in guide.trace.nodes.values()):
        replayer = GuideValues(guide.values, guide.trace, hidden=mode is not Mode.DIMS)
        replayer.reports_unused = False  # _check_match tells more
        replayed = replayer(model)
        if mode is Mode.DIMS and first_available_dim is not None:
            handler = EnumMessenger(first_available_dim, owners=replayer.owners)
            replayed = InModelDims()(handler(replayed))
        elif handler is not None:
            replayed = handler(replayed)
    else:
        if any(site.type not in _OF_A_RUN for site in guide.values.nodes.values()):
            plain = ReplayMessenger(trace=guide.values)
            plain.reports_unused = False
            replayed = plain(model)
        if handler is not None:
            replayed = handler(replayed)
    recorded: Trace = trace(replayed).get_trace(*args, **kwargs)
    if handler is not None:
        recorded = finished(handler, recorded)
    if settings.validation:
        _check_match(recorded, guide.trace)
    return recorded


_DECISIONS = "ambiguous", "to Scalar", "to Python scalars", "to an index"
"""Words of torch's for Python's wanting one value of a tensor that has several."""


def is_decision(error: Exception) -> bool:
    """Whether an error is torch's, of Python's deciding on a value that has many elements."""
    return not isinstance(error, SumoutError) and any(words in str(error) for words in _DECISIONS)


class DeeperPlates(SumoutError):
    """Plates take up more dimensions than an objective has left for them; the cause is what came of it."""


@contextmanager
def collisions_told(
    model: Program, guide: Program, args: Args, kwargs: Kwargs, nesting: int
) -> Iterator[None]:
    """Raises ``DeeperPlates`` for an error inside if plates meet the dimensions of enumerated values or of
    particles."""
    try:
        yield
    except ControlFlowError:
        raise
    except (EnumerationError, PlateError) as error:
        try:
            deeper = pair_nesting(model, guide, args, kwargs) > nesting
        except PlateError:
            deeper = True
        if deeper:
            raise DeeperPlates(str(error)) from error
        raise


def pair_nesting(model: Program, guide: Program, args: Args, kwargs: Kwargs) -> int:
    """How many tensor dimensions the plates of both take up, found by running them once, unseen and unmarked.

    No handler outside sees the run, and the random state is put back after it.
    """
    with kept_rng_state(), BlockMessenger(), Rehearsal(), unused_names_allowed():
        guide_trace = trace(guide).get_trace(*args, **kwargs)
        model_trace = trace(ReplayMessenger(trace=guide_trace)(model)).get_trace(*args, **kwargs)
    check_declared(model_trace)
    return max(plate_nesting(guide_trace), plate_nesting(model_trace))


def _check_match(model_trace: Trace, guide_trace: Trace) -> None:
    model = {site.name or "": site for site in sample_sites(model_trace) if not site.is_observed}
    guide = {site.name or "": site for site in sample_sites(guide_trace) if not site.is_observed}
    for name, site in guide.items():
        if name in model:
            _check_shapes(model[name], site)
    alone = [name for name, site in model.items() if site.enum_dim is None and name not in guide]
    if (
        not alone
        and guide.keys() <= model.keys()
        and not any(map(_chain, (*model.values(), *guide.values())))
    ):
        return
    given = {key for site in guide.values() for key in _given(site)}
    lacking = [
        name
        for name, site in model.items()
        if site.enum_dim is None and not is_sequential(site) and given.isdisjoint(_wanted(site))
    ]
    extra: list[str] = []
    wanted = {key for site in model.values() for key in _wanted(site)} if guide else set()
    for name, site in guide.items():
        if not site.infer.get("is_auxiliary") and name not in model:
            unused = [step for _, step in _given(site) if (_chain(site), step) not in wanted]
            extra += unused if len(unused) < len(names_of_steps(site)) else [name]
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
                f"Site {name!r} of the model is marked for sequential enumeration, which this objective does not do. "
                "Use TraceEnum_ELBO."
            )
    # A site of the model that the guide has under another name was told above.
    lacking = [name for name in lacking if not any(nearest(each, [name]) for each in extra)]
    if lacking:
        warnings.warn(
            f"Latent sites of the model that the guide lacks are drawn from the prior: {lacking}. Add them to "
            "the guide, or enumerate the discrete ones (config_enumerate with TraceEnum_ELBO).",
            stacklevel=level_outside(),
        )


def _chain(site: Message) -> str | None:
    step = site.infer.get("_chain")
    return None if step is None else step.chain


def _given(site: Message) -> list[tuple[str | None, str]]:
    """What a site of the guide has a value for: steps, with the name of their chain."""
    return [(_chain(site), step) for step in names_of_steps(site)]


def _wanted(site: Message) -> list[tuple[str | None, str]]:
    """What a site of the model takes its value from: steps of a chain of one name, or of none that has a name."""
    steps = names_of_steps(site)
    chains = dict.fromkeys((None, _chain(site)))
    return [(_chain(site), site.name or ""), *((chain, step) for chain in chains for step in steps)]


def _check_shapes(model: Message, guide: Message) -> None:
    for attribute in ("event_shape", "batch_shape"):
        expected, found = _shape(model, attribute), _shape(guide, attribute)
        if expected == found or expected is None or found is None:
            continue
        batch = attribute == "batch_shape"
        enumerated = {**(model.enum_dims or {}), **(guide.enum_dims or {})} if batch else {}
        for dim in range(-max(len(expected), len(found)), 0):
            sizes = [shape[dim] if len(shape) >= -dim else 1 for shape in (expected, found)]
            if sizes[0] != sizes[1] and dim not in enumerated:
                raise ModelError(
                    f"Site {model.name!r} has {attribute} {tuple(expected)} in the model and {tuple(found)} in "
                    "the guide. Give both the same plates and the same .to_event()."
                )


def _shape(site: Message, attribute: str) -> Sequence[int] | None:
    """The batch or event shape of a site's distribution along all plates, which need not be made for it."""
    return getattr(site if attribute == "batch_shape" else site.plain_fn, attribute, None)
