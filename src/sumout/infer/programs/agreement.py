"""Whether a program means the same with all values at once as with one value each.

Enumeration puts the values of a site along a tensor dimension. A program that moves, sums or indexes that dimension,
or uses a value after its dimension was given to another site, still runs, and would give a wrong answer. So the
first time that a program is seen in some shape, it is also run plainly, at values chosen at random, and each site's
log-probability is compared with what the factor graph says of the same values.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from sumout.distributions.families import is_distribution
from sumout.effects import Message, Messenger, Trace
from sumout.effects.handlers import (
    ConditionMessenger,
    MaskMessenger,
    ScaleMessenger,
    TraceMessenger,
)
from sumout.effects.handlers.chain import SingleSteps
from sumout.effects.handlers.named import unused_names_allowed
from sumout.effects.handlers.sequential import SequentialMessenger, is_sequential
from sumout.effects.random_state import kept_rng_state, set_rng_seed
from sumout.effects.steps import assembled, is_lookback, names_in_loop, names_of_steps, unrolled_step
from sumout.effects.trace import sample_sites, site_is_subsample, tensor_plates
from sumout.errors import EnumerationError
from sumout.execute import Choice
from sumout.factors import FactorGraph
from sumout.infer.programs.around import has_handlers_around
from sumout.infer.programs.program import Drawable, as_far_as_it_runs
from sumout.infer.programs.score import log_factor
from sumout.infer.programs.unrecorded import Unrecorded
from sumout.settings import settings

Run = Callable[[], Any]
Choose = Callable[[int, list[int]], Tensor]
"""Gives states for a number of states and a shape."""

LARGEST = 2**24
"""Elements of a site above which there is no comparison: a plain run makes a table of them, and the graph does not."""

_INTEGRAL = "_collapsed_"
"""What the names of the factors that ``collapse`` leaves begin with."""

_seen: weakref.WeakKeyDictionary[Any, set[Any]] = weakref.WeakKeyDictionary()
"""The shapes in which programs were found to agree."""


class Disagreement(EnumerationError):
    """``site`` has another log-probability in the enumerated run."""

    def __init__(self, message: str, site: str) -> None:
        super().__init__(message)
        self.site = site


def check_agreement(program: Any, run: Run, trace: Trace, graph: FactorGraph) -> None:
    """Compares an enumerated run of a program with a plain one, the first time that its shapes are seen.

    Args:
        program: what the shapes are remembered for.
        run: runs it with the arguments of the enumerated run.
        trace: the enumerated run.
        graph: the graph that the trace was lowered to.

    Raises:
        EnumerationError: under validation, naming the first site whose log-probabilities differ.
    """
    if not settings.validation or has_handlers_around(_ALIKE):
        return  # Handlers around the query act on the run proper, and are not to see others.
    sites = sample_sites(trace)
    if not graph.variables and not any(map(unrolled_step, sites)):
        return
    shapes = (
        graph.structure,
        tuple([site.value.shape for site in sites if isinstance(site.value, Tensor)]),
        tuple([(site.name, tuple(site.value.flatten().tolist())) for site in sites if is_sequential(site)]),
    )
    try:
        seen = _seen.setdefault(program, set())
    except TypeError:  # of an object that cannot be remembered
        seen = set()
    if shapes in seen or any(_elements(site) > LARGEST for site in sites):
        return
    subsamples = {name: site.value for name, site in trace.nodes.items() if site_is_subsample(site)}

    def with_its_subsamples() -> Any:
        with _Given(subsamples):
            return run()

    differing = _first_difference(with_its_subsamples, sites, graph)
    if differing is not None:
        raise differing
    seen.add(shapes)


_ALIKE = {
    ConditionMessenger,
    MaskMessenger,
    ScaleMessenger,
    SequentialMessenger,
    TraceMessenger,
    Unrecorded,
}
"""Handlers that do the same to a plain run, and keep nothing of one that is not recorded."""


def _elements(site: Message) -> int:
    return math.prod(frame.size for frame in tensor_plates(site).values())


class _Given(Messenger):
    """Gives sites the values that were chosen for them."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def _pyro_sample(self, msg: Message) -> None:
        if msg.is_observed:
            return
        name = msg.name or ""
        if name in self.values:
            msg.value = self.values[name]
            msg.done = True
        elif "_chain" in msg.infer and is_distribution(msg.plain_fn):
            steps = assembled(msg, self.values)
            if steps is not None:
                msg.value, _ = steps
                msg.done = True


def _first_difference(run: Run, sites: list[Message], graph: FactorGraph) -> EnumerationError | None:
    """Compares at random values, and at the last of each site's: a sum over values may be right by chance."""
    generator = torch.Generator().manual_seed(0)

    def random(size: int, shape: list[int]) -> Tensor:
        return torch.randint(size, shape, generator=generator)

    def last(size: int, shape: list[int]) -> Tensor:
        return torch.full(shape, size - 1)

    return _difference_at(random, run, sites, graph) or _difference_at(last, run, sites, graph)


