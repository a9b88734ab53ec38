"""Chains of one state a step: what is hidden now depends on what was hidden before."""

from __future__ import annotations

from typing import Any

import torch

from models.language import Build, Program, at, model, numbers, positive, real, simplex, unit, vector

SERIES = vector(-0.4, 0.9, 1.8, -1.1, 0.3)


def named(stem: str, steps: int) -> tuple[str, ...]:
    """The names of a chain's sites."""
    return tuple(f"{stem}_{t}" for t in range(steps))


@model(
    latent=named("s", 4),
    observed=named("x", 4),
    discrete=named("s", 4),
    max_plate_nesting=1,
    params=("initial", "transition", "locs"),
)
def hmm_of_sequences(ppl: Any) -> Program:
    """Two sequences that share their parameters."""
    data = 4.0 * numbers(2, 4, turn=1.1) - 2.0

    def program() -> Any:
        initial, transition = simplex(ppl, "initial", 3), simplex(ppl, "transition", 3, 3)
        locs = real(ppl, "locs", 3)
        with ppl.plate("sequences", 2):
            probs = initial
            for t in ppl.markov(range(4)):
                s = ppl.sample(f"s_{t}", ppl.dist.Categorical(probs))
                ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, s), 1.0), obs=data[:, t])
                probs = at(transition, s)

    return program


def _hmm_of_order(order: int) -> Build:
    def build(ppl: Any) -> Program:
        def program() -> Any:
            transition, locs = simplex(ppl, "transition", *[2] * (order + 1)), real(ppl, "locs", 2)
            past: list[Any] = [torch.tensor(0)] * order
            for t in ppl.markov(range(len(SERIES)), history=order):
                s = ppl.sample(f"s_{t}", ppl.dist.Categorical(at(transition, *past)))
                ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, s), 1.0), obs=SERIES[t])
                past = [*past[1:], s]

        return program

    build.__name__ = f"hmm_of_order_{order}"
    build.__doc__ = f"Two states; each depends on the last {order}."
    return build


for _order in (1, 2, 3):
    model(
        latent=named("s", 5), observed=named("x", 5), discrete=named("s", 5), params=("transition", "locs")
    )(_hmm_of_order(_order))


@model(
    latent=named("s", 4),
    observed=named("x", 4),
    discrete=named("s", 4),
    max_plate_nesting=2,
    params=("transition", "rates"),
)
def masked_sequences(ppl: Any) -> Program:
    """Sequences of various lengths with several outputs a step: the shape of polyphonic music."""
    lengths = torch.tensor([4, 1, 3])
    tones = (numbers(3, 4, 2, turn=2.6) > 0.5).double()

    def program() -> Any:
        transition, rates = simplex(ppl, "transition", 2, 2), unit(ppl, "rates", 2, 2)
        outputs = ppl.plate("outputs", 2, dim=-1)
        with ppl.plate("sequences", 3, dim=-2):
            s: Any = torch.tensor(0)
            for t in ppl.markov(range(4)):
                with ppl.mask(mask=(t < lengths)[:, None]):
                    s = ppl.sample(f"s_{t}", ppl.dist.Categorical(at(transition, s)))
                    with outputs as each:
                        ppl.sample(f"x_{t}", ppl.dist.Bernoulli(at(rates, s, each)), obs=tones[:, t])

    return program


@model(
    latent=named("s", 5),
    observed=named("x", 5),
    discrete=named("s", 5),
    params=("transition", "slopes", "scales"),
)
def switching_autoregression(ppl: Any) -> Program:
    """How a series depends on its last value changes from regime to regime."""

    def program() -> Any:
        transition, slopes = simplex(ppl, "transition", 2, 2), real(ppl, "slopes", 2)
        scales = positive(ppl, "scales", 2)
        s: Any = torch.tensor(0)
        for t in ppl.markov(range(len(SERIES))):
            before = SERIES[t - 1] if t else vector(0.0)[0]
            s = ppl.sample(f"s_{t}", ppl.dist.Categorical(at(transition, s)))
            ppl.sample(f"x_{t}", ppl.dist.Normal(at(slopes, s) * before, at(scales, s)), obs=SERIES[t])

    return program


@model(latent=named("s", 5), observed=named("x", 5), discrete=named("s", 5), params=("slope", "rates"))
def input_output_hmm(ppl: Any) -> Program:
    """The odds of a change depend on a covariate."""
    counts = vector(1.0, 0.0, 4.0, 6.0, 2.0)

    def program() -> Any:
        slope, rates = real(ppl, "slope", 2, 2), positive(ppl, "rates", 2)
        s: Any = torch.tensor(0)
        for t in ppl.markov(range(len(SERIES))):
            s = ppl.sample(f"s_{t}", ppl.dist.Categorical(logits=SERIES[t] * at(slope, s)))
            ppl.sample(f"x_{t}", ppl.dist.Poisson(3.0 * at(rates, s)), obs=counts[t])

    return program


