"""Random Gaussian programs in which a discrete site chooses means, coefficients and deviations, against brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tests.infer.collapsing.test_gaussian_programs import EXACT, Quadratic, by_residuals, inside
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample

SIZES = {"p": (-2, 2), "q": (-1, 3)}
STATES = 2


@dataclass(frozen=True)
class Site:
    """A normal site: its plates, the earlier values it uses, whether it is observed, and whether data are missing."""

    name: str
    plates: tuple[str, ...]
    uses: tuple[str, ...]
    observed: bool
    missing: bool
    switched: bool


@st.composite
def programs(draw: st.DrawFn, home: tuple[str, ...]) -> list[Site]:
    """Sites of a program whose switch lives in the plates ``home``; delayed sites live in these, too."""
    found: list[Site] = []
    for number in range(draw(st.integers(2, 5))):
        latent = [each.name for each in found if not each.observed]
        observed = bool(latent) and draw(st.booleans())
        others = [name for name in sorted(SIZES) if name not in home]
        plates = (*home, *(draw(st.sets(st.sampled_from(others))) if others else ()))
        uses = (
            draw(st.lists(st.sampled_from(latent), min_size=int(observed), max_size=2, unique=True))
            if latent
            else []
        )
        missing = observed and draw(st.booleans())
        name = f"{'y' if observed else 'x'}{number}"
        found.append(Site(name, plates, tuple(uses), observed, missing, draw(st.booleans())))
    # What is observed in the end depends on all, so that none is a mere prediction.
    latent = tuple([each.name for each in found if not each.observed])
    return [*found, Site("y_last", ("p", "q"), latent, True, draw(st.booleans()), True)]


def make(program: list[Site], home: tuple[str, ...], seed: int, gap: float) -> Callable[[], None]:
    """The program, with ``gap`` in the place of missing data."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    numbers = {each.name: (normal(STATES), normal(STATES), normal(STATES)) for each in program}
    data = {each.name: normal(2, 3) for each in program}
    kept = {each.name: torch.rand(2, 3, generator=generator) < 0.6 for each in program}
    logits = normal(STATES)
    of = {each.name: each for each in program}

    def run() -> None:
        frames = {name: plate(name, size, dim=dim) for name, (dim, size) in SIZES.items()}
        fn = dist.Categorical(logits=logits)
        z: Any = inside_enumerated([frames[name] for name in home], fn)
        values: dict[str, Any] = {}
        for each in program:
            means, coefs, spreads = [
                table[z if each.switched else torch.tensor(0)] for table in numbers[each.name]
            ]
            loc: Any = means
            for name in each.uses:
                value = values[name]
                for gone in set(of[name].plates) - set(each.plates):
                    value = value.sum(SIZES[gone][0], keepdim=True)
                loc = loc + coefs * value
            obs, mask = None, torch.tensor(True)
            if each.observed:
                shape = [SIZES[name][1] if name in each.plates else 1 for name in ("p", "q")]
                obs = data[each.name][: shape[0], : shape[1]]
                if each.missing:
                    mask = kept[each.name][: shape[0], : shape[1]]
                    obs = obs.masked_fill(~mask, gap)
            with poutine.mask(mask=mask):
                ways = [frames[name] for name in ("p", "q") if name in each.plates]
                values[each.name] = inside(ways, each.name, dist.Normal(loc, 0.3 + spreads.abs()), obs)

    return run


def inside_enumerated(contexts: list[Any], fn: Any) -> Any:
    if contexts:
        with contexts[0]:
            return inside_enumerated(contexts[1:], fn)
    return sample("z", fn, infer={"enumerate": "parallel"})


@pytest.mark.parametrize("roots", [False, True])
@pytest.mark.parametrize("home", [(), ("p",), ("p", "q")])
@settings(max_examples=10)
@given(choice=st.data(), seed=st.integers(0, 1000))
def test_evidence_and_posteriors(
    roots: bool, home: tuple[str, ...], choice: st.DataObject, seed: int
) -> None:
    program = choice.draw(programs(home))
    run, plain = make(program, home, seed, float("nan")), make(program, home, seed, 0.0)
    shape = [SIZES[name][1] if name in home else 1 for name in ("p", "q")] if home else []
    count = 1
    for size in shape:
        count *= size
    states = [torch.tensor(each).reshape(shape) for each in itertools.product(range(STATES), repeat=count)]
    exact = [Quadratic(poutine.condition(plain, data={"z": each})) for each in states]
    logs = torch.stack([each.log_evidence.detach() for each in exact])
    weights = logs.softmax(0)
    with by_residuals(roots):
        program_without = poutine.collapse(run)
        torch.testing.assert_close(infer.log_evidence(program_without)(), logs.logsumexp(0), **EXACT)
        found = infer.marginals(program_without)()
    likely = sum([weight * (each == 1) for weight, each in zip(weights, states, strict=True)])
    torch.testing.assert_close(found["z"].probs[..., 1].reshape(shape), likely, **EXACT)
    for name in exact[0].shapes:
        means = torch.stack([each.of(name, each.mean.detach()) for each in exact])
        variances = torch.stack([each.of(name, each.covariance.detach().diagonal()) for each in exact])
        weight = weights.reshape([-1, *[1] * (means.ndim - 1)])
        mean = (weight * means).sum(0)
        variance = (weight * (variances + means**2)).sum(0) - mean**2
        torch.testing.assert_close(found[name].mean.reshape(mean.shape), mean, **EXACT)
        told = found[name].variance.reshape(mean.shape)
        torch.testing.assert_close(told, variance, rtol=1e-8, atol=1e-9)
