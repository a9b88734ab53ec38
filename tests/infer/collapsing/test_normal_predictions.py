"""Predictions that are affine in several groups of Gaussian sites and in each other, against brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tests.infer.collapsing.test_gaussian_programs import EXACT, Quadratic
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError
from sumout.poutine import collapse

D = torch.float64


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=D)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=D)


def parents() -> tuple[Any, Any, Any]:
    """Three sites that have nothing to do with each other."""
    found = []
    for place, name in enumerate("abd"):
        x: Any = sample(f"x{name}", dist.Normal(number(0.3 * place), 1.0 + place))
        sample(f"y{name}", dist.Normal(x, 1.0), obs=number(1.0 + place))
        found.append(x)
    return found[0], found[1], found[2]


def two_parents() -> None:
    a, b, _ = parents()
    sample("xn", dist.Normal(a + 2 * b, 1.0))


def chained() -> None:
    a, b, d = parents()
    with plate("new", 2):
        n: Any = sample("xn", dist.Normal(a + 2 * b - d, 1.0))
        e: Any = sample("xe", dist.Normal(n + a, numbers(1.0, 2.0)))
    sample("xf", dist.Normal(e.sum(-1) + b, 1.0))


def switched() -> None:
    a, b, d = parents()
    with plate("new", 2):
        z: Any = sample("z", dist.Bernoulli(number(0.3)))
        sample("xn", dist.Normal(a + 2 * b - d + z, 1.0 + 2 * z))


def switched_chain() -> None:
    a, b, _ = parents()
    with plate("new", 2):
        z: Any = sample("z", dist.Bernoulli(number(0.3)))
        n: Any = sample("xn", dist.Normal(a + 2 * b + z, 1.0 + 2 * z))
        e: Any = sample("xe", dist.Normal(n + a, 1.0))
        w: Any = sample("w", dist.Bernoulli(number(0.4)))
        f: Any = sample("xf", dist.Normal(e * (1 + z) + b * (1 + w), 1.0))
        sample("xg", dist.Normal(f + n, 1.0))


def crossing() -> None:
    p, q = plate("p", 2, dim=-1), plate("q", 2, dim=-2)
    with p:
        a: Any = sample("xa", dist.Normal(number(0.0), 1.0))
        sample("ya", dist.Normal(a, 1.0), obs=numbers(0.2, 1.3))
    with q:
        b: Any = sample("xb", dist.Normal(number(1.0), 2.0))
    with p, q:
        z: Any = sample("z", dist.Bernoulli(number(0.3)))
        n: Any = sample("xn", dist.Normal(a + 2 * b + z, 1.0))
        sample("xe", dist.Normal(n + a, 1.0))


def chosen_parents() -> None:
    """A discrete site of a parent's plate chose it; new rows pick an element, and have switches of their own."""
    with plate("old", 2):
        z: Any = sample("z", dist.Bernoulli(number(0.3)))
        a: Any = sample("xa", dist.Normal(number(0.0), 1.0))
        sample("ya", dist.Normal(a, 1.0 + 2 * z), obs=numbers(0.2, 1.3))
    b: Any = sample("xb", dist.Normal(number(1.0), 2.0))
    with plate("new", 2, dim=-2):
        w: Any = sample("w", dist.Bernoulli(number(0.4)))
        n: Any = sample("xn", dist.Normal(a[0] + 2 * b + w, 1.0))
        sample("xe", dist.Normal(n - b + w, 1.0))


def vectors() -> None:
    eye = torch.eye(2, dtype=D)
    a: Any = sample("xa", dist.MultivariateNormal(numbers(0.0, 1.0), eye))
    sample("ya", dist.MultivariateNormal(a, eye), obs=numbers(0.2, 1.3))
    b: Any = sample("xb", dist.Normal(number(1.0), 2.0))
    with plate("new", 2):
        z: Any = sample("z", dist.Bernoulli(number(0.3)))
        root = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=D)
        sample("xn", dist.MultivariateNormal(a * b.new_ones(()) + z.unsqueeze(-1), scale_tril=root))
        sample("xe", dist.Normal((a * numbers(2.0, 1.0)).sum() + b, 1.0 + z))


PROGRAMS = [two_parents, chained, switched, switched_chain, crossing, chosen_parents, vectors]


