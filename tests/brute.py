"""A third language for named programs: every joint assignment of the discrete sites at once, or one by one.

Nothing of sumout is imported, and nothing of Pyro but its distributions. A program of ``models`` is run with plain
values: ``sample`` returns what an assignment says, scores it, and adds up. A mask takes observations away; a hidden
variable keeps its prior, so that it sums to one. Where a program works elementwise, all
assignments go through it in one run, along one dimension to the left of the plates (``evidence``); where the values
steer Python, there is a run for each (``paths``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from models import Build


@dataclass
class Store:
    """Params: unconstrained leaves, and the transforms that make values of them."""

    leaves: dict[str, Tensor] = field(default_factory=dict)
    kinds: dict[str, Any] = field(default_factory=dict)

    def __call__(self, name: str, value: Any = None, constraint: Any = constraints.real) -> Tensor:
        if name not in self.leaves:
            leaf = transform_to(constraint).inv(value).detach().clone().requires_grad_()
            self.leaves[name], self.kinds[name] = leaf, constraint
        return transform_to(self.kinds[name])(self.leaves[name])

    def values(self) -> dict[str, Tensor]:
        """The constrained values, by the part of the name after the dot."""
        return {name.split(".")[1]: self(name) for name in self.leaves}


@dataclass
class Copies:
    """A discrete site: the sizes of its plates by (negative) dim, and its values as many as it has states."""

    plates: dict[int, int]
    support: Tensor

    @property
    def count(self) -> int:
        return math.prod(self.plates.values())

    @property
    def elements(self) -> int:
        return len(self.support)

    def values(self, states: Sequence[int]) -> Tensor:
        """What the site is when its copies have these states."""
        shape = [self.plates.get(dim, 1) for dim in range(min(self.plates, default=0), 0)]
        return self.support[torch.tensor(states)].reshape(shape)


class Run:
    """One run of a program with given values.

    Args:
        store: the params.
        nesting: dimensions that belong to plates.
        values: of latent sites; sites without one are drawn (reparameterized where that is possible).
    """

    def __init__(self, store: Store, nesting: int, values: Mapping[str, Tensor]) -> None:
        self.values = dict(values)
        self.nesting = nesting
        self.log_joint = torch.zeros((), dtype=torch.float64)
        self.by_site: dict[str, Tensor] = {}
        self.copies: dict[str, Copies] = {}
        self.drawn: dict[str, Tensor] = {}
        self._plates: dict[int, int] = {}
        self._masks: list[Any] = []
        self._scales: list[Any] = []
        self.language = SimpleNamespace(
            sample=self._sample,
            param=store,
            plate=self._plate,
            markov=lambda steps, history=1, keep=False: steps,
            factor=lambda name, log_factor: self._score(name, log_factor),
            deterministic=lambda name, value: value,
            mask=lambda mask: self._within(self._masks, mask),
            scale=lambda scale: self._within(self._scales, scale),
            dist=dist,
        )

    def record(self, build: Build) -> Run:
        """Runs a program."""
        build(self.language)()
        return self

    def _sample(self, name: str, fn: Any, obs: Any = None, infer: Any = None) -> Any:
        if obs is not None:
            self._score(name, fn.log_prob(obs))
            return obs
        if name not in self.values:
            shape = [self._plates.get(dim, 1) for dim in range(-self.nesting, 0)]
            shape = list(torch.broadcast_shapes(torch.Size(shape), fn.batch_shape))
            while shape and shape[0] == 1 and len(shape) > max([-dim for dim in self._plates], default=0):
                shape = shape[1:]
            wide = fn.expand(shape)
            self.values[name] = self.drawn[name] = wide.rsample() if fn.has_rsample else wide.sample()
        counts = getattr(fn, "total_count", torch.zeros(())).flatten()
        if fn.has_enumerate_support and bool((counts == counts[0]).all()):  # else the support is ragged
            support = fn.enumerate_support(expand=False).reshape(-1)
            self.copies[name] = Copies(dict(sorted(self._plates.items())), support)
        self._score(name, fn.log_prob(self.values[name]), masked=not fn.has_enumerate_support)
        return self.values[name]

    def _score(self, name: str, log_prob: Tensor, masked: bool = True) -> None:
        log_prob = torch.as_tensor(log_prob)
        shape = [self._plates.get(dim, 1) for dim in range(-self.nesting, 0)]
        if self.nesting:
            log_prob = log_prob.expand(torch.broadcast_shapes(log_prob.shape, torch.Size(shape)))
            assert list(log_prob.shape[-self.nesting :]) == shape, (
                f"{name} varies along dims that are no plate's"
            )
        for mask in self._masks if masked else []:
            log_prob = torch.where(torch.as_tensor(mask), log_prob, torch.zeros_like(log_prob))
        for scale in self._scales:
            log_prob = log_prob * scale
        if self.nesting:
            log_prob = log_prob.sum(tuple(range(-self.nesting, 0)))
        self.by_site[name] = log_prob
        self.log_joint = self.log_joint + log_prob

    def _plate(
        self, name: str, size: int, subsample_size: Any = None, subsample: Any = None, dim: int | None = None
    ) -> Any:
        if subsample is not None:
            indices, weight = torch.as_tensor(subsample), size / len(subsample)
        else:
            assert subsample_size is None, "a subsample that is drawn has no one answer"
            indices, weight = torch.arange(size), 1.0
        return _Plate(self, indices, weight, dim)

    @contextmanager
    def _within(self, values: list[Any], value: Any) -> Iterator[None]:
        values.append(value)
        yield
        values.pop()


class _Plate:
    def __init__(self, run: Run, indices: Tensor, weight: float, dim: int | None) -> None:
        self.run, self.indices, self.weight, self.dim = run, indices, weight, dim
        self.taken: list[int] = []

    def __enter__(self) -> Tensor:
        plates = self.run._plates
        dim = self.dim
        if dim is None:
            dim = next(each for each in range(-1, -20, -1) if each not in plates)
        assert dim not in plates
        assert dim >= -self.run.nesting
        plates[dim] = len(self.indices)
        self.taken.append(dim)
        self.run._scales.append(self.weight)
        return self.indices

    def __exit__(self, *_: Any) -> None:
        self.run._scales.pop()
        del self.run._plates[self.taken.pop()]

    def __iter__(self) -> Iterator[int]:
        self.run._scales.append(self.weight)
        yield from self.indices.tolist()
        self.run._scales.pop()


# ------------------------------------------------------------------------------------------- all at once


@dataclass
class Answer:
    """The joint of all assignments: ``log_joint`` of shape (assignments,), ``states`` (assignments, copies)."""

    log_joint: Tensor
    states: Tensor
    copies: dict[str, Copies]

    @property
    def log_evidence(self) -> Tensor:
        return torch.logsumexp(self.log_joint, 0)

    def columns(self, name: str) -> slice:
        """Where in ``states`` the copies of a site are."""
        start = 0
        for each, copies in self.copies.items():
            if each == name:
                return slice(start, start + copies.count)
            start += copies.count
        raise KeyError(name)

    def marginal(self, name: str) -> Tensor:
        """Posterior probabilities, shape (copies, states)."""
        weights = torch.softmax(self.log_joint, 0)
        states = self.states[:, self.columns(name)]
        number = self.copies[name].elements
        return torch.stack([(weights[:, None] * (states == k)).sum(0) for k in range(number)], -1)

    def row(self, values: Mapping[str, Tensor]) -> int:
        """The number of the assignment with these values."""
        agree = torch.ones(len(self.states), dtype=torch.bool)
        for name, copies in self.copies.items():
            wanted = torch.as_tensor(values[name]).reshape(-1, 1) == copies.support
            agree &= (self.states[:, self.columns(name)] == wanted.long().argmax(-1)).all(-1)
        (found,) = agree.nonzero().flatten().tolist()
        return found


def draw(build: Build, nesting: int, seed: int = 0) -> Run:
    """A run with all latent sites drawn from the prior."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return Run(Store(), nesting, {}).record(build)


