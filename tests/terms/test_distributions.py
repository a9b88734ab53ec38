"""Distributions as lazy terms: the same density, there and back, and funsor's value when evaluated."""

from __future__ import annotations

import funsor
import pytest
import torch
from funsor.gaussian import Gaussian
from funsor.tensor import Tensor

import sumout.distributions as dist
from sumout.errors import GraphError
from sumout.terms import to_data, to_funsor

DIMS = {-2: "p", -1: "q"}
POSITIVE = torch.tensor([[0.2], [0.5], [0.7]], dtype=torch.float64)
SIMPLEX = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).expand(3, 1, 3) * 1.0

FAMILIES = {
    "categorical": dist.Categorical(SIMPLEX),
    "categorical logits": dist.Categorical(logits=SIMPLEX),
    "bernoulli": dist.Bernoulli(POSITIVE),
    "bernoulli logits": dist.Bernoulli(logits=POSITIVE),
    "normal": dist.Normal(POSITIVE, 1 + POSITIVE),
    "normal expanded": dist.Normal(POSITIVE[0, 0], POSITIVE[1, 0]).expand([3, 1]),
    "multivariate normal": dist.MultivariateNormal(SIMPLEX, torch.eye(3, dtype=torch.float64)),
    "beta": dist.Beta(POSITIVE, 1 + POSITIVE),
    "gamma": dist.Gamma(POSITIVE, 1 + POSITIVE),
    "dirichlet": dist.Dirichlet(SIMPLEX),
    "poisson": dist.Poisson(POSITIVE),
    "binomial": dist.Binomial(5, POSITIVE),
    "multinomial": dist.Multinomial(3, SIMPLEX),
    "delta": dist.Delta(POSITIVE),
    "independent normal": dist.Normal(SIMPLEX, 1.0).to_event(1),
    "independent bernoulli": dist.Bernoulli(SIMPLEX).to_event(1),
    "independent of one": dist.Normal(POSITIVE[:, None], 1.0).to_event(1),
    "independent twice": dist.Normal(SIMPLEX.reshape(3, 1, 1, 3), 1.0).to_event(1).to_event(1),
}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_there_and_back_is_the_same_density(name: str) -> None:
    family = FAMILIES[name]
    term = to_funsor(family, DIMS, value="x")
    assert set(term.inputs) == {"p", "x"}
    back = to_data(term, {"p": -2})
    assert (back.batch_shape, back.event_shape) == (family.batch_shape, family.event_shape)
    value = family.sample()
    torch.testing.assert_close(back.log_prob(value), family.log_prob(value))


def test_evaluated_terms_are_tables_and_gaussians() -> None:
    table = funsor.reinterpret(to_funsor(FAMILIES["categorical"], DIMS, value="x"))
    assert isinstance(table, Tensor)
    torch.testing.assert_close(table.align(("p", "x")).data.exp(), SIMPLEX[:, 0])
    normal = funsor.reinterpret(to_funsor(FAMILIES["normal"], DIMS))
    assert any(isinstance(term, Gaussian) for term in normal.terms)
    value = torch.tensor(0.3, dtype=torch.float64)
    expected = FAMILIES["normal"].log_prob(value)[:, 0]
    torch.testing.assert_close(normal(value=Tensor(value)).data, expected)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (dist.LogNormal(POSITIVE, 1.0), "A LogNormal has no lazy form in funsor. Use its log_prob tensor"),
        (dist.Normal(POSITIVE, 1.0).mask(POSITIVE > 0.3), "has no lazy form"),
        (
            dist.MixtureSameFamily(dist.Categorical(SIMPLEX), dist.Normal(SIMPLEX, 1.0)),
            "MixtureSameFamily has no lazy form",
        ),
        (dist.Normal(torch.zeros(2, 3), 1.0).expand([4, 2, 3]), r"Batch dim -3 of batch shape \(4, 2, 3\)"),
    ],
)
def test_what_cannot_be_converted_is_explained(family: dist.Distribution, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        to_funsor(family, DIMS)


def test_other_mistakes_are_explained() -> None:
    term = to_funsor(FAMILIES["normal"], DIMS)
    with pytest.raises(GraphError, match=r"depends on \['p'\]"):
        to_data(term, {})
    with pytest.raises(GraphError, match="for tensors only"):
        to_funsor(FAMILIES["normal"], DIMS, event_dim=1)
    with pytest.raises(GraphError, match="neither a tensor nor a distribution"):
        to_data(funsor.Variable("x", funsor.Real), {})


def test_vindex_and_submodules_are_reexported() -> None:
    x = torch.randn(4, 3, 2)
    i, j = torch.tensor([0, 2]), torch.tensor([[1], [3]])
    assert torch.equal(dist.Vindex(x)[j, i, 1], x[j, i, 1])
    i = torch.tensor([0, 2, 1, 1])  # one for each of the leading four
    assert torch.equal(dist.Vindex(x)[..., i, :], x[torch.arange(4), i])
    assert dist.constraints.positive.check(torch.tensor(1.0))
    assert dist.transforms.ExpTransform()(torch.tensor(0.0)) == 1