def _difference_at(
    choose: Choose, run: Run, sites: list[Message], graph: FactorGraph
) -> EnumerationError | None:
    choices, values = _chosen(choose, sites, graph)
    for site in sites:
        if site.enum_dim is None and not site.is_observed:
            if _runs_along_values(site):
                return None  # Drawn from what was enumerated: it has no value of its own.
            values[site.name or ""] = site.value
    plain = _log_probs(run, values)
    if plain is None:
        return None
    odd = _in_one_only(plain, sites)
    if odd:
        again = _log_probs(run, values, rng_seed=1)
        odd &= _in_one_only(again, sites) if again is not None else set()
        if odd:
            return _missing(min(odd), plain)
    with torch.no_grad():
        factors: dict[str, Tensor] = {}
        for factor in graph.factors:
            power = factor.scale
            for plate in factor.plates:
                power *= graph.plates[plate].scale
            factors[factor.name] = log_factor(graph, factor, choices).sum() * power
        for site in sites:
            name = site.name or ""
            if "approximate" in site.infer:  # Where all sites have one value each it is exact, and another.
                plain.pop(name, None)
                factors.pop(name, None)
                continue
            # A masked site that is enumerated keeps its table.
            if is_lookback(site) or (site.enum_dim is not None and site.mask is not None):
                plain.pop(name, None)
                continue
            if name in factors:
                continue
            names = names_in_loop(site)
            if name in plain and all(each in factors for each in names):
                factors[name] = torch.stack([factors[each] for each in names]).sum()
        if all("approximate" not in site.infer for site in sites):
            _regroup_integrals(factors, plain, sites)
        differing = _differing(factors, plain, lambda: _log_probs(run, values, rng_seed=1))
        if differing is not None or not any(map(unrolled_step, sites)):
            return differing
        # What a body that takes many steps at once holds of earlier steps may be other steps than it seems.
        factors |= _steps_of(sites)
        steps = _log_probs(run, values, single_steps=True) or {}
        return _differing(factors, steps, lambda: _log_probs(run, values, rng_seed=1, single_steps=True))


Scores = dict[str, tuple[Tensor, float]]
"""Log-probabilities by name, with the sums of their elements' sizes."""


def _regroup_integrals(factors: dict[str, Tensor], plain: Scores, sites: Iterable[Message]) -> None:
    """Compares the product of all integrals, where predictions tie groups of collapsed sites in one of the runs only.

    The elements of a plate would be tied, too, by one that an enumerated site in the plate chooses.
    """
    many = [site.name or "" for site in sites if "_integral" in site.infer]
    one = [name for name in plain if name.startswith(_INTEGRAL)]
    shared = next((name for name in many if name in plain), None)
    if shared is None or set(one) == set(many) or any(name not in factors for name in many):
        return
    factors[shared] = torch.stack([factors.pop(name) for name in many]).sum()
    scores = [plain.pop(name) for name in one]
    plain[shared] = torch.stack([score for score, _ in scores]).sum(), sum([size for _, size in scores])


def _differing(
    factors: Mapping[str, Tensor], plain: Scores, again: Callable[[], Scores | None]
) -> EnumerationError | None:
    for name, (expected, size) in plain.items():
        if name in factors and _differ(factors[name], expected, size):
            repeated = again()
            if repeated is None or _differ(repeated.get(name, (factors[name], size))[0], expected, size):
                return None  # The program has random numbers of its own.
            return _difference(name, float(factors[name]), float(expected))
    return None


def _steps_of(sites: Iterable[Message]) -> dict[str, Tensor]:
    """The log-probabilities of each step that a vectorized chain took at once, of sites without enumerated ones."""
    found: dict[str, Tensor] = {}
    for site in sites:
        step = unrolled_step(site)
        if step is not None and step.scored and step.dim is not None and not site.enum_dims:
            logs = torch.as_tensor(site["log_prob"])
            if logs.dim() >= -step.dim:
                each = logs.movedim(step.dim, 0)
                found.update(zip(names_of_steps(site), each.reshape(len(each), -1).sum(1), strict=True))
    return found


def _in_one_only(plain: Scores, sites: Iterable[Message]) -> set[str]:
    """The sites that are in one of a plain run and the enumerated one only."""
    found = plain.keys() ^ {site.name or "" for site in sites}
    return {name for name in found if not name.startswith(_INTEGRAL)}  # Approximate ones are taken apart.


def _missing(name: str, plain: Scores) -> EnumerationError:
    one, other = (
        "where all sites have one value each",
        "in the run in which they have all their values at once",
    )
    has, lacks = (one, other) if name in plain else (other, one)
    return Disagreement(
        f"The program has site {name!r} {has}, and not {lacks}: which sites it has depends on the shape, type or "
        "text of an enumerated value. Decide on the value itself (if z: with infer={'enumerate': 'auto'}).",
        name,
    )


