"""Random conjugate programs, and what quadrature makes of them.

A program has delayed sites of several families in plates ``p`` and ``q``, each with observations of several families:
in any plates over or under its own, in rows that pick elements by group numbers, in loops, masked, scaled, missing,
and chosen by a discrete site. Given the discrete sites, the elements of delayed sites are independent, so that the
log-joint density is a sum of functions of one element each. The reference learns each of them by running the plain
program with that element on a grid and the others at rest.

An integral over the line of an analytic function that falls off fast is a sum over an even grid to all digits
(Trefethen and Weideman, *The exponentially convergent trapezoidal rule*, 2014): positive variables are integrated over
their logarithm, probabilities over their logit. Over a simplex the logarithm of the density is found to be linear in
those of the entries, and integrated by Dirichlet's formula.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

import sumout.distributions as dist
from sumout import plate, poutine, sample

D = torch.float64
PLATES = {"p": (-1, 3), "q": (-2, 2)}
ROWS = 4
ENTRIES = 2
STEPS = 3

Maker = Callable[[Any, Tensor], Any]
"""From a parameter and positive numbers to a likelihood."""


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=D)


PROBABILITY: dict[str, Maker] = {
    "Bernoulli": lambda p, c: dist.Bernoulli(p + 0 * c),
    "Bernoulli of the complement": lambda p, c: dist.Bernoulli(1 - p + 0 * c),
    "Binomial": lambda p, c: dist.Binomial((4 * c).ceil(), p),
    "Binomial of the complement": lambda p, c: dist.Binomial((4 * c).ceil(), 1.0 - p),
    "Geometric": lambda p, c: dist.Geometric(p + 0 * c),
    "NegativeBinomial": lambda p, c: dist.NegativeBinomial(2 * c, p),
    "NegativeBinomial of the complement": lambda p, c: dist.NegativeBinomial((2 * c).ceil(), -p + 1),
}
SIMPLEX: dict[str, Maker] = {
    "Categorical": lambda p, c: dist.Categorical(p.expand(_batch(p, c))),
    "OneHotCategorical": lambda p, c: dist.OneHotCategorical(probs=p.expand(_batch(p, c))),
    "Multinomial": lambda p, c: dist.Multinomial(3, p.expand(_batch(p, c))),
}
RATE: dict[str, Maker] = {
    "Poisson": lambda r, c: dist.Poisson(r * c),
    "Poisson of products": lambda r, c: dist.Poisson(
        torch.stack(torch.broadcast_tensors(r * c, r * 2)).sum(0) * number(0.4)
    ),
    "Exponential": lambda r, c: dist.Exponential(r / c),
    "Gamma": lambda r, c: dist.Gamma(0.5 + c, rate=2 * r),
    "InverseGamma": lambda r, c: dist.InverseGamma(0.5 + c, r * c),
    "Normal": lambda r, c: dist.Normal(c, 1 / torch.sqrt(r * c)),
    "Normal by rsqrt": lambda r, c: dist.Normal(-c, (c * r).rsqrt()),
    "Normal by a power": lambda r, c: dist.Normal(c, c * r**-0.5),
    "LogNormal": lambda r, c: dist.LogNormal(c, torch.pow(r, -0.5)),
    "HalfNormal": lambda r, c: dist.HalfNormal(c * r.reciprocal().sqrt()),
    "Laplace": lambda r, c: dist.Laplace(c, c / r),
    "Weibull": lambda r, c: dist.Weibull(c * r ** (-1 / 1.5), number(1.5)),
    "Pareto": lambda r, c: dist.Pareto(c, r * 2),
}
INVERSE_RATE: dict[str, Maker] = {
    "Normal": lambda v, c: dist.Normal(c, v.sqrt() * c),
    "Normal by a power": lambda v, c: dist.Normal(c, (c * v) ** 0.5),
    "LogNormal": lambda v, c: dist.LogNormal(-c, torch.sqrt(v)),
    "HalfNormal": lambda v, c: dist.HalfNormal(c * v.sqrt()),
    "Exponential": lambda v, c: dist.Exponential(c / v),
    "Gamma": lambda v, c: dist.Gamma(0.5 + c, v.reciprocal()),
    "InverseGamma": lambda v, c: dist.InverseGamma(0.5 + c, c / v),
    "Poisson": lambda v, c: dist.Poisson(c * v**-1),
    "Laplace": lambda v, c: dist.Laplace(0.0 * c, v),
    "Weibull": lambda v, c: dist.Weibull(c * v.sqrt(), number(2.0)),
    "Pareto": lambda v, c: dist.Pareto(c, 1 / v),
}
LIKELIHOODS = {"Beta": PROBABILITY, "Dirichlet": SIMPLEX, "Gamma": RATE, "InverseGamma": INVERSE_RATE}


def _batch(p: Any, c: Tensor) -> tuple[int, ...]:
    shape: tuple[int, ...] = torch.broadcast_shapes(p.shape[:-1], c.shape)  # type: ignore[no-untyped-call]
    return (*shape, p.shape[-1])


@dataclass
class Site:
    """An observation of a delayed site.

    ``place`` is the plates that it lives in, ``rows`` that it lives in rows that pick elements by group numbers,
    ``turns`` in how many turns of a loop; ``chosen`` is what a discrete site chooses among: numbers, or entries.
    """

    name: str
    kind: str
    place: tuple[str, ...]
    seed: int
    rows: bool = False
    turns: int = 0
    mixed: bool = False
    mask: str = "none"
    power: str = "none"
    wide: bool = False
    chosen: str = ""


@dataclass
class Latent:
    name: str
    family: str
    place: tuple[str, ...]
    event: bool
    seed: int
    whole: bool
    late: bool
    sites: list[Site]
    new: Site | None = None
    """What is predicted, in the plates of the delayed site."""


@dataclass
class Program:
    """A program with three hyperparameters; ``chain`` is the length of a chain of discrete sites, in a loop."""

    latents: list[Latent]
    discrete: str
    enumerate: str
    subsampled: bool
    hyper: Tensor = field(default_factory=lambda: torch.tensor([1.0, 1.0, 1.0], dtype=D))

    def __call__(
        self, outer: Mapping[str, int] | None = None, plain: bool = False, predicted: str | None = None
    ) -> None:
        """Runs it; ``outer`` are sizes of plates around all of it.

        If ``plain``, missing data are there, and of predictions only that of the delayed site ``predicted``.
        """
        run = _Run(self, len(outer or {}), plain)
        frames = [plate(name, size, dim=-3 - k) for k, (name, size) in enumerate((outer or {}).items())]
        _inside(frames, lambda: run.everything(predicted))

    def discrete_sites(self) -> dict[str, tuple[int, ...]]:
        """The discrete sites with their shapes; all have two states."""
        if self.discrete == "chain":
            return {f"z_{t}": () for t in range(STEPS)}
        if not self.discrete:
            return {}
        return {"z": (PLATES["p"][1],) if self.discrete == "local" else ()}


def _inside(frames: list[Any], what: Callable[[], Any]) -> Any:
    if not frames:
        return what()
    with frames[0]:
        return _inside(frames[1:], what)


class _Run:
    def __init__(self, program: Program, outer: int, plain: bool) -> None:
        self.program, self.outer, self.plain = program, outer, plain
        self.state: Any = None
        self.frames: dict[str, Any] = {}

    def everything(self, predicted: str | None) -> None:
        program = self.program
        for name, (dim, size) in PLATES.items():
            if name == "p" and program.subsampled:
                self.frames[name] = plate(name, 2 * size, subsample=torch.arange(size), dim=dim)
            else:
                self.frames[name] = plate(name, size, dim=dim)
        self.frames["rows"] = plate("rows", ROWS, dim=-1)
        # Delayed sites may come before and after the discrete ones that choose among what depends on them.
        values = {}
        for latent in program.latents:
            if not latent.late or program.discrete == "chain":
                values[latent.name] = self.latent(latent)
        self.discrete(values)
        for latent in program.latents:
            if latent.name not in values:
                values[latent.name] = self.latent(latent)
        for latent in program.latents:
            for site in latent.sites:
                if not self.is_in_chain(site):
                    self.site(site, latent, values[latent.name])
            if latent.new is not None and (not self.plain or latent.name == predicted):
                self.observe(latent.new, latent, values[latent.name], latent.new.name, 0)

    def is_in_chain(self, site: Site) -> bool:
        return self.program.discrete == "chain" and bool(site.chosen)

    def discrete(self, values: Mapping[str, Any]) -> None:
        program = self.program
        infer = {"enumerate": program.enumerate} if program.enumerate else {}
        weights = torch.stack([program.hyper[2], number(0.6)])
        if program.discrete == "chain":
            state: Any = torch.tensor(0)
            rows = torch.stack([weights, weights.flip(0)])
            for t in poutine.markov(range(STEPS)):
                state = sample(f"z_{t}", dist.Categorical(rows[state]), infer=dict(infer))
                for latent in program.latents:
                    for site in latent.sites:
                        if self.is_in_chain(site):
                            self.observe(site, latent, values[latent.name], f"{site.name}_{t}", t, state)
        elif program.discrete:
            frames = [self.frames["p"]] if program.discrete == "local" else []
            fn = dist.Categorical(weights)
            self.state = _inside(frames, lambda: sample("z", fn, infer=dict(infer)))

    def shape(self, place: tuple[str, ...], rows: bool = False) -> list[int]:
        """Of what lives in plates, without leading ones unless there are plates around."""
        full = [PLATES[each][1] if each in place else 1 for each in ("q", "p")]
        if rows:
            full = [1, ROWS]
        depth = max([-PLATES[each][0] for each in place] + [1 if rows else 0], default=0)
        return full if self.outer else full[2 - depth :]

    def within(self, place: tuple[str, ...], what: Callable[[], Any], rows: bool = False) -> Any:
        frames = [self.frames[each] for each in sorted(place, reverse=True)]
        return _inside([*frames, self.frames["rows"]] if rows else frames, what)

    def latent(self, latent: Latent) -> Any:
        shape = self.shape(latent.place)
        generator = torch.Generator().manual_seed(latent.seed)
        own = 0.8 + torch.rand(shape if latent.whole else [], generator=generator, dtype=D)
        a, b = self.program.hyper[0] * own, self.program.hyper[1] * 1.3
        fn: Any
        if latent.family == "Dirichlet":
            fn = dist.Dirichlet(a.unsqueeze(-1) * torch.tensor([1.0, 1.5, 0.9], dtype=D) * b)
        else:
            if latent.event:
                a = a.unsqueeze(-1) * torch.tensor([1.0, 1.4], dtype=D)
            fn = getattr(dist, latent.family)(a, b)
            if latent.event:
                fn = fn.to_event(1)
        if not latent.whole:
            fn = fn.expand(shape)
        return self.within(latent.place, lambda: sample(latent.name, fn))

    def site(self, site: Site, latent: Latent, value: Any) -> None:
        if site.turns:
            for turn in plate(f"turns of {site.name}", site.turns):
                self.observe(site, latent, value, f"{site.name}_{turn}", turn)
        else:
            self.observe(site, latent, value, site.name, 0, self.state if site.chosen else None)

    def observe(
        self, site: Site, latent: Latent, value: Any, name: str, turn: int, state: Any = None
    ) -> None:
        generator = torch.Generator().manual_seed(site.seed + turn)
        shape = self.shape(site.place, site.rows)
        x, simplex = value, latent.family == "Dirichlet"
        if site.chosen == "element":
            dim = PLATES["p"][0] - latent.event - simplex
            first, second = x.narrow(dim, 1, 1), x.narrow(dim, 0, 1)
            state_ = state.reshape([*state.shape, *[1] * simplex]) if simplex else state
            x = torch.where(state_ == 1, first, second)
        if latent.event and site.chosen == "entry":
            x = torch.where(state == 1, x[..., 1], x[..., 0])
        elif latent.event:
            x = x[..., site.seed % ENTRIES]
        if simplex:
            x = x.movedim(-1, 0)  # The simplex comes first, until the plates are done.
        while x.ndim < 2 + simplex:
            x = x.unsqueeze(1 if simplex else 0)
        x = self.moved(x, site, latent, generator)
        depth = len(shape)
        if not self.outer and depth < 2 and not site.chosen:
            x = x.reshape([*x.shape[: x.ndim - 2], *x.shape[x.ndim - depth :]])
        if simplex:
            x = x.movedim(0, -1)
        c = 0.4 + torch.rand([*shape, ENTRIES] if site.wide else shape, generator=generator, dtype=D)
        least = c * 2 if site.kind == "Pareto" else c  # Whatever is chosen, data are in the support.
        if site.chosen in ("number", "simplex"):
            c = torch.where(state.unsqueeze(-1) == 1 if site.wide else state == 1, c * 2, c)
        if site.wide:
            x = x.unsqueeze(-2 if simplex else -1)
        make = LIKELIHOODS[latent.family][site.kind]
        fn: Any = make(x, c)
        with torch.random.fork_rng():
            torch.manual_seed(site.seed + turn)
            where = torch.tensor([0.2, 0.5, 0.3], dtype=D) if simplex else number(0.6)
            data = make(where, least).expand(least.shape).sample()
        if site is latent.new:
            data = None
        mask: Any = None
        if site.mask == "all":
            mask = torch.rand(shape, generator=generator) < 0.6
        elif site.mask == "some" and (site.rows or "p" in site.place):
            mask = torch.rand(shape[-1:], generator=generator) < 0.6
        elif site.mask == "nothing":
            mask = False
        if isinstance(mask, Tensor) and data is not None and data.is_floating_point() and not self.plain:
            ends = data.ndim - len(shape)
            gone = (~mask).expand(shape).reshape([*shape, *[1] * ends])
            data = torch.where(gone, torch.tensor(math.nan, dtype=D), data)
        if site.wide:
            fn = fn.to_event(1)
        around: list[Any] = []
        if mask is not None and site.seed % 2:
            fn = fn.mask(mask)
        elif mask is not None:
            around.append(poutine.mask(mask=mask))
        if site.power == "number":
            around.append(poutine.scale(scale=2.0))
        elif site.power == "all":
            around.append(poutine.scale(scale=0.5 + torch.rand(shape, generator=generator, dtype=D)))
        _inside(around, lambda: self.within(site.place, lambda: sample(name, fn, obs=data), site.rows))

    def moved(self, x: Any, site: Site, latent: Latent, generator: torch.Generator) -> Any:
        """The elements of the delayed site that an observation is of, with dimensions for both plates."""
        if site.rows:
            index = []
            for each in ("q", "p"):
                size = PLATES[each][1] if each in latent.place else 1
                index.append(torch.randint(size, (ROWS,), generator=generator))
            return x[(..., *index)].unsqueeze(-2)
        for each in latent.place:
            dim, size = PLATES[each]
            if each == "p" and site.chosen == "element":
                continue
            if each not in site.place:
                x = x.index_select(dim, torch.tensor([site.seed % size]))
            elif site.mixed:
                x = x.index_select(dim, torch.randint(size, (size,), generator=generator))
        return x


# ------------------------------------------------------------------------------------------------ strategies


@st.composite
def programs(draw: st.DrawFn) -> Program:
    discrete = draw(st.sampled_from(["", "", "global", "local", "chain"]))
    seeds = st.integers(0, 10_000)
    places = st.sampled_from([(), ("p",), ("q",), ("p", "q")])
    latents: list[Latent] = []
    for k in range(draw(st.integers(1, 2))):
        family = draw(st.sampled_from(list(LIKELIHOODS)))
        place = draw(places)
        event = family != "Dirichlet" and len(place) < 2 and draw(st.booleans())
        sites = []
        for n in range(draw(st.integers(1, 3))):
            site = Site(
                f"y{k}{n}",
                draw(st.sampled_from(list(LIKELIHOODS[family]))),
                draw(places),
                draw(seeds),
                mask=draw(st.sampled_from(["none", "none", "all", "some", "nothing"])),
                power=draw(st.sampled_from(["none", "none", "number", "all"])),
                wide=draw(st.booleans()),
            )
            how = draw(st.sampled_from(["plain", "rows", "loop", "mixed", "chosen"]))
            if how == "rows":
                site.rows, site.place = True, ()
            elif how == "loop":
                site.turns = draw(st.integers(1, 3))
            elif how == "mixed":
                site.mixed = True
            elif how == "chosen" and discrete and (discrete != "local" or "p" in place):
                ways = ["simplex"] if family == "Dirichlet" else ["number", "entry"] if event else ["number"]
                if "p" in place and discrete != "local" and not event:
                    ways = [*ways, "element"]
                site.chosen = draw(st.sampled_from(ways))
                if discrete == "local":
                    site.place = draw(st.sampled_from([("p",), ("p", "q")]))
            sites.append(site)
        latents.append(
            Latent(
                f"x{k}", family, place, event, draw(seeds), draw(st.booleans()), draw(st.booleans()), sites
            )
        )
    # Elements of a subsample are used by what is in it, one by one.
    alone = all(
        "p" not in each.place or ("p" in site.place and not site.mixed)
        for each in latents
        for site in each.sites
    )  # What is predicted is in no subsample.
    subsampled = discrete != "local" and alone and draw(st.booleans())
    mode = draw(st.sampled_from(["", "parallel", "sequential"])) if discrete != "chain" else ""
    for latent in latents:
        if not subsampled and not latent.event and draw(st.booleans()):
            kind = draw(st.sampled_from(sorted(set(LIKELIHOODS[latent.family]) - {"Laplace"})))
            latent.new = Site(f"new_{latent.name}", kind, latent.place, draw(seeds))
    return Program(latents, discrete, mode, subsampled)


# ------------------------------------------------------------------------------------------------- reference


@dataclass
class Known:
    """What quadrature finds.

    Attributes:
        log_evidence: with its dependence on the hyperparameters.
        points: of each delayed site, two values of all of its elements.
        log_density: of each delayed site the logarithm of its posterior density there, shape ``(2, *batch)``.
        values: of each predicted site a value.
        log_predicted: the logarithm of its posterior probability or density, of the batch's shape.
    """

    log_evidence: Tensor
    points: dict[str, Tensor]
    log_density: dict[str, Tensor]
    values: dict[str, Tensor]
    log_predicted: dict[str, Tensor]


def quadrature(program: Program) -> Known:
    shapes = {each.name: _shape_of(each) for each in program.latents}
    names = list(program.discrete_sites())
    totals: list[Tensor] = []
    densities: dict[str, list[Tensor]] = {each.name: [] for each in program.latents}
    points: dict[str, Tensor] = {}
    predicted: dict[str, list[Tensor]] = {}
    values_of: dict[str, Tensor] = {}
    for states in _joint_states(program):
        given = dict(zip(names, states, strict=True))
        rest = {each.name: _rest(each).expand(1, 1, *shapes[each.name]) for each in program.latents}
        base = _log_joint(program, given, rest, 1, 1)[0, 0]
        total = base
        per_site, per_new = {}, {}
        for latent in program.latents:
            shape = shapes[latent.name]
            extra = 1 if latent.family == "Dirichlet" else 0
            count = math.prod(shape[: len(shape) - extra])
            values, spots = _grid(latent.family), _SPOTS[latent.family]
            points[latent.name] = spots.reshape(2, *[1] * (len(shape) - extra), *spots.shape[1:]).expand(
                2, *shape
            )
            values = torch.cat([values, spots])
            moving = torch.eye(count, dtype=torch.bool).reshape(count, 1, *shape[: len(shape) - extra])
            grid = values.reshape(1, len(values), *[1] * (len(shape) - extra), *values.shape[1:])
            if extra:
                moving = moving.unsqueeze(-1)
            own = torch.where(moving, grid, rest[latent.name])
            found = _log_joint(program, given, {**rest, latent.name: own}, count, len(values)) - base
            times = 2.0 if program.subsampled and "p" in latent.place else 1.0
            found = found / times
            integral = _log_integral(latent.family, values[:-2], found[:, :-2])
            total = total + times * integral.sum()
            per_site[latent.name] = (found[:, -2:] - integral.unsqueeze(1)).mT
            if latent.new is not None:
                values_of[latent.new.name] = value = _new_value(latent)
                both = {**given, latent.new.name: value}
                trace = _trace(program, both, {**rest, latent.name: own}, count, len(values), latent.name)
                each = (
                    trace.nodes[latent.new.name]["log_prob"].expand(count, len(values), *shape[:2]).flatten(2)
                )
                each = each.diagonal(dim1=0, dim2=2).mT + found
                new = _log_integral(latent.family, values[:-2], each[:, :-2]) - integral
                per_new[latent.new.name] = new.reshape(shape[:2])
        totals.append(total)
        for name, each in per_new.items():
            predicted.setdefault(name, []).append(each + total)
        for name, each in per_site.items():
            latent = next(latent for latent in program.latents if latent.name == name)
            batch = shapes[name][: len(shapes[name]) - (1 if latent.family == "Dirichlet" else 0)]
            each = each.reshape(2, *batch)
            if latent.event:
                each = each.sum(-1)
            densities[name].append(each.reshape(2, *each.shape[3 - _depth(latent) :]) + total)
    log_evidence = torch.stack(totals).logsumexp(0)
    return Known(
        log_evidence,
        {
            each.name: points[each.name].reshape(2, *points[each.name].shape[3 - _depth(each) :])
            for each in program.latents
        },
        {name: torch.stack(each).logsumexp(0) - log_evidence for name, each in densities.items()},
        values_of,
        {name: torch.stack(each).logsumexp(0) - log_evidence for name, each in predicted.items()},
    )


def _depth(latent: Latent) -> int:
    return max([-PLATES[each][0] for each in latent.place], default=0)


def _shape_of(latent: Latent) -> tuple[int, ...]:
    """Of its value, with dimensions for both plates."""
    batch = [PLATES[each][1] if each in latent.place else 1 for each in ("q", "p")]
    return (*batch, *([3] if latent.family == "Dirichlet" else [ENTRIES] if latent.event else []))


def _rest(latent: Latent) -> Tensor:
    return torch.tensor([0.2, 0.5, 0.3], dtype=D) if latent.family == "Dirichlet" else number(0.6)


def _joint_states(program: Program) -> Iterator[tuple[Tensor, ...]]:
    shapes = list(program.discrete_sites().values())
    counts = [math.prod(shape) for shape in shapes]
    for flat in itertools.product(range(2), repeat=sum(counts)):
        left = list(flat)
        found = []
        for shape, count in zip(shapes, counts, strict=True):
            found.append(torch.tensor(left[:count]).reshape(shape))
            left = left[count:]
        yield tuple(found)


def _trace(
    program: Program,
    given: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    count: int,
    size: int,
    predicted: str | None = None,
) -> Any:
    """A run with elements that move, ``count``, and points, ``size``, in plates around all of it."""
    data = {**given, **{name: each.expand(count, size, *each.shape[2:]) for name, each in values.items()}}
    outer = {"points": size, "moving": count}
    run = poutine.trace(poutine.condition(program, data=data))
    trace = run.get_trace(outer=outer, plain=True, predicted=predicted)
    trace.compute_log_prob()
    return trace


def _log_joint(
    program: Program, given: Mapping[str, Tensor], values: Mapping[str, Tensor], count: int, size: int
) -> Tensor:
    """The log-joint density for each of ``count`` moving elements at each point: shape ``(count, size)``."""
    total = torch.zeros(count, size, dtype=D)
    for site in _trace(program, given, values, count, size).nodes.values():
        if site["type"] == "sample":
            own = site["log_prob"]
            own = own.reshape([*[1] * (4 - own.ndim), *own.shape])
            total = total + own.expand(count, size, *own.shape[2:]).sum((2, 3))
    return total


def _new_value(latent: Latent) -> Tensor:
    """A value of a prediction, in its support whatever the numbers."""
    assert latent.new is not None
    kind = latent.new.kind.split(" ")[0]
    if kind in ("OneHotCategorical", "Multinomial"):
        own = torch.tensor([0.0, 1.0, 0.0] if kind == "OneHotCategorical" else [1.0, 0.0, 2.0], dtype=D)
    elif kind == "Categorical":
        own = torch.tensor(1)
    else:
        counts = ("Bernoulli", "Binomial", "Geometric", "NegativeBinomial", "Poisson")
        own = number(1.0 if kind in counts else 1.7)
    batch = _shape_of(latent)[:2]
    return own.expand((*batch[2 - _depth(latent) :], *own.shape))


_SPOTS = {
    "Beta": torch.tensor([0.2, 0.55], dtype=D),
    "Gamma": torch.tensor([0.7, 1.6], dtype=D),
    "InverseGamma": torch.tensor([0.4, 1.3], dtype=D),
    "Dirichlet": torch.tensor([[0.3, 0.1, 0.6], [0.2, 0.35, 0.45]], dtype=D),
}
"""Where posterior densities are compared."""


def _line() -> Tensor:
    return torch.linspace(-36.0, 36.0, 721, dtype=D)


def _grid(family: str) -> Tensor:
    """Points of the support."""
    if family == "Dirichlet":
        rows = [[2, 3, 5], [6, 3, 1], [1, 8, 1], [2, 2, 6], [4, 5, 1], [3, 3, 4]]
        return torch.tensor(rows, dtype=D) / 10
    return _line().sigmoid() if family == "Beta" else _line().exp()


def _log_integral(family: str, points: Tensor, logs: Tensor) -> Tensor:
    """Of a density with the given logarithms, shape ``(elements, points)``."""
    if family == "Dirichlet":
        design = torch.cat([torch.ones(len(points), 1, dtype=D), points.log()], 1)
        const, *powers = torch.linalg.solve(design[:4], logs[:, :4].mT)
        torch.testing.assert_close(design @ torch.stack([const, *powers]), logs.mT, rtol=1e-9, atol=1e-9)
        alpha = torch.stack(powers) + 1
        return const + torch.lgamma(alpha).sum(0) - torch.lgamma(alpha.sum(0))
    t = _line()
    weights = logsigmoid(t) + logsigmoid(-t) if family == "Beta" else t
    return (logs + weights).logsumexp(1) + (t[1] - t[0]).log()