def evidence(
    build: Build, store: Store, nesting: int, discrete: tuple[str, ...], given: Mapping[str, Tensor]
) -> Answer:
    """All assignments of the discrete sites in one run, the other latent sites at given values."""
    rehearsal = Run(store, nesting, given).record(build)
    copies = {
        name: found for name, found in rehearsal.copies.items() if name in discrete and name not in given
    }
    sizes = [each.elements for each in copies.values() for _ in range(each.count)]
    assert math.prod(sizes) <= 2**17, f"too much for brute force: {math.prod(sizes)} assignments"
    ranges = [torch.arange(size) for size in sizes]
    states = (
        torch.cartesian_prod(*ranges).reshape(-1, len(sizes))
        if sizes
        else torch.zeros(1, 0, dtype=torch.long)
    )
    answer = Answer(torch.zeros(()), states, copies)
    values = dict(given)
    for name, each in copies.items():
        shape = [each.plates.get(dim, 1) for dim in range(-nesting, 0)]
        values[name] = each.support[states[:, answer.columns(name)]].reshape(-1, *shape)
    run = Run(store, nesting, values).record(build)
    answer.log_joint = run.log_joint.expand(len(states))
    return answer


@dataclass
class Path:
    """One way through a program: the values of its discrete sites, and the log of their joint with the data."""

    values: dict[str, Tensor]
    log_joint: Tensor


