"""Running a program so that its discrete sites are summed out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor

from sumout.distributions.families import innermost, is_distribution
from sumout.effects import Message, Messenger
from sumout.effects.handlers import BlockMessenger, TraceMessenger
from sumout.effects.handlers.named import unused_names_allowed
from sumout.effects.handlers.sequential import Places, is_sequential
from sumout.effects.random_state import kept_rng_state
from sumout.effects.trace import Trace, sample_sites, tensor_plates
from sumout.effects.trace.types import types_told
from sumout.errors import ControlFlowError, EnumerationError, PlateError, SumoutError
from sumout.infer.collapsing.marked import with_marked_sites_collapsed
from sumout.infer.programs.enumerate import config_enumerate
from sumout.infer.programs.modes import Mode, NestingError, finished, in_a_mode_that_works

_ROOM = 8
"""Dimensions more that plates get in a run after one in which they collided with enumerated values."""


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
    sites = [site for site in trace.nodes.values() if site.type == "sample"]
    # A factor that collapsed sites left tells how deep these were.
    dims = [-site.infer.get("_nesting", 0) for site in sites] + [
        dim for site in sites for dim in tensor_plates(site)
    ]
    return -min(dims, default=0)


def guess_plate_nesting(program: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """``plate_nesting`` of a trial run that no handler outside sees and that leaves the random state alone."""
    with (
        kept_rng_state(),
        BlockMessenger(),
        TraceMessenger() as recorder,
        Rehearsal(),
        unused_names_allowed(),
        types_told(recorder, args, kwargs),
    ):
        program(*args, **kwargs)
    check_declared(recorder.trace)
    return plate_nesting(recorder.trace)


def check_declared(trace: Trace) -> None:
    """Checks that sites of a run without enumeration vary along dimensions of plates only.

    Enumerated values would be put along a dimension that nobody declared, and meet what is there already: an
    error where the sizes differ, and a wrong number where they happen to be equal.

    Raises:
        PlateError: naming the site and the dimension.
    """
    for site in sample_sites(trace):
        if site.infer.get("_deterministic") or not is_distribution(site.plain_fn):
            continue
        declared = tensor_plates(site)
        shapes = [tuple(site.plain_fn.batch_shape)]
        if isinstance(site.value, Tensor):
            shapes.append(tuple(site.value.shape[: site.value.dim() - site.plain_fn.event_dim]))
        for shape in shapes:
            for dim in range(-len(shape), 0):
                if shape[dim] > 1 and dim not in declared:
                    raise PlateError(
                        f"Site {site.name!r} varies along dim {dim} (size {shape[dim]}), which belongs to no plate "
                        "around it. Declare it with a plate, or make it part of the event with .to_event()."
                    )


@contextmanager
def as_far_as_it_runs() -> Iterator[None]:
    """For a trial run that nothing but a check needs: where the program itself fails, there is nothing to say."""
    try:
        yield
    except SumoutError:
        raise
    except Exception:
        return


class Drawable(Messenger):
    """Lets a run draw what a chain would not: its numbers are not used."""

    before_enumeration = False
    """Whether latent discrete sites have a value here that they are enumerated over later on."""

    def _pyro_sample(self, msg: Message) -> None:
        msg.infer.pop("_undrawable", None)
        if "_collapse" in msg.infer:
            msg.infer["_rehearsed"] = self.before_enumeration


class Rehearsal(Drawable):
    """The same for a trial run that tells shapes before anything is enumerated."""

    before_enumeration = True


class EnumeratedProgram:
    """A program whose runs are recorded with all finite discrete latent sites enumerated.

    Args:
        program: the model; its own ``infer={"enumerate": ...}`` marks are kept. ``collapsed`` is the program with sites
            marked ``infer={"collapse": True}`` integrated out.
        max_plate_nesting: tensor dimensions to leave for plates; found by a trial run if ``None``.
        default: how sites without a mark are enumerated: ``"parallel"``, ``"sequential"`` or ``"auto"``.
    """

    def __init__(
        self,
        program: Callable[..., Any],
        max_plate_nesting: int | None = None,
        default: str | None = "parallel",
    ) -> None:
        self.program = program
        self.collapsed = with_marked_sites_collapsed(program)
        self.fixed = max_plate_nesting is not None
        self.max_plate_nesting = max_plate_nesting
        self.default = default

    def trace(self, *args: Any, **kwargs: Any) -> Trace:
        """Runs the program once and checks that it can be solved exactly.

        Raises:
            EnumerationError: as ``run``, and if a latent site is left that has no finite support or is not enumerated.
            ControlFlowError: as ``run``.
        """
        trace = self.run(*args, **kwargs)
        refuse_latent(trace)
        return trace

    def run(self, *args: Any, **kwargs: Any) -> Trace:
        """Runs the program once; latent sites that cannot be enumerated have the values that handlers gave or that
        were drawn.

        Raises:
            EnumerationError: if a plate needs more dimensions than ``max_plate_nesting``.
            ControlFlowError: if Python decides on the value of an enumerated site.
        """
        return in_a_mode_that_works(self.program, lambda mode: self.run_in(mode, args, kwargs))

    def run_in(self, mode: Mode, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Trace:
        """One run in the given mode; raises as ``run`` does, and what the program raises."""
        if self.max_plate_nesting is None:
            self.max_plate_nesting = guess_plate_nesting(self.collapsed, *args, **kwargs)
        nesting = self.max_plate_nesting
        each, places = mode.handler(-1 - nesting), Places()
        try:
            with TraceMessenger() as recorder, types_told(recorder, args, kwargs):
                each(config_enumerate(self.collapsed, default=self.default))(*args, **kwargs)
        except (EnumerationError, PlateError) as error:  # of plates and values along one dimension
            if isinstance(error, ControlFlowError):
                raise
            needed = self._nesting_met(nesting, *args, **kwargs)
            if needed <= nesting:
                raise
            if self.fixed:
                raise NestingError(
                    f"The plates take up {needed} dims and max_plate_nesting is {nesting}. "
                    f"Give max_plate_nesting={needed}, or leave it out to have it found."
                ) from None
            self.max_plate_nesting = needed  # Other arguments than the first may need deeper plates.
            places.restore()
            return self.run_in(mode, args, kwargs)
        return finished(each, recorder.trace)

    def _nesting_met(self, nesting: int, *args: Any, **kwargs: Any) -> int:
        """How deep the plates are that an enumerated run meets when it has room for more."""
        each = Mode.DIMS.handler(-1 - nesting - _ROOM)
        marked = each(config_enumerate(self.collapsed, default=self.default))
        with BlockMessenger(), TraceMessenger() as recorder, suppress(EnumerationError, PlateError):
            marked(*args, **kwargs)
        return plate_nesting(recorder.trace)


def refuse_latent(trace: Trace) -> None:
    """Raises ``EnumerationError`` for a latent site that was not enumerated: there is no exact answer."""
    for site in sample_sites(trace):
        if not site.is_observed and site.enum_dim is None and not is_sequential(site):
            _refuse(site)
        if site.infer.get("_drawn"):
            raise EnumerationError(
                f"Site {next(iter(site.infer['_drawn']))!r} is drawn at a barrier, so there is no exact answer. Leave "
                "barrier out, or use an objective or importance sampling."
            )


def _refuse(site: Message) -> None:
    """Says why a latent site that was not enumerated has no exact answer."""
    if site.infer.get("enumerate") == "sequential":
        raise EnumerationError(
            f"Site {site.name!r} is marked for sequential enumeration, for which a program is run many times; this "
            "takes one run. Mark it infer={'enumerate': 'parallel'}."
        )
    family = innermost(site.plain_fn)
    if getattr(site.plain_fn, "has_enumerate_support", False):
        if site.infer.get("enumerate") == "parallel":
            raise EnumerationError(
                f"Site {site.name!r} is latent and has a value that a handler gave it, as replay does: it is fixed, so "
                "it is not summed out, and no observation either. To observe the value use condition in the place of "
                "replay; to sum the site out leave the handler out."
            )
        raise EnumerationError(
            f"Site {site.name!r} is latent and marked infer={{'enumerate': None}}, so it is not summed out. "
            "Mark it infer={'enumerate': 'parallel'}, or observe it."
        )
    if getattr(family, "has_enumerate_support", False):
        raise EnumerationError(
            f"Site {site.name!r} is latent with {type(family).__name__} in an event of shape "
            f"{tuple(site.plain_fn.event_shape)}, whose joint values are not enumerated. Make its elements sites "
            "of their own, or a plate in the place of .to_event()."
        )
    raise EnumerationError(
        f"Site {site.name!r} is latent with {type(family).__name__} of infinite support, so it cannot be summed out. "
        "Observe it (obs=..., or the condition handler), fix it with a param, or use a guide with TraceEnum_ELBO."
    )
