"""Several chains at once, and chains whose steps hold more than a state."""

from __future__ import annotations

from typing import Any

import torch

from models.chains import SERIES, named
from models.language import Build, Program, at, model, numbers, real, simplex, unit, vector


@model(
    latent=(*named("a", 4), *named("b", 4)),
    observed=named("x", 4),
    discrete=(*named("a", 4), *named("b", 4)),
    params=("a_table", "b_table", "a_locs", "b_locs"),
)
def factorial_hmm(ppl: Any) -> Program:
    """Two chains that know nothing of each other; what is seen is their sum. Ghahramani and Jordan (1997)."""

    def program() -> Any:
        a_table, b_table = simplex(ppl, "a_table", 2, 2), simplex(ppl, "b_table", 3, 3)
        a_locs, b_locs = real(ppl, "a_locs", 2), real(ppl, "b_locs", 3)
        a: Any = torch.tensor(0)
        b: Any = torch.tensor(0)
        for t in ppl.markov(range(4)):
            a = ppl.sample(f"a_{t}", ppl.dist.Categorical(at(a_table, a)))
            b = ppl.sample(f"b_{t}", ppl.dist.Categorical(at(b_table, b)))
            ppl.sample(f"x_{t}", ppl.dist.Normal(at(a_locs, a) + at(b_locs, b), 1.0), obs=SERIES[t])

    return program


@model(
    latent=(*named("a", 4), *named("b", 4), *named("c", 4)),
    observed=named("x", 4),
    discrete=(*named("a", 4), *named("b", 4), *named("c", 4)),
    params=("stay", "heights"),
)
def three_factor_hmm(ppl: Any) -> Program:
    """Three switches, each on or off; what is seen is what is switched on."""

    def program() -> Any:
        stay, heights = unit(ppl, "stay", 3), real(ppl, "heights", 3)
        states: list[Any] = [torch.tensor(0.0).double()] * 3
        for t in ppl.markov(range(4)):
            states = [
                ppl.sample(f"{name}_{t}", ppl.dist.Bernoulli(stay[i] * states[i] + 0.4 * (1 - states[i])))
                for i, name in enumerate("abc")
            ]
            total = sum(height * state for height, state in zip(heights, states, strict=True))
            ppl.sample(f"x_{t}", ppl.dist.Normal(total, 0.5), obs=SERIES[t])

    return program


@model(
    latent=(*named("a", 4), *named("b", 4)),
    observed=(*named("x", 4), *named("y", 4)),
    discrete=(*named("a", 4), *named("b", 4)),
    params=("a_table", "b_table", "locs"),
)
def coupled_hmm(ppl: Any) -> Program:
    """Two chains, each of which sees where both were."""

    def program() -> Any:
        a_table, b_table = simplex(ppl, "a_table", 2, 2, 2), simplex(ppl, "b_table", 2, 2, 2)
        locs = real(ppl, "locs", 2)
        a: Any = torch.tensor(0)
        b: Any = torch.tensor(1)
        for t in ppl.markov(range(4)):
            a, b = (
                ppl.sample(f"a_{t}", ppl.dist.Categorical(at(a_table, a, b))),
                ppl.sample(f"b_{t}", ppl.dist.Categorical(at(b_table, a, b))),
            )
            ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, a), 1.0), obs=SERIES[t])
            ppl.sample(f"y_{t}", ppl.dist.Normal(at(locs, b), 1.0), obs=SERIES[-1 - t])

    return program


@model(
    latent=(*named("s", 4), *named("d", 4)),
    observed=named("x", 4),
    discrete=(*named("s", 4), *named("d", 4)),
    params=("durations", "jump", "locs"),
)
def explicit_duration(ppl: Any) -> Program:
    """A semi-Markov chain: a state lasts as long as a counter says that is drawn when it begins."""

    def program() -> Any:
        durations, jump = simplex(ppl, "durations", 2, 3), simplex(ppl, "jump", 2, 2)
        locs = real(ppl, "locs", 2)
        s: Any = torch.tensor(0)
        d: Any = torch.tensor(0)
        for t in ppl.markov(range(4)):
            same = torch.eye(2).double()[s]
            s = ppl.sample(
                f"s_{t}", ppl.dist.Categorical(torch.where((d == 0)[..., None], at(jump, s), same))
            )
            less = torch.eye(3).double()[(d - 1).clamp(min=0)]
            d = ppl.sample(
                f"d_{t}", ppl.dist.Categorical(torch.where((d == 0)[..., None], at(durations, s), less))
            )
            ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, s), 1.0), obs=SERIES[t])

    return program