@model(
    latent=named("y", 5),
    observed=(),
    discrete=named("y", 5),
    factors=("together_1", "together_2", "together_3", "together_4", *(f"word_{t}" for t in range(5))),
    params=("pairs", "slopes"),
)
def conditional_random_field(ppl: Any) -> Program:
    """A chain of labels with scores for neighbours and for what is seen; uniform draws make the table."""

    def program() -> Any:
        pairs, slopes = real(ppl, "pairs", 3, 3), real(ppl, "slopes", 3)
        y: Any = None
        for t in ppl.markov(range(5)):
            before, y = y, ppl.sample(f"y_{t}", ppl.dist.Categorical(torch.ones(3).double() / 3))
            if t:
                ppl.factor(f"together_{t}", at(pairs, before, y))
            ppl.factor(f"word_{t}", at(slopes, y) * SERIES[t])

    return program


@model(latent=named("s", 5), observed=named("x", 5), discrete=named("s", 5), params=("leave", "locs"))
def change_points(ppl: Any) -> Program:
    """A chain that only moves on: where does it change? Impossible transitions have probability zero."""

    def program() -> Any:
        leave, locs = unit(ppl, "leave"), real(ppl, "locs", 3)
        shift = torch.diag(torch.ones(2).double(), 1)
        end = torch.diag(vector(0.0, 0.0, 1.0))
        transition = (1 - leave) * torch.diag(vector(1.0, 1.0, 0.0)) + leave * shift + end
        s: Any = torch.tensor(0)
        for t in ppl.markov(range(5)):
            if t:
                s = ppl.sample(f"s_{t}", ppl.dist.Categorical(at(transition, s)))
            else:
                s = ppl.sample("s_0", ppl.dist.Categorical(vector(0.8, 0.2, 0.0)))
            ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, s), 0.8), obs=SERIES[t])

    return program


def _hmm_guide(ppl: Any) -> Program:
    def program() -> Any:
        with ppl.plate("rows", 2):
            ppl.sample("transition", ppl.dist.Dirichlet(1.0 + positive(ppl, "alpha", 2, 2)))
            ppl.sample("locs", ppl.dist.Normal(real(ppl, "q_locs", 2), 0.3))

    return program


@model(
    latent=("transition", "locs", *named("s", 5)),
    observed=named("x", 5),
    discrete=named("s", 5),
    max_plate_nesting=1,
    params=("spread",),
    guide=_hmm_guide,
    guided=("transition", "locs"),
)
def bayesian_hmm(ppl: Any) -> Program:
    """Transitions and centres with priors, and a guide for them."""

    def program() -> Any:
        spread = positive(ppl, "spread")
        with ppl.plate("rows", 2):
            transition = ppl.sample("transition", ppl.dist.Dirichlet(torch.ones(2).double()))
            locs = ppl.sample("locs", ppl.dist.Normal(vector(0.0)[0], 2.0))
        s: Any = torch.tensor(0)
        for t in ppl.markov(range(len(SERIES))):
            s = ppl.sample(f"s_{t}", ppl.dist.Categorical(at(transition, s)))
            ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, s), spread), obs=SERIES[t])

    return program


def _chain_guide(order: int) -> Build:
    def build(ppl: Any) -> Program:
        def program() -> Any:
            table = simplex(ppl, "q_table", *[2] * (order + 1))
            past: list[Any] = [torch.tensor(0)] * order
            for t in ppl.markov(range(4), history=order):
                probs = ppl.dist.Categorical(at(table, *past))
                past = [*past[1:], ppl.sample(f"s_{t}", probs, infer={"enumerate": "parallel"})]

        return program

    return build


def _guided_chain(order: int) -> Build:
    def build(ppl: Any) -> Program:
        def program() -> Any:
            transition, locs = simplex(ppl, "transition", *[2] * (order + 1)), real(ppl, "locs", 2)
            past: list[Any] = [torch.tensor(0)] * order
            for t in ppl.markov(range(4), history=order):
                s = ppl.sample(f"s_{t}", ppl.dist.Categorical(at(transition, *past)))
                ppl.sample(f"x_{t}", ppl.dist.Normal(at(locs, s), 1.0), obs=SERIES[t])
                past = [*past[1:], s]

        return program

    build.__name__ = f"guided_chain_{order}"
    build.__doc__ = f"A chain of order {order}, and a guide that is one too and is averaged over."
    return build


for _order in (1, 2):
    model(
        latent=named("s", 4),
        observed=named("x", 4),
        discrete=named("s", 4),
        params=("transition", "locs"),
        guide=_chain_guide(_order),
        guided=named("s", 4),
    )(_guided_chain(_order))