def _chosen(
    choose: Choose, sites: Iterable[Message], graph: FactorGraph
) -> tuple[dict[str, Choice], dict[str, Any]]:
    """A state of every variable for each element of its plates, and the values of the enumerated sites."""
    choices: dict[str, Choice] = {}
    values: dict[str, Any] = {}
    for site in sites:
        if site.enum_dim is None:
            continue
        step = unrolled_step(site)
        plates = {dim: frame for dim, frame in tensor_plates(site).items() if step is None or dim != step.dim}
        rank = max((-dim for dim in tensor_plates(site)), default=0)
        names = names_in_loop(site)
        support = _values_of(site)
        indices = []
        for name in names:
            if name not in choices:
                shape = [graph.plates[frame.name].size for _, frame in sorted(plates.items())]
                states = choose(len(support), shape)
                choices[name] = Choice(
                    states.unsqueeze(0), tuple(frame.name for _, frame in sorted(plates.items()))
                )
            by_plate = dict(zip(choices[name].plates, choices[name].states.shape[1:], strict=True))
            order = [choices[name].plates.index(plates[dim].name) for dim in sorted(plates)]
            shape = [by_plate[plates[dim].name] if dim in plates else 1 for dim in range(-rank, 0)]
            indices.append(choices[name].states[0].permute(order).reshape(shape))
        index = torch.cat(indices, step.dim) if step is not None and step.dim is not None else indices[0]
        values[site.name or ""] = support[index.to(support.device)]
    return choices, values


def _values_of(site: Message) -> Tensor:
    """The values that a site runs over: those of a guide, if it has them from there."""
    event_shape: torch.Size = site.plain_fn.event_shape
    value: Tensor = site.value
    if value.numel() == value.shape[(site.enum_dim or 0) - len(event_shape)] * event_shape.numel():
        return value.reshape(-1, *event_shape)
    support: Tensor = site.fn.enumerate_support(expand=False)
    return support.reshape(support.shape[0], *event_shape)


def _runs_along_values(site: Message) -> bool:
    if not isinstance(site.value, Tensor) or not is_distribution(site.plain_fn):
        return False
    rank = site.value.dim() - site.plain_fn.event_dim
    return any(
        rank >= -dim and site.value.shape[dim - site.plain_fn.event_dim] > 1 for dim in site.enum_dims or ()
    )


def _log_probs(
    run: Run, values: Mapping[str, Any], rng_seed: int | None = None, *, single_steps: bool = False
) -> Scores | None:
    """Each site's log-probability in a plain run; ``None`` where it fails.

    With ``single_steps`` those of the steps of vectorized chains, taken one by one, by the names that they have in a
    loop.
    """
    recorder = TraceMessenger()
    found: Scores = {}
    with as_far_as_it_runs(), kept_rng_state(), torch.no_grad(), unused_names_allowed():
        if rng_seed is not None:
            set_rng_seed(rng_seed)
        steps = SingleSteps() if single_steps else nullcontext()
        with Unrecorded(), steps, recorder, Drawable(), _Given(values):
            run()
        sites = sample_sites(recorder.trace)
        if single_steps:
            sites = [site for site in sites if "_chain" in site.infer and site.mask is None]
        names = [names_of_steps(site)[0] if single_steps else site.name or "" for site in sites]
        found.update(
            dict.fromkeys(names, (torch.tensor(math.nan), 0.0))
        )  # Scoring may fail: that says nothing.
        for name, site in zip(names, sites, strict=True):
            log_prob = torch.as_tensor(site["log_prob"])
            found[name] = log_prob.sum(), float(log_prob.abs().sum())
    return found or None


def _differ(one: Tensor, other: Tensor, size: float) -> bool:
    one, other = torch.as_tensor(one), torch.as_tensor(other)
    # Half precision has fewer digits than are compared otherwise.
    tolerance = max(
        1e-3, *(torch.finfo(each.dtype).eps for each in (one, other) if each.is_floating_point()), 0.0
    )
    one, other = one.double(), other.double()
    if not (bool(one.isfinite()) and bool(other.isfinite())):
        return bool(one.isneginf() != other.isneginf()) and not bool((one + other).isnan())
    return bool((one - other).abs() > tolerance * (1 + size))


def _difference(name: str, found: float, expected: float) -> EnumerationError:
    return Disagreement(
        f"Site {name!r} has log-probability {expected:.6g} where all sites have one value each, and {found:.6g} in the "
        "run in which the enumerated sites have all their values, and chains all their steps, at once: the values do "
        "not stay along the dimensions that they were given. Look for operations on them that are not elementwise "
        "(z.sum(), z[0], z.unsqueeze(-1), table.T[:, z]; write Vindex(table)[..., z]), for values used after their "
        "markov loop or further back than its history, for what a chain whose steps are taken at once computes from "
        "step to step (h = a * h + e: loop without dim), and for data or plates along dimensions that "
        "max_plate_nesting leaves to enumeration. "
        "Where one value each is meant, the sites can be enumerated sequentially: infer={'enumerate': 'auto'}.",
        name,
    )