@model(
    latent=(*named("top", 4), *named("low", 4)),
    observed=named("x", 4),
    discrete=(*named("top", 4), *named("low", 4)),
    params=("top_table", "low_table", "locs"),
)
def hierarchical_hmm(ppl: Any) -> Program:
    """A slow chain chooses the transition table of a fast one."""

    def program() -> Any:
        top_table, low_table = simplex(ppl, "top_table", 2, 2), simplex(ppl, "low_table", 2, 3, 3)
        locs = real(ppl, "locs", 3)
        top: Any = torch.tensor(0)
        low: Any = torch.tensor(0)
        for t in ppl.markov(range(4)):
            top = ppl.sample(f"top_{t}", ppl.dist.Categorical(at(top_table, top)))
            low = ppl.sample(f"low_{t}", ppl.dist.Categorical(at(low_table, top, low)))
            ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, low), 1.0), obs=SERIES[t])

    return program


@model(
    latent=(*named("rain", 3), *named("sprinkler", 3), *named("wet", 3)),
    observed=named("seen", 3),
    discrete=(*named("rain", 3), *named("sprinkler", 3), *named("wet", 3)),
    params=("rain", "sprinkler", "wet", "seen"),
)
def dynamic_network(ppl: Any) -> Program:
    """A Bayesian network a day, tied to the day before: rain, a sprinkler, wet grass and who says so."""
    said = vector(1.0, 0.0, 1.0)

    def program() -> Any:
        rains, used = unit(ppl, "rain", 2), unit(ppl, "sprinkler", 2, 2)
        wets, seen = unit(ppl, "wet", 2, 2, 2), unit(ppl, "seen", 2)
        rain: Any = torch.tensor(0)
        wet: Any = torch.tensor(0)
        for t in ppl.markov(range(3)):
            rain = ppl.sample(f"rain_{t}", ppl.dist.Bernoulli(at(rains, rain)))
            sprinkler = ppl.sample(f"sprinkler_{t}", ppl.dist.Bernoulli(at(used, rain, wet)))
            wet = ppl.sample(f"wet_{t}", ppl.dist.Bernoulli(at(wets, rain, sprinkler, wet)))
            ppl.sample(f"seen_{t}", ppl.dist.Bernoulli(at(seen, wet)), obs=said[t])

    return program


@model(
    latent=(*named("s", 4), *named("m", 4)),
    observed=named("x", 4),
    discrete=(*named("s", 4), *named("m", 4)),
    params=("transition", "table", "locs"),
)
def mixture_emissions(ppl: Any) -> Program:
    """A chain whose outputs are mixtures."""

    def program() -> Any:
        transition, table = simplex(ppl, "transition", 2, 2), simplex(ppl, "table", 2, 3)
        locs = real(ppl, "locs", 2, 3)
        s: Any = torch.tensor(0)
        for t in ppl.markov(range(4)):
            s = ppl.sample(f"s_{t}", ppl.dist.Categorical(at(transition, s)))
            m = ppl.sample(f"m_{t}", ppl.dist.Categorical(at(table, s)))
            ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, s, m), 0.6), obs=SERIES[t])

    return program


