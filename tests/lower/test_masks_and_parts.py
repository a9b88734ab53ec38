"""Sums over data under masks, large tables in parts, and tables that depend on variables of another graph."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sumout.distributions as dist
from sumout import plate, sample
from sumout.distributions.families import log_density
from sumout.effects.handlers import EnumMessenger, enum, mask, scale, trace
from sumout.errors import EnumerationError, PlateError
from sumout.factors import Factor, Variable
from sumout.infer import Trace_ELBO
from sumout.lower import lower, lower_tensor, scorers

MARK = {"enumerate": "parallel"}
RATES = torch.tensor([[0.2, 0.6, 0.9], [0.7, 0.1, 0.4]], dtype=torch.float64)
DATA = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)


def outputs(kept: Tensor, data: Tensor = DATA, **checks: Any) -> None:
    """A state for each of four rows, with three outputs."""
    with plate("rows", 4, dim=-2):
        z = sample("z", dist.Categorical(torch.tensor([0.5, 0.5]).double()), infer=MARK)
        with plate("outputs", 3, dim=-1), mask(mask=kept):
            sample("x", dist.Bernoulli(RATES[z.squeeze(-1)], **checks), obs=data)


def table(kept: Tensor, data: Tensor = DATA, **checks: Any) -> Factor:
    graph = lower(trace(enum(outputs, first_available_dim=-3)).get_trace(kept, data, **checks))
    return next(factor for factor in graph.factors if factor.name == "x")


@pytest.mark.parametrize(
    "kept",
    [
        torch.tensor([[True], [False], [True], [True]]),
        DATA > 0,
        torch.tensor(False),
        torch.tensor([True, False, True]),
    ],
    ids=["of rows", "of entries", "of nothing", "of outputs"],
)
def test_sums_over_masked_data(kept: Tensor) -> None:
    factor = table(kept)
    each = dist.Bernoulli(RATES[:, None]).log_prob(DATA)
    expected = torch.where(kept.expand(4, 3), each, 0.0).sum(-1)
    assert factor.inputs == ("z", "rows") if kept.any() else True
    torch.testing.assert_close(factor.data.expand(2, 4), expected, rtol=1e-12, atol=1e-12)


def test_what_is_masked_may_be_no_number() -> None:
    data = DATA.clone()
    data[1] = torch.nan
    rates = RATES.clone().requires_grad_()
    kept = torch.tensor([[True], [False], [True], [True]])

    def model() -> None:
        with plate("rows", 4, dim=-2):
            z = sample("z", dist.Categorical(torch.tensor([0.5, 0.5]).double()), infer=MARK)
            with plate("outputs", 3, dim=-1), mask(mask=kept):
                sample("x", dist.Bernoulli(rates[z.squeeze(-1)], validate_args=False), obs=data)

    graph = lower(trace(enum(model, first_available_dim=-3)).get_trace())
    graph.factors[1].data.sum().backward()
    assert rates.grad is not None
    assert bool(graph.factors[1].data.isfinite().all())
    assert bool(rates.grad.isfinite().all())


def test_large_tables_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    locs = torch.randn(7, 2, 5, dtype=torch.float64, requires_grad=True)

    def model() -> None:
        z = sample("z", dist.Categorical(torch.tensor([0.5, 0.5]).double()), infer=MARK)
        for t in range(7):
            with plate(f"rows_{t}", 5):
                sample(f"x_{t}", dist.Normal(locs[t][z.squeeze(-1)], 1.0), obs=torch.arange(5.0).double())

    record = trace(enum(model, first_available_dim=-2)).get_trace()
    whole = lower(record)
    monkeypatch.setattr(scorers, "_AT_ONCE", 25)
    parts = lower(record)
    for one, other in itertools.zip_longest(whole.factors, parts.factors):
        assert one.inputs == other.inputs
        assert torch.equal(one.data, other.data)


@pytest.mark.parametrize("at_once", [1, 7, 20, 45])
@pytest.mark.parametrize("masked", [None, "rows", "each"])
@pytest.mark.parametrize("inside", [False, True])
def test_one_large_table_is_scored_in_parts(
    at_once: int, masked: str | None, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is cut along: the states, the rows, or, where they are not summed, the columns."""
    locs = torch.randn(3, 1, 1, 6, dtype=torch.float64).requires_grad_()
    data = torch.randn(2, 5, 6, dtype=torch.float64)
    kept = torch.rand({None: (1,), "rows": (5, 1), "each": (2, 5, 6)}[masked], dtype=torch.float64) < 0.7

    def model() -> None:
        with plate("tables", 2, dim=-3), plate("rows", 5, dim=-2):
            columns = plate("columns", 6, dim=-1)
            with columns if inside else nullcontext():
                z = sample("z", dist.Categorical(torch.tensor([0.2, 0.5, 0.3]).double()), infer=MARK)
            with columns, mask(mask=kept if masked else True):
                sample("x", dist.Normal(locs[z.reshape(3, 1, 1, 1), 0, 0, torch.arange(6)], 1.5), obs=data)

    record = trace(enum(model, first_available_dim=-4)).get_trace()
    whole = next(factor for factor in lower(record).factors if factor.name == "x")
    monkeypatch.setattr(scorers, "_AT_ONCE", at_once)
    parts = next(factor for factor in lower(record).factors if factor.name == "x")
    assert parts.inputs == whole.inputs
    torch.testing.assert_close(parts.data, whole.data, rtol=1e-12, atol=1e-12)
    expected, found = (
        torch.autograd.grad(each.data.cos().sum(), locs, retain_graph=True)[0] for each in (whole, parts)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@given(st.data())
@settings(max_examples=100)
def test_products_of_matrices_are_sums_of_products(data: st.DataObject) -> None:
    names = range(4)
    sizes = [2, 3, 4, 5]
    subset = st.lists(st.sampled_from(names), unique=True, max_size=4).map(sorted)
    of_lhs, of_rhs = data.draw(subset), data.draw(subset)
    out = [
        name
        for name in {*of_lhs, *of_rhs}
        if name not in of_lhs or name not in of_rhs or data.draw(st.booleans())
    ]
    lhs, rhs = (torch.randn([sizes[name] for name in each], dtype=torch.float64) for each in (of_lhs, of_rhs))
    found = scorers._contracted(lhs, of_lhs, rhs, of_rhs, out)
    torch.testing.assert_close(found, torch.einsum(lhs, of_lhs, rhs, of_rhs, out), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("probs", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [torch.float32, torch.float64])
def test_quick_densities_are_those_of_the_distribution(probs: torch.dtype, value: torch.dtype) -> None:
    p = torch.tensor([0.0, 1e-9, 0.3, 1.0]).to(probs).requires_grad_()
    for x in (0.0, 1.0):
        fn = dist.Bernoulli(p)
        wide = torch.promote_types(probs, value)
        found = log_density(fn, torch.tensor(x, dtype=value), checked=True)
        # In the type of the wider of the two; torch takes the narrower.
        expected = fn.log_prob(torch.tensor(x, dtype=wide))
        torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-6, atol=2e-7)
        assert found.dtype == wide


@pytest.mark.parametrize("event", [False, True])
def test_values_that_are_not_checked_are_scored_as_torch_does(event: bool) -> None:
    """Grey pixels as observations of a Bernoulli, which checks would refuse."""
    grey = torch.tensor([[0.3, 0.8, 0.0], [0.2, 0.5, 1.0]], dtype=torch.float64)
    probs = torch.tensor([0.2, 0.6, 0.9], dtype=torch.float64)
    expected = (grey * probs.log() + (1 - grey) * (1 - probs).log()).sum()

    def model() -> None:
        fn = dist.Bernoulli(probs, validate_args=False)
        with plate("rows", 2, dim=-1 if event else -2):
            if event:
                sample("x", fn.to_event(1), obs=grey)
            else:
                with plate("outputs", 3, dim=-1):
                    sample("x", fn, obs=grey)

    (factor,) = lower(trace(model).get_trace()).factors
    torch.testing.assert_close(factor.data, expected, rtol=1e-12, atol=0)
    loss = Trace_ELBO().loss(model, lambda: None)
    assert loss == pytest.approx(-float(expected), rel=1e-12)


def test_a_value_that_is_missing_spoils_no_derivative() -> None:
    probs = torch.tensor([0.2, 0.6], dtype=torch.float64, requires_grad=True)
    value = torch.tensor([torch.nan, 1.0], dtype=torch.float64)
    found = log_density(dist.Bernoulli(probs, validate_args=False), value, checked=False)
    assert found.isnan().tolist() == [True, False]
    found[1].backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(probs.grad, torch.tensor([0.0, 1 / 0.6], dtype=torch.float64))


def test_variables_of_another_graph() -> None:
    """A site that another run has enumerated is no variable here, and a mask takes its density away."""

    def model() -> None:
        with mask(mask=torch.tensor(False)):
            z = sample("z", dist.Categorical(torch.tensor([0.25, 0.75])), infer=MARK)
        y = sample("y", dist.Bernoulli(0.2 + 0.5 * z), infer=MARK)
        sample("x", dist.Normal(y, 1.0), obs=torch.tensor(0.3))

    record = trace(enum(model, first_available_dim=-1)).get_trace()
    graph = lower(record, {"z": Variable(2)})
    assert list(graph.variables) == ["y"]
    by_name = {factor.name: factor for factor in graph.factors}
    assert by_name["y"].inputs == ("z", "y")
    assert bool((by_name["z"].data == 0).all())
    assert list(lower(record).variables) == ["z", "y"]


def test_scales_of_single_elements_are_told_apart() -> None:
    weights = torch.tensor([0.5, 2.0, 3.0])

    def model() -> None:
        with plate("rows", 3), scale(scale=weights):
            z = sample("z", dist.Bernoulli(0.3), infer=MARK)
            sample("x", dist.Normal(z, 1.0), obs=torch.zeros(3))
            sample("w", dist.Normal(0.0, 1.0), obs=torch.zeros(3))

    record = trace(enum(model, first_available_dim=-2)).get_trace()
    powers: dict[str, Factor] = {}
    graph = lower(record, powers=powers)
    assert {name: (each.inputs, each.data.tolist()) for name, each in powers.items()} == dict.fromkeys(
        ("z", "x"), (("rows",), weights.tolist())
    )
    (of_w,) = (factor.data for factor in graph.factors if factor.name == "w")
    torch.testing.assert_close(of_w, dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0)) * weights.sum())
    with pytest.raises(PlateError, match="'z' has a scale of shape"):
        lower(record)


