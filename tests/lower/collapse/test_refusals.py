"""What is said where there is no closed form: the site, its family, the parameter and link, the nearest known form."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout import infer, sample
from sumout.errors import ModelError
from sumout.lower.collapse.refusals import NotConjugateError
from sumout.poutine import collapse

D = torch.float64


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=D)


def of(prior: Any, likelihood: Callable[[Any], Any]) -> Callable[[], None]:
    def program() -> None:
        sample("y", likelihood(sample("x", prior)), obs=torch.tensor(1.0, dtype=D))

    return program


NORMAL, GAMMA = dist.Normal(number(0.0), 1.0), dist.Gamma(number(2.0), 1.0)
INVERSE, BETA = dist.InverseGamma(number(2.0), 1.0), dist.Beta(number(2.0), 1.0)
CASES: list[tuple[Callable[[], None], str]] = [
    (
        of(NORMAL, lambda x: dist.Poisson(x.exp())),
        "Site 'y' (Poisson) depends on the delayed site 'x' (Normal): rate is made of x through 'exp'. There is no "
        "closed form for that. Known with Normal: Normal, MultivariateNormal and LogNormal with loc an affine function "
        "of it. Poisson is known with a prior that is Gamma or InverseGamma. Or leave site 'x' to sampling",
    ),
    (
        of(NORMAL, lambda x: dist.Bernoulli(logits=x)),
        "depends on the delayed site 'x' (Normal): logits is x. There is no closed form for that. Known with Normal",
    ),
    (
        of(GAMMA, lambda x: dist.Normal(0.0, x.sqrt())),
        "'x' (Gamma): scale is x.sqrt(). There is no closed form for that. Nearest that is known: Normal with scale a "
        "multiple of x.rsqrt().",
    ),
    (of(GAMMA, lambda x: dist.Normal(0.0, 2 * x)), "scale is a multiple of x. There is no"),
    (
        of(INVERSE, lambda x: dist.Normal(0.0, x.rsqrt())),
        "Nearest that is known: Normal with scale a multiple of x.sqrt().",
    ),
    (
        of(GAMMA, lambda x: dist.Poisson(x + 1)),
        "rate is an affine function of x. There is no closed form for that. Nearest",
    ),
    (
        of(GAMMA, lambda x: dist.Gamma(x, 1.0)),
        "concentration is x. There is no closed form for that. Nearest that is known: ",
    ),
    (
        of(BETA, lambda x: dist.Bernoulli(0.5 * x)),
        "probs is a multiple of x. There is no closed form for that. Nearest that is known: Bernoulli with probs x or "
        "1 - x.",
    ),
    (of(BETA, lambda x: dist.Poisson(x)), "Known with Beta: Bernoulli(probs=...)"),
    (
        of(dist.Dirichlet(torch.ones(3, dtype=D)), lambda x: dist.Categorical(x[[0, 1]])),
        "Nearest that is known: Categorical with probs all of x.",
    ),
]


@pytest.mark.parametrize(("program", "told"), CASES)
def test_the_nearest_form_is_told(program: Callable[[], None], told: str) -> None:
    with pytest.raises(NotConjugateError, match=re.escape(told)) as found:
        infer.log_evidence(collapse(program))()
    assert found.value.sites == {"x"}


def test_sites_that_do_not_fit_together() -> None:
    def two_scales() -> None:
        a: Any = sample("a", GAMMA)
        b: Any = sample("b", GAMMA)
        m: Any = sample("m", dist.Normal(number(0.0), a.rsqrt()))
        sample("y", dist.Normal(m, b.rsqrt()), obs=number(1.0))

    with pytest.raises(
        ModelError, match=r"'a' \(Gamma\), 'b' \(Gamma\) and 'm' \(Normal\) are .*'a' and 'b' are two"
    ):
        infer.log_evidence(collapse(two_scales))()

    def one_known() -> None:
        a: Any = sample("a", GAMMA)
        m: Any = sample("m", dist.Normal(number(0.0), 1.0))
        sample("y", dist.Normal(m, a.rsqrt()), obs=number(1.0))

    with pytest.raises(
        ModelError, match=r"site 'm' \(Normal\) does not: nearest is .* a multiple of a\.rsqrt\(\)"
    ):
        infer.log_evidence(collapse(one_known))()

    def product() -> None:
        a: Any = sample("a", NORMAL)
        b: Any = sample("b", NORMAL)
        sample("y", dist.Normal(a * b, number(1.0)), obs=number(1.0))

    with pytest.raises(
        ModelError, match=r"'a' \(Normal\) and 'b' \(Normal\): loc is made of a and b through 'mul'\. There"
    ):
        infer.log_evidence(collapse(product))()
