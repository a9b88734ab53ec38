"""Counts: binomial ones whose totals differ or are latent, and those without bound, cut off."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

import sumout.distributions as dist
from sumout import infer, plate, sample
from sumout.errors import EnumerationError
from sumout.infer.programs.modes import Mode
from sumout.infer.programs.program import EnumeratedProgram
from sumout.infer.solving.solve import solve
from sumout.lower import lower

WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)


def tensor(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def poisson(k: int, rate: float) -> float:
    return math.exp(k * math.log(rate) - rate - math.lgamma(k + 1))


def normal(x: float, loc: float) -> float:
    return math.exp(-0.5 * (x - loc) ** 2) / math.sqrt(2 * math.pi)


def in_all_modes(program: Any) -> list[float]:
    return [
        float(solve(lower(EnumeratedProgram(program).run_in(mode, (), {}))).value.detach()) for mode in Mode
    ]


def test_binomial_counts_of_different_totals() -> None:
    totals, probs, data = [2, 3, 5], [0.2, 0.5, 0.7], [1.0, 2.0, 0.3]

    def model() -> None:
        with plate("data", 3):
            k = sample("k", dist.Binomial(tensor(*totals), tensor(*probs)))
            sample("x", dist.Normal(k, 1.0), obs=tensor(*data))

    joint = [
        [binomial(n, k, p) * normal(x, k) for k in range(n + 1)]
        for n, p, x in zip(totals, probs, data, strict=True)
    ]
    expected = sum(math.log(sum(each)) for each in joint)
    for found in in_all_modes(model):
        assert found == pytest.approx(expected, rel=1e-9)
    marginals = infer.marginals(model)()["k"].probs
    for row, each in zip(marginals, joint, strict=True):
        padded = [*(weight / sum(each) for weight in each), *[0.0] * (6 - len(each))]
        torch.testing.assert_close(row, tensor(*padded))
    best = infer.map_assignment(model)()["k"]
    assert best.tolist() == [float(max(range(len(each)), key=each.__getitem__)) for each in joint]


def test_a_binomial_count_of_a_latent_total() -> None:
    def model(observed: float | None = None) -> None:
        n = sample("n", dist.Categorical(WEIGHTS))
        k = sample("k", dist.Binomial(n.double(), tensor(0.3)[0]))
        sample("x", dist.Normal(k, 1.0), obs=tensor(0.5)[0])

    expected = sum(
        float(WEIGHTS[n]) * binomial(n, k, 0.3) * normal(0.5, k) for n in range(3) for k in range(n + 1)
    )
    for found in in_all_modes(model):
        assert found == pytest.approx(math.log(expected), rel=1e-9)
    for enumeration in ("sequential", "auto"):
        found = infer.log_evidence(model, enumeration=enumeration)().item()
        assert found == pytest.approx(math.log(expected), rel=1e-9)


def test_data_may_rule_values_out_on_which_their_support_depends() -> None:
    def model() -> None:
        n = sample("n", dist.Categorical(WEIGHTS))
        sample("seen", dist.Binomial(n.double(), tensor(0.4)[0]), obs=tensor(1.0)[0])
        sample("x", dist.Uniform(0.0, 0.5 + n.double()), obs=tensor(1.2)[0])

    joint = [0.0, 0.3 * 0.4 / 1.5, 0.5 * binomial(2, 1, 0.4) / 2.5]
    for found in in_all_modes(model):
        assert found == pytest.approx(math.log(sum(joint)), rel=1e-9)
    torch.testing.assert_close(infer.marginals(model)()["n"].probs, tensor(*joint) / sum(joint))

    def wrong_data() -> None:
        with plate("data", 2):
            sample("z", dist.Bernoulli(0.5))
            sample("seen", dist.Binomial(tensor(2.0, 3.0), 0.4), obs=tensor(1.0, 4.0))

    with pytest.raises(ValueError, match="seen"):
        infer.log_evidence(wrong_data)()


@given(
    rates=st.lists(st.floats(0.2, 6.0), min_size=1, max_size=3),
    share=st.floats(0.05, 0.95),
    tolerance=st.sampled_from([1e-4, 1e-8, 1e-11]),
)
@example_settings(max_examples=40)
def test_a_poisson_count_is_cut_off_where_little_is_lost(
    rates: list[float], share: float, tolerance: float
) -> None:
    """Seen through a binomial filter a Poisson count is Poisson again: closed forms for all that is asked."""
    visits = len(rates)

    def model() -> None:
        with plate("sites", visits):
            n = sample("n", dist.Poisson(tensor(*rates)), infer={"truncate": tolerance})
            sample("seen", dist.Binomial(n, share), obs=torch.ones(visits, dtype=torch.float64))

    lost = infer.lost_mass(model)()["n"]
    assert 0 < lost <= tolerance
    exact = [poisson(1, rate * share) for rate in rates]
    found = infer.log_evidence(model)().exp().item()
    # Too small by what is lost, and by no more than that allows: each likelihood is at most one.
    assert math.prod(exact) - visits * max(lost, 1e-11) <= found <= math.prod(exact) + 1e-11
    marginals = infer.marginals(model)()["n"].probs
    values = torch.arange(marginals.shape[-1], dtype=torch.float64)
    expected_mean = tensor(*[1 + rate * (1 - share) for rate in rates])
    if tolerance < 1e-6:
        torch.testing.assert_close((marginals * values).sum(-1), expected_mean, rtol=1e-3, atol=1e-3)


def test_a_largest_value_and_what_it_loses() -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(tensor(0.3)[0]))
        n = sample("n", dist.Poisson(1 + 2 * z), infer={"enumerate": "parallel", "truncate": 4})
        m = sample("m", dist.Geometric(tensor(0.5)[0]), infer={"truncate": 6})
        sample("x", dist.Normal(n + m, 1.0), obs=tensor(0.5)[0])

    expected = sum(
        (0.3 if z else 0.7) * poisson(n, 1 + 2 * z) * 0.5 ** (m + 1) * normal(0.5, n + m)
        for z, n, m in itertools.product(range(2), range(5), range(7))
    )
    for found in in_all_modes(model):
        assert found == pytest.approx(math.log(expected), rel=1e-9)
    lost = infer.lost_mass(model)()
    assert lost["n"] == pytest.approx(1 - sum(poisson(n, 3.0) for n in range(5)), rel=1e-9)  # of the worse z
    assert lost["m"] == pytest.approx(0.5**7, rel=1e-9)
    with_parents = infer.log_evidence(model, enumeration="sequential")().item()
    assert with_parents == pytest.approx(math.log(expected), rel=1e-9)


def test_gradients_by_the_rate() -> None:
    rate = tensor(1.5)[0].requires_grad_()

    def model() -> None:
        n = sample("n", dist.Poisson(rate), infer={"truncate": 1e-12})
        sample("seen", dist.Binomial(n, tensor(0.4)[0]), obs=tensor(2.0)[0])

    (found,) = torch.autograd.grad(infer.log_evidence(model)(), rate)
    assert found.item() == pytest.approx(2 / 1.5 - 0.4, rel=1e-9)


@pytest.mark.parametrize("truncate", [True, -1, 1.5, 0.0, 1e-15, "5"])
def test_what_truncate_may_be(truncate: Any) -> None:
    def model() -> None:
        sample("n", dist.Poisson(3.0), infer={"truncate": truncate})

    with pytest.raises(EnumerationError, match="Site 'n' has truncate=.*largest value"):
        infer.log_evidence(model)()


def test_what_can_be_cut_off() -> None:
    def model(fn: Any, truncate: Any = 1e-6) -> None:
        sample("n", fn, infer={"truncate": truncate})

    for fn in (
        dist.Normal(0.0, 1.0),
        dist.Exponential(1.0),
        dist.Poisson(torch.ones(3)).to_event(1),
    ):
        with pytest.raises(EnumerationError, match="Only such counts can be cut off"):
            infer.log_evidence(model)(fn)
    with pytest.raises(EnumerationError, match="more than 65536 values"):
        infer.log_evidence(model)(dist.Poisson(tensor(1e6)[0]), 1e-9)
    plain = infer.config_enumerate(lambda: sample("n", dist.Poisson(3.0), infer={"enumerate": "parallel"}))
    with pytest.raises(EnumerationError, match="'n'.*Poisson.*truncate"):
        infer.log_evidence(plain)()