def paths(build: Build, store: Store, nesting: int, given: Mapping[str, Tensor]) -> list[Path]:
    """A run for each way through a program that is no elementwise one."""
    found: list[Path] = []

    def follow(chosen: dict[str, Tensor]) -> None:
        run = Run(store, nesting, {**given, **chosen}).record(build)
        new = [name for name in run.copies if name not in chosen and name not in given]
        if not new:
            found.append(Path(chosen, run.log_joint))
            return
        copies = run.copies[new[0]]
        for states in itertools.product(range(copies.elements), repeat=copies.count):
            follow({**chosen, new[0]: copies.values(states)})

    follow({})
    return found


# -------------------------------------------------------------------------------------------- with a guide


def elbo(
    build: Build,
    guide: Build,
    store: Store,
    nesting: int,
    discrete: tuple[str, ...],
    enumerated: tuple[str, ...],
    seed: int,
) -> Tensor:
    """The evidence lower bound at one draw of the guide's continuous sites; its discrete ones are averaged over.

    ``Σ_q(e) [log Σ_z p(z, e, c) - log q(e, c)]`` with ``e`` the guide's discrete sites and ``c`` its draws.
    """
    torch.manual_seed(seed)
    first = Run(store, nesting, {}).record(guide)
    drawn = {name: value for name, value in first.drawn.items() if name not in enumerated}
    copies = {name: found for name, found in first.copies.items() if name in enumerated}
    terms = []
    places = [(name, place) for name, each in copies.items() for place in range(each.count)]
    for states in itertools.product(*(range(copies[name].elements) for name, _ in places)):
        values = dict(drawn)
        for name, each in copies.items():
            mine = [k for (owner, _), k in zip(places, states, strict=True) if owner == name]
            values[name] = each.values(mine)
        run = Run(store, nesting, values).record(guide)
        weight = sum((run.by_site[name] for name in copies), torch.zeros(()).double()).exp()
        hidden = tuple(name for name in discrete if name not in values)
        answer = evidence(build, store, nesting, hidden, values)
        terms.append(weight * (answer.log_evidence - run.log_joint))
    return torch.stack(terms).sum()