def given_choices(program: Callable[[], None]) -> tuple[list[dict[str, Tensor]], list[Quadratic]]:
    """All joint values of the discrete sites, with the Gaussian density given each."""
    nodes = poutine.trace(program).get_trace().nodes
    discrete = {
        name: site.value.shape for name, site in nodes.items() if site.type == "sample" and name in ("z", "w")
    }
    count = sum(shape.numel() for shape in discrete.values())
    choices = []
    for bits in itertools.product([0.0, 1.0], repeat=count):
        left = list(bits)
        choices.append(
            {
                name: numbers(*[left.pop() for _ in range(shape.numel())]).reshape(shape)
                for name, shape in discrete.items()
            }
        )
    return choices, [Quadratic(poutine.condition(program, data=each)) for each in choices]


def check_marginals(found: Any, exact: list[Quadratic], names: list[str]) -> None:
    weights = torch.stack([each.log_evidence.detach() for each in exact]).softmax(0)
    for name in names:
        means = torch.stack([each.of(name, each.mean.detach()) for each in exact])
        variances = torch.stack([each.of(name, each.covariance.detach().diagonal()) for each in exact])
        weight = weights.reshape([-1, *[1] * (means.ndim - 1)])
        mean = (weight * means).sum(0)
        torch.testing.assert_close(found[name].mean.reshape(mean.shape), mean, **EXACT)
        variance = (weight * (variances + means**2)).sum(0) - mean**2
        torch.testing.assert_close(found[name].variance.reshape(mean.shape), variance, rtol=1e-8, atol=1e-9)
        if not found[name].event_shape:  # Not only the moments: the density at a point.
            density = (weight * dist.Normal(means, variances.sqrt()).log_prob(number(0.7)).exp()).sum(0)
            told = found[name].log_prob(number(0.7)).exp()
            torch.testing.assert_close(told.reshape(mean.shape), density, **EXACT)


@pytest.mark.parametrize("program", PROGRAMS)
def test_marginals(program: Callable[[], None]) -> None:
    _, exact = given_choices(program)
    found = infer.marginals(collapse(program))()
    logs = torch.stack([each.log_evidence.detach() for each in exact])
    torch.testing.assert_close(found.log_evidence, logs.logsumexp(0), **EXACT)
    check_marginals(found, exact, list(exact[0].shapes))


@pytest.mark.parametrize("program", PROGRAMS)
def test_most_probable_values(program: Callable[[], None]) -> None:
    choices, exact = given_choices(program)
    tops = torch.stack([each.log_joint(each.mean.detach()).detach() for each in exact])
    best = infer.map_assignment(collapse(program))()
    torch.testing.assert_close(best.log_prob, tops.amax(), **EXACT)
    assert not best.left_out
    which = next(
        place
        for place, each in enumerate(choices)
        if all(torch.equal(best[name].to(D), value) for name, value in each.items())
    )
    for name in exact[which].shapes:
        torch.testing.assert_close(best[name], exact[which].of(name, exact[which].mean.detach()), **EXACT)


@pytest.mark.parametrize("program", PROGRAMS)
def test_samples(program: Callable[[], None]) -> None:
    """Their densities are those of the program, their means within five standard errors."""
    count = 2000
    found = infer.marginals(collapse(program))()
    drawn = infer.posterior_samples(collapse(program), count, generator=torch.Generator().manual_seed(0))()
    for place in range(3):
        values = {name: value[place] for name, value in drawn.items()}
        total = poutine.trace(poutine.condition(program, data=values)).get_trace().log_prob_sum()
        torch.testing.assert_close(drawn.log_joint[place], total, rtol=1e-8, atol=1e-8)
    for name, value in drawn.items():
        error = (found[name].variance / count).sqrt()
        assert bool(((value.mean(0) - found[name].mean).abs() < 5 * error).all()), name


def test_joint_marginals_with_a_prediction() -> None:
    exact = Quadratic(two_parents)
    names = ("xa", "xb", "xn")
    found = infer.marginals(collapse(two_parents), [names])()[names]
    order = [list(exact.shapes).index(name) for name in names]
    torch.testing.assert_close(found.mean, exact.mean.detach()[order], **EXACT)
    torch.testing.assert_close(
        found.covariance_matrix, exact.covariance.detach()[order][:, order], rtol=1e-8, atol=1e-9
    )