@model(
    latent=("kind", *named("s", 3)),
    observed=named("x", 3),
    discrete=("kind", *named("s", 3)),
    max_plate_nesting=1,
    params=("weights", "transition", "locs"),
)
def mixture_of_chains(ppl: Any) -> Program:
    """Each sequence is of a kind, and moves as its kind does."""
    data = 4.0 * numbers(2, 3, turn=1.7) - 2.0

    def program() -> Any:
        weights, transition = simplex(ppl, "weights", 2), simplex(ppl, "transition", 2, 3, 3)
        locs = real(ppl, "locs", 3)
        with ppl.plate("sequences", 2):
            kind = ppl.sample("kind", ppl.dist.Categorical(weights))
            s: Any = torch.tensor(0)
            for t in ppl.markov(range(3)):
                s = ppl.sample(f"s_{t}", ppl.dist.Categorical(at(transition, kind, s)))
                ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, s), 1.0), obs=data[:, t])

    return program


@model(
    latent=named("topic", 3),
    observed=named("word", 3),
    discrete=named("topic", 3),
    max_plate_nesting=1,
    params=("transition", "words"),
)
def topic_chain(ppl: Any) -> Program:
    """A topic a sentence, and words drawn from it; the topics make a chain. Gruber, Rosen-Zvi and Weiss (2007)."""
    text = torch.tensor([[0, 3, 1], [2, 2, 0], [1, 3, 3]])

    def program() -> Any:
        transition, words = simplex(ppl, "transition", 3, 3), simplex(ppl, "words", 3, 4)
        topic: Any = torch.tensor(0)
        for t in ppl.markov(range(3)):
            topic = ppl.sample(f"topic_{t}", ppl.dist.Categorical(at(transition, topic)))
            with ppl.plate(f"words_{t}", 3):
                ppl.sample(f"word_{t}", ppl.dist.Categorical(at(words, topic)), obs=text[t])

    return program


@model(
    latent=(*named("s", 3), *named("w", 3)),
    observed=named("x", 3),
    discrete=(*named("s", 3), *named("w", 3)),
    max_plate_nesting=1,
    params=("transition", "table", "locs"),
)
def chain_with_plates(ppl: Any) -> Program:
    """A chain, and at each of its steps a plate of classes that depend on the state."""
    data = 4.0 * numbers(3, 3, turn=0.6) - 2.0

    def program() -> Any:
        transition, table = simplex(ppl, "transition", 2, 2), simplex(ppl, "table", 2, 2)
        locs = real(ppl, "locs", 2)
        s: Any = torch.tensor(0)
        for t in ppl.markov(range(3)):
            s = ppl.sample(f"s_{t}", ppl.dist.Categorical(at(transition, s)))
            with ppl.plate(f"members_{t}", 3):
                w = ppl.sample(f"w_{t}", ppl.dist.Categorical(at(table, s)))
                ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, w), 1.0), obs=data[t])

    return program


PLACES = [(i, j) for i in range(3) for j in range(3)]
PICTURE = numbers(3, 3)


def _grid_of_chains(keep: bool) -> Build:
    def build(ppl: Any) -> Program:
        def program() -> Any:
            table, locs = unit(ppl, "table", 2, 2), real(ppl, "locs", 2)
            found: dict[tuple[int, int], Any] = {}
            columns = ppl.markov(range(3), keep=True) if keep else None
            for i in ppl.markov(range(3)):
                for j in columns if columns is not None else ppl.markov(range(3)):
                    above = found.get((i - 1, j), torch.tensor(0))
                    before = found.get((i, j - 1), torch.tensor(1))
                    z = ppl.sample(f"z_{i}{j}", ppl.dist.Bernoulli(at(table, above, before)))
                    ppl.sample(f"x_{i}{j}", ppl.dist.Normal(at(locs, z), 1.0), obs=PICTURE[i, j])
                    found[i, j] = z

        return program

    build.__name__ = "grid_of_chains_kept" if keep else "grid_of_chains"
    build.__doc__ = (
        "Chains in two directions, one inside the other: each place depends on that above and that before."
    )
    return build


for _keep, _pyro in ((False, "refuses"), (True, "differs")):
    model(
        latent=tuple(f"z_{i}{j}" for i, j in PLACES),
        observed=tuple(f"x_{i}{j}" for i, j in PLACES),
        discrete=tuple(f"z_{i}{j}" for i, j in PLACES),
        params=("table", "locs"),
        pyro=_pyro,
    )(_grid_of_chains(_keep))