def test_names_of_dimensions() -> None:
    with EnumMessenger(first_available_dim=-2), plate("rows", 3):
        recorder = trace(lambda: sample("z", dist.Bernoulli(0.3), infer=MARK))
        site = recorder.get_trace().nodes["z"]
    assert lower_tensor(site, torch.zeros(2, 3)).inputs == ("z", "rows")
    assert lower_tensor(site, torch.zeros(2, 1)).inputs == ("z",)
    with pytest.raises((PlateError, EnumerationError), match="'z' varies along dim -3"):
        lower_tensor(site, torch.zeros(4, 2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-15, 1e-3, 1.0, 1e15])
def test_the_density_of_normals_in_fewer_passes_is_the_same(dtype: torch.dtype, size: float) -> None:
    draws = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=draws) * size).to(dtype)

    found = []
    made = drawn(5, 1), drawn(1, 3), drawn(4, 1, 1).abs() + size / 10
    for density in (
        lambda fn, value: log_density(fn, value, checked=True),
        lambda fn, value: fn.log_prob(value),
    ):
        value, loc, scale = leaves = [each.clone().requires_grad_() for each in made]
        log_prob = density(dist.Normal(loc, scale), value)
        found.append([log_prob, *torch.autograd.grad(log_prob.sum(), leaves)])
    for ours, theirs in zip(*found, strict=True):
        # Derivatives by small and by large numbers differ in size.
        rounding = 8 * torch.finfo(dtype).eps
        torch.testing.assert_close(
            ours, theirs, rtol=rounding, atol=rounding * float(theirs.detach().abs().max())
        )
