"""Trees, networks and random fields: variables that have names of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.language import Program, at, model, numbers, positive, real, simplex, unit, vector

INNER = ("root", "left", "right")
LEAVES = {"ape": "left", "bear": "left", "cat": "right", "dog": "right"}


@model(
    latent=INNER,
    observed=tuple(LEAVES),
    discrete=INNER,
    max_plate_nesting=1,
    params=("letters", "lengths"),
)
def phylogenetic_tree(ppl: Any) -> Program:
    """Letters of four species, changing along the branches of a tree. Felsenstein (1981)."""
    letters = {
        name: torch.tensor(row) for name, row in zip(LEAVES, ([0, 1], [0, 3], [2, 1], [2, 2]), strict=True)
    }

    def program() -> Any:
        probs, lengths = simplex(ppl, "letters", 4), positive(ppl, "lengths", 6)

        def along(branch: int, letter: Any) -> Any:
            keep = torch.exp(-lengths[branch])
            return ppl.dist.Categorical(at(keep * torch.eye(4).double() + (1 - keep) * probs, letter))

        with ppl.plate("columns", 2):
            found = {"root": ppl.sample("root", ppl.dist.Categorical(probs))}
            for branch, name in enumerate(("left", "right")):
                found[name] = ppl.sample(name, along(branch, found["root"]))
            for branch, (name, parent) in enumerate(LEAVES.items(), start=2):
                ppl.sample(name, along(branch, found[parent]), obs=letters[name])

    return program


CLINIC = ("asia", "smoke", "tub", "lung", "bronc", "either")


@model(
    latent=CLINIC,
    observed=("xray", "dysp"),
    discrete=CLINIC,
    params=("tub", "lung", "bronc", "smoke", "either", "xray", "dysp"),
)
def chest_clinic(ppl: Any) -> Program:
    """The network of Lauritzen and Spiegelhalter (1988), with other numbers: loops that are no chain."""

    def program() -> Any:
        def node(name: str, table: torch.Tensor, *parents: Any, obs: Any = None) -> Any:
            return ppl.sample(name, ppl.dist.Bernoulli(at(table, *parents)), obs=obs)

        asia = ppl.sample("asia", ppl.dist.Bernoulli(vector(0.1)[0]))
        smoke = ppl.sample("smoke", ppl.dist.Bernoulli(unit(ppl, "smoke")))
        tub = node("tub", unit(ppl, "tub", 2), asia)
        lung = node("lung", unit(ppl, "lung", 2), smoke)
        bronc = node("bronc", unit(ppl, "bronc", 2), smoke)
        either = node("either", unit(ppl, "either", 2, 2), tub, lung)
        node("xray", unit(ppl, "xray", 2), either, obs=vector(1.0)[0])
        node("dysp", unit(ppl, "dysp", 2, 2), bronc, either, obs=vector(1.0)[0])

    return program


CAUSES = tuple(f"cause_{i}" for i in range(5))


@model(
    latent=CAUSES,
    observed=tuple(f"finding_{j}" for j in range(3)),
    discrete=CAUSES,
    params=("priors", "strengths", "leaks"),
)
def noisy_or(ppl: Any) -> Program:
    """Diseases, and findings that each of them may cause by itself. Pearl (1988), section 4.3.2."""
    present = vector(1.0, 0.0, 1.0)

    def program() -> Any:
        priors, strengths, leaks = unit(ppl, "priors", 5), unit(ppl, "strengths", 5, 3), unit(ppl, "leaks", 3)
        causes = [ppl.sample(name, ppl.dist.Bernoulli(priors[i])) for i, name in enumerate(CAUSES)]
        for j in range(3):
            absent = 1 - 0.2 * leaks[j]
            for i, cause in enumerate(causes):
                absent = absent * (1 - strengths[i, j] * cause)
            ppl.sample(f"finding_{j}", ppl.dist.Bernoulli(1 - absent), obs=present[j])

    return program


GRID = [(i, j) for i in range(3) for j in range(3)]


@model(
    latent=tuple(f"spin_{i}{j}" for i, j in GRID),
    observed=(),
    discrete=tuple(f"spin_{i}{j}" for i, j in GRID),
    factors=(
        *(f"field_{i}{j}" for i, j in GRID),
        *(f"down_{i}{j}" for i, j in GRID if i < 2),
        *(f"right_{i}{j}" for i, j in GRID if j < 2),
    ),
    params=("coupling", "field"),
)
def ising_grid(ppl: Any) -> Program:
    """Nine spins on a square that like their neighbours."""

    def program() -> Any:
        coupling, field = real(ppl, "coupling"), real(ppl, "field", 3, 3)
        spins: dict[tuple[int, int], Any] = {}
        for i, j in GRID:
            up = ppl.sample(f"spin_{i}{j}", ppl.dist.Bernoulli(vector(0.5)[0]))
            spins[i, j] = 2 * up - 1
            ppl.factor(f"field_{i}{j}", field[i, j] * spins[i, j])
        for i, j in GRID:
            if i < 2:
                ppl.factor(f"down_{i}{j}", coupling * spins[i, j] * spins[i + 1, j])
            if j < 2:
                ppl.factor(f"right_{i}{j}", coupling * spins[i, j] * spins[i, j + 1])

    return program


RING = tuple(f"colour_{i}" for i in range(5))


@model(
    latent=RING,
    observed=(),
    discrete=RING,
    factors=tuple(f"edge_{i}" for i in range(5)),
    params=("weights", "clash"),
)
def potts_ring(ppl: Any) -> Program:
    """Colours around a ring; neighbours of one colour cost something."""

    def program() -> Any:
        weights, clash = simplex(ppl, "weights", 3), positive(ppl, "clash")
        colours = [ppl.sample(name, ppl.dist.Categorical(weights)) for name in RING]
        for i in range(5):
            ppl.factor(f"edge_{i}", -clash * (colours[i] == colours[i - 1]).double())

    return program


@model(
    latent=("rain", "sprinkler"),
    observed=("wet",),
    discrete=("rain", "sprinkler"),
    params=("rain", "sprinkler", "wet"),
)
def explaining_away(ppl: Any) -> Program:
    """Wet grass: the sprinkler, or the rain?"""

    def program() -> Any:
        rain = ppl.sample("rain", ppl.dist.Bernoulli(unit(ppl, "rain")))
        sprinkler = ppl.sample("sprinkler", ppl.dist.Bernoulli(at(unit(ppl, "sprinkler", 2), rain)))
        wet = ppl.dist.Bernoulli(at(unit(ppl, "wet", 2, 2), rain, sprinkler))
        ppl.sample("wet", wet, obs=vector(1.0)[0])

    return program


@model(
    latent=("a", "b", "c", "d"),
    observed=("x",),
    discrete=("a", "b", "c", "d"),
    max_plate_nesting=1,
    params=("a", "b", "c", "d", "locs"),
)
def diamond(ppl: Any) -> Program:
    """Two ways from a to d, in a plate."""
    data = vector(0.4, -1.0)

    def program() -> Any:
        tops, lefts, rights = simplex(ppl, "a", 2), simplex(ppl, "b", 2, 3), simplex(ppl, "c", 2, 2)
        bottoms, locs = simplex(ppl, "d", 3, 2, 2), real(ppl, "locs", 2)
        with ppl.plate("data", 2):
            a = ppl.sample("a", ppl.dist.Categorical(tops))
            b = ppl.sample("b", ppl.dist.Categorical(at(lefts, a)))
            c = ppl.sample("c", ppl.dist.Categorical(at(rights, a)))
            d = ppl.sample("d", ppl.dist.Categorical(at(bottoms, b, c)))
            ppl.sample("x", ppl.dist.Normal(at(locs, d), 1.0), obs=data)

    return program


HIDDEN = tuple(f"h_{j}" for j in range(4))


@model(
    latent=HIDDEN,
    observed=("v",),
    discrete=HIDDEN,
    max_plate_nesting=1,
    params=("weights", "bias"),
)
def sigmoid_belief_network(ppl: Any) -> Program:
    """Hidden bits that all turn on all of what is seen. Neal (1992)."""
    seen = vector(1.0, 0.0, 1.0)

    def program() -> Any:
        weights, bias = real(ppl, "weights", 4, 3), real(ppl, "bias", 3)
        hidden = [ppl.sample(name, ppl.dist.Bernoulli(vector(0.3)[0])) for name in HIDDEN]
        with ppl.plate("visible", 3):
            logits = bias + sum(each * row for each, row in zip(hidden, weights, strict=True))
            ppl.sample("v", ppl.dist.Bernoulli(logits=logits), obs=seen)

    return program


ONE_BY_ONE = {"enumerate": "sequential"}


@model(
    latent=("top", "second"),
    observed=("x",),
    sequential=("top", "second"),
    params=("rate", "table", "loc"),
    apart=True,
    pyro="refuses",
)
def branching(ppl: Any) -> Program:
    """A value decides what comes next: each path through the program is a run of its own."""

    def program() -> Any:
        rate, table, loc = unit(ppl, "rate"), simplex(ppl, "table", 3), real(ppl, "loc")
        top = ppl.sample("top", ppl.dist.Bernoulli(rate), infer=ONE_BY_ONE)
        follows = ppl.dist.Categorical(table) if top == 1 else ppl.dist.Bernoulli(0.5 * rate)
        second = ppl.sample("second", follows, infer=ONE_BY_ONE)
        ppl.sample("x", ppl.dist.Normal(loc * second if top == 1 else loc - second, 1.0), obs=vector(0.7)[0])

    return program


@model(
    latent=("top", "count", "flag"),
    observed=("x",),
    sequential=("top", "count", "flag"),
    params=("rate", "table", "loc"),
    apart=True,
    pyro="refuses",
)
def varying_sites(ppl: Any) -> Program:
    """A value decides which sites there are."""

    def program() -> Any:
        rate, table, loc = unit(ppl, "rate"), simplex(ppl, "table", 3), real(ppl, "loc")
        if ppl.sample("top", ppl.dist.Bernoulli(rate), infer=ONE_BY_ONE) == 1:
            total = loc * ppl.sample("count", ppl.dist.Categorical(table), infer=ONE_BY_ONE)
        else:
            total = loc - ppl.sample("flag", ppl.dist.Bernoulli(0.5 * rate), infer=ONE_BY_ONE)
        ppl.sample("x", ppl.dist.Normal(total, 1.0), obs=vector(0.7)[0])

    return program


@model(
    latent=("steps", "z"),
    observed=("x_0", "x_1", "x_2"),
    sequential=("steps",),
    discrete=("z",),
    params=("lengths", "rate"),
    pyro="refuses",
)
def random_length(ppl: Any) -> Program:
    """How many of the data are explained by z is itself drawn; one site by runs, the other at once."""

    def program() -> Any:
        lengths, rate = simplex(ppl, "lengths", 3), unit(ppl, "rate")
        steps = ppl.sample("steps", ppl.dist.Categorical(lengths), infer=ONE_BY_ONE)
        z = ppl.sample("z", ppl.dist.Bernoulli(rate))
        data = vector(0.2, 1.1, -0.6)
        for t in range(3):
            loc = z * (1.0 + t) if t < int(steps) else torch.zeros_like(z)
            ppl.sample(f"x_{t}", ppl.dist.Normal(loc, 1.0), obs=data[t])

    return program


MANY = tuple(f"z_{i}" for i in range(12))


@model(latent=MANY, observed=tuple(f"x_{i}" for i in range(12)), discrete=MANY, params=("rates", "loc"))
def many_sites(ppl: Any) -> Program:
    """Twelve sites without a plate and without a chain."""
    data = 3.0 * numbers(12, turn=2.9) - 1.0

    def program() -> Any:
        rates, loc = unit(ppl, "rates", 12), real(ppl, "loc")
        for i, name in enumerate(MANY):
            z = ppl.sample(name, ppl.dist.Bernoulli(rates[i]))
            ppl.sample(f"x_{i}", ppl.dist.Normal(loc * z, 1.0), obs=data[i])

    return program


HUNDRED = tuple(f"z_{i}" for i in range(100))
DATA = 3.0 * numbers(100, turn=2.9) - 1.0


def _independent(params: dict[str, Tensor]) -> Tensor:
    normals = torch.distributions.Normal(torch.stack([0 * params["loc"], params["loc"]])[:, None], 1.0)
    weights = torch.stack([1 - params["rate"], params["rate"]]).log()[:, None]
    return torch.logsumexp(weights + normals.log_prob(DATA), 0).sum()


@model(
    latent=HUNDRED,
    observed=tuple(f"x_{i}" for i in range(100)),
    discrete=HUNDRED,
    params=("rate", "loc"),
    apart=True,
    evidence=_independent,
    pyro="refuses",
)
def hundred_sites(ppl: Any) -> Program:
    """More sites than tensors have dimensions, without a plate and without a chain."""

    def program() -> Any:
        rate, loc = unit(ppl, "rate"), real(ppl, "loc")
        for i, name in enumerate(HUNDRED):
            z = ppl.sample(name, ppl.dist.Bernoulli(rate))
            ppl.sample(f"x_{i}", ppl.dist.Normal(loc * z, 1.0), obs=DATA[i])

    return program