def test_masks_that_leave_nothing_out_change_nothing() -> None:
    def masked() -> None:
        with poutine.mask(mask=torch.tensor(True)):
            two_parents()

    exact = infer.marginals(collapse(two_parents))()
    found = infer.marginals(collapse(masked))()
    torch.testing.assert_close(found["xn"].stddev, exact["xn"].stddev, **EXACT)


def test_unknown_scales_elsewhere_leave_others_their_closed_forms() -> None:
    def program() -> None:
        a, b, _ = parents()
        unit: Any = sample("unit", dist.Gamma(number(3.0), 2.0))
        m: Any = sample("m", dist.Normal(number(0.0), unit.rsqrt()))
        sample("ym", dist.Normal(m, unit.rsqrt()), obs=number(0.2))
        n: Any = sample("xn", dist.Normal(a + b, 1.0))
        sample("mixed", dist.Normal(a + m, 1.0))
        sample("xf", dist.Normal(n, 1.0))

    found = infer.marginals(collapse(program))()
    spread = found["xa"].variance + found["xb"].variance
    torch.testing.assert_close(found["xn"].variance, spread + 1, **EXACT)
    torch.testing.assert_close(found["xf"].variance, spread + 2, **EXACT)
    assert "mixed" not in list(found)
    with pytest.raises(ModelError, match=r"Site 'mixed' \(Normal\).*no closed form"):
        found["mixed"]


@given(
    steps=st.lists(
        st.tuples(
            st.sets(st.sampled_from(["p", "q"])),
            st.lists(st.integers(0, 5), min_size=1, max_size=3),
            st.sampled_from(["aligned", "flip", "sum"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
    home=st.sampled_from([("p",), ("q",)]),
)
@settings(max_examples=25)
def test_random_chains_of_predictions(
    steps: list[tuple[set[str], list[int], str, bool]], home: tuple[str, ...]
) -> None:
    """Each uses earlier sites, in plates or summed over them, and may be switched."""
    dims = {"p": -1, "q": -2}

    def program() -> None:
        frames = {name: plate(name, 2, dim=dim) for name, dim in dims.items()}
        a, b, _ = parents()
        with frames["p"]:
            c: Any = sample("xc", dist.Normal(number(0.0), 1.0))
            sample("yc", dist.Normal(c, 1.0), obs=numbers(0.2, 1.3))
        with frames[home[0]]:
            z: Any = sample("z", dist.Bernoulli(number(0.3)))
        values: list[tuple[frozenset[str], Any]] = [(frozenset(), a), (frozenset(), b), (frozenset("p"), c)]
        for place, (plates, uses, how, is_switched) in enumerate(steps):
            inside = frozenset(plates) | (frozenset(home) if is_switched else frozenset())
            loc: Any = number(0.1)
            for use in uses:
                where, value = values[use % len(values)]
                for name in where - inside:
                    value = value.sum(dims[name], keepdim=True)
                if how == "flip" and "p" in where & inside:
                    value = value.flip(-1)
                loc = loc + (1 + 0.1 * use) * value
            loc = loc + z if is_switched else loc
            scale = 1.0 + z if is_switched else number(0.7)
            n: Any
            if inside == {"p", "q"}:
                with frames["p"], frames["q"]:
                    n = sample(f"x{place}", dist.Normal(loc, scale))
            elif inside:
                with frames[next(iter(inside))]:
                    n = sample(f"x{place}", dist.Normal(loc, scale))
            else:
                n = sample(f"x{place}", dist.Normal(loc.reshape(()), scale))
            values.append((inside, n))

    _, exact = given_choices(program)
    found = infer.marginals(collapse(program))()
    check_marginals(found, exact, [name for name in exact[0].shapes if name in list(found)])
    if not any(is_switched for *_, is_switched in steps):
        assert set(exact[0].shapes) <= set(found)
    tops = torch.stack([each.log_joint(each.mean.detach()).detach() for each in exact])
    best = infer.map_assignment(collapse(program))()
    torch.testing.assert_close(best.log_prob, tops.amax(), **EXACT)
    values = {name: value for name, value in best.items() if name != "z"}
    again = poutine.trace(poutine.condition(program, data={**values, "z": best["z"]})).get_trace()
    torch.testing.assert_close(again.log_prob_sum(), tops.amax(), **EXACT)
