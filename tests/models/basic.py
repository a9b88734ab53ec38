"""The smallest programs of each kind, most of them without params."""

from __future__ import annotations

from typing import Any

import torch

from models.language import Build, Program, at, chain_tables, model, vector


@model(latent=("z",), observed=("x",))
def normal_normal(ppl: Any) -> Program:
    """z ~ N(0, 1), x ~ N(z, 1/2); evidence N(x; 0, 1 + 1/4), posterior mean 4x/5."""

    def program() -> Any:
        z = ppl.sample("z", ppl.dist.Normal(vector(0.0)[0], 1.0))
        ppl.sample("x", ppl.dist.Normal(z, 0.5), obs=vector(1.2)[0])
        return z

    return program


@model(latent=("locs", "z"), observed=("x",), discrete=("z",), max_plate_nesting=1)
def mixture(ppl: Any) -> Program:
    """A mixture of three normals with random centres, over a plate of data."""
    data = vector(-1.3, 0.2, 0.4, 2.1, 1.9)
    weights = vector(0.5, 0.3, 0.2)

    def program() -> Any:
        with ppl.plate("components", 3):
            locs = ppl.sample("locs", ppl.dist.Normal(vector(0.0)[0], 2.0))
        with ppl.plate("data", len(data)):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            ppl.sample("x", ppl.dist.Normal(at(locs, z), 0.7), obs=data)
        return z

    return program


def _hmm(history: int) -> Build:
    def build(ppl: Any) -> Program:
        data = vector(0.1, 1.2, -0.4, 2.0)
        locs = vector(-1.0, 0.5, 2.0)
        initial, first, second = chain_tables(3)

        def program() -> Any:
            states: list[Any] = []
            for t in ppl.markov(range(len(data)), history=history):
                if t == 0:
                    probs = initial
                elif t == 1 or history == 1:
                    probs = at(first, states[-1])
                else:
                    probs = at(second, states[-2], states[-1])
                states.append(ppl.sample(f"s_{t}", ppl.dist.Categorical(probs)))
                ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, states[-1]), 1.0), obs=data[t])
            return states[-1]

        return program

    build.__name__ = f"hmm_{history}"
    build.__doc__ = f"A chain of 3 states over 4 steps; each state depends on the last {history}."
    return build


for _history in (1, 2):
    _steps = range(4)
    _names = tuple(f"s_{t}" for t in _steps)
    model(latent=_names, observed=tuple(f"x_{t}" for t in _steps), discrete=_names)(_hmm(_history))


@model(latent=("topic", "loc", "word"), observed=("x",), discrete=("topic", "word"), max_plate_nesting=2)
def nested_plates(ppl: Any) -> Program:
    """Documents with a topic and a location each, in them words with a binary class each."""
    data = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(4, 3)

    def program() -> Any:
        with ppl.plate("documents", 3, dim=-1):
            topic = ppl.sample("topic", ppl.dist.Categorical(vector(0.2, 0.8)))
            loc = ppl.sample("loc", ppl.dist.Normal(vector(0.0)[0], 1.0))
            with ppl.plate("words", 4, dim=-2):
                word = ppl.sample("word", ppl.dist.Bernoulli(at(vector(0.3, 0.6), topic)))
                ppl.sample("x", ppl.dist.Normal(loc + word, 1.0), obs=data)
        return topic

    return program


@model(latent=("z",), observed=("x",), max_plate_nesting=1, subsampled=True)
def subsampled(ppl: Any) -> Program:
    """A normal location with 10 data, 4 of them looked at."""
    data = torch.linspace(-2.0, 2.0, 10, dtype=torch.float64)

    def program() -> Any:
        z = ppl.sample("z", ppl.dist.Normal(vector(0.0)[0], 1.0))
        with ppl.plate("data", len(data), subsample_size=4) as indices:
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=data[indices])
        return z

    return program


@model(latent=("z",), observed=("x",), discrete=("z",), params=("probs", "rates"), max_plate_nesting=1)
def parameters(ppl: Any) -> Program:
    """A Poisson mixture whose weights and rates are parameters."""
    constraints = torch.distributions.constraints
    counts = vector(0.0, 3.0, 7.0)

    def program() -> Any:
        probs = ppl.param("probs", vector(0.4, 0.6), constraint=constraints.simplex)
        rates = ppl.param("rates", vector(1.0, 5.0), constraint=constraints.positive)
        with ppl.plate("data", len(counts)):
            z = ppl.sample("z", ppl.dist.Categorical(probs))
            ppl.sample("x", ppl.dist.Poisson(at(rates, z)), obs=counts)
        return z

    return program


@model(latent=("z",), observed=("x", "y"), discrete=("z",), max_plate_nesting=1, ours="refuses")
def masked_and_scaled(ppl: Any) -> Program:
    """Missing data by a mask, weights by a scale: others for a variable than for what depends on it."""
    data = vector(1.0, 0.0, 1.0)
    present = torch.tensor([True, False, True])

    def program() -> Any:
        with ppl.plate("data", len(data)):
            with ppl.scale(scale=2.0):
                z = ppl.sample("z", ppl.dist.Bernoulli(vector(0.3)[0]))
            with ppl.mask(mask=present):
                ppl.sample("x", ppl.dist.Bernoulli(0.2 + 0.5 * z), obs=data)
            with ppl.mask(mask=present), ppl.scale(scale=vector(0.5, 1.0, 3.0)):
                ppl.sample("y", ppl.dist.Normal(z, 1.0), obs=data)
        return z

    return program


@model(latent=("z",), observed=("twice", "penalty"))
def deterministic(ppl: Any) -> Program:
    """A deterministic site and a factor."""

    def program() -> Any:
        z = ppl.sample("z", ppl.dist.Normal(vector(0.0)[0], 1.0))
        twice = ppl.deterministic("twice", 2.0 * z)
        ppl.factor("penalty", -twice.abs())
        return twice

    return program


@model(latent=("coin",), observed=("x_0", "x_1"), discrete=("coin",))
def iterated_plate(ppl: Any) -> Program:
    """A plate that is a loop, after a shared coin."""

    def program() -> Any:
        coin = ppl.sample("coin", ppl.dist.Bernoulli(vector(0.4)[0]))
        for i in ppl.plate("loop", 2):
            ppl.sample(f"x_{i}", ppl.dist.Normal(coin + i, 1.0), obs=vector(0.5, 1.5)[i])
        return coin

    return program
