"""Tables of sites, however many are scored together, against each distribution's own log_prob."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sumout
import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.effects import CondIndepStackFrame, Message
from sumout.errors import PlateError
from sumout.lower import lower, lower_site
from sumout.lower.log_prob import log_probs

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def positive(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64) + 0.5


FAMILIES: dict[str, tuple[Any, Any]] = {
    "bernoulli": (lambda s: dist.Bernoulli(positive(*s) / 2), lambda s: (positive(*s) > 1).double()),
    "logits": (lambda s: dist.Bernoulli(logits=positive(*s)), lambda s: (positive(*s) > 1).double()),
    "normal": (lambda s: dist.Normal(positive(*s), positive(*s)), lambda s: positive(*s)),
    "poisson": (lambda s: dist.Poisson(positive(*s)), lambda s: (positive(*s) * 3).floor()),
    "gamma": (lambda s: dist.Gamma(positive(*s), positive(*s)), lambda s: positive(*s)),
    "categorical": (lambda s: dist.Categorical(positive(*s, 3)), lambda s: (positive(*s) * 2).long() - 1),
    "category logits": (
        lambda s: dist.Categorical(logits=positive(*s, 3)),
        lambda s: (positive(*s) * 2).long() - 1,
    ),
    "other": (lambda s: dist.Uniform(torch.zeros(s).double(), positive(*s) + 2), lambda s: positive(*s)),
}
SIZES = {"p": 2, "q": 3}
HOMES = {"y": frozenset({"q"}), "z": frozenset[str]()}


@st.composite
def sites(draw: st.DrawFn) -> Message:
    """An observed site in plates p (dim -1) and q (dim -2) that may see y (dim -3, in q) and z (dim -4)."""
    family, value = FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))]
    full = (4, 2, SIZES["q"], SIZES["p"])

    def shape() -> tuple[int, ...]:
        rank = draw(st.integers(0, 4))
        return tuple(size if draw(st.booleans()) else 1 for size in full[4 - rank :])

    events = 0
    fn, data = family(shape()), value(shape()[-2:])
    if fn.event_shape == () and draw(st.integers(0, 3)) == 0:
        events = 1
        fn, data = family((*shape(), 3)).to_event(1), value((*shape()[-2:], 3))
    frames = tuple(
        CondIndepStackFrame(name, -1 - place, size, 0, full_size=size * draw(st.sampled_from([1, 10])))
        for place, (name, size) in enumerate(SIZES.items())
    )
    site = Message(
        type="sample",
        name="x",
        fn=fn,
        value=data,
        is_observed=True,
        cond_indep_stack=frames,
        enum_dims={-3: "y", -4: "z"},
    )
    if events == 0 or draw(st.booleans()):
        mask = torch.rand(shape()) < 0.5
        site.mask = draw(st.sampled_from([None, True, False, mask]))
    return site


def expected(site: Message, table: Any) -> Tensor:
    """The full log-probability, summed over the plates that the table is a product over, by the letter."""
    log_prob = site.fn.log_prob(site.value)
    if site.mask is not None:
        log_prob = torch.where(torch.as_tensor(site.mask), log_prob, 0.0)
    full = (1, 1, SIZES["q"], SIZES["p"])
    log_prob = log_prob.expand(torch.broadcast_shapes(log_prob.shape, full))
    for frame in site.cond_indep_stack:
        if frame.name in table.product_over:
            log_prob = log_prob.sum(frame.dim, keepdim=True) * frame.scale
    return log_prob


def spread(table: Any, like: Tensor) -> Tensor:
    """A table with its dimensions back at their places."""
    shape = [1] * like.ndim
    for dim, size in zip(table.dims, table.log_prob.shape, strict=True):
        shape[dim] = size
    order = sorted(range(len(table.dims)), key=lambda place: table.dims[place])
    return table.log_prob.permute(order).reshape(shape).expand(like.shape)


@given(st.lists(sites(), min_size=1, max_size=6), st.booleans(), st.integers(0, 2**20))
@settings(max_examples=400)
def test_tables_are_the_log_probabilities(drawn: list[Message], multiplied: bool, seed: int) -> None:
    torch.manual_seed(seed)
    homes = HOMES if multiplied else None
    # Each site twice, so that there is always something to be scored together.
    for site, table in zip([*drawn, *drawn], log_probs([*drawn, *drawn], homes), strict=True):
        full = expected(site, table)
        torch.testing.assert_close(spread(table, full), full, **EXACT)
        varies_along = {site.enum_dims[dim] for dim in table.dims if dim in site.enum_dims}
        homes_seen = frozenset().union(*(HOMES[name] for name in varies_along))
        if multiplied:
            assert table.product_over == SIZES.keys() - homes_seen
        else:
            assert not table.product_over


def observed_in_a_plate(data: Tensor) -> None:
    z = sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    with plate("data", len(data)):
        w = sample("w", dist.Bernoulli(0.3 + 0.4 * z), infer={"enumerate": "parallel"})
        sample("x", dist.Normal(w, 1.0), obs=data)
        sample("y", dist.Normal(z, 1.0), obs=data)


def test_inputs_and_plates_are_those_that_matter() -> None:
    run = poutine.trace(poutine.enum(observed_in_a_plate, first_available_dim=-2)).get_trace(torch.zeros(3))
    graph = lower(run)
    graph.check()
    shown = {factor.name: (set(factor.inputs), set(factor.plates)) for factor in graph.factors}
    assert shown == {
        "z": ({"z"}, set()),
        "w": ({"z", "w"}, {"data"}),
        "x": ({"w", "data"}, {"data"}),
        "y": ({"z"}, set()),
    }
    alone = lower_site(run.nodes["y"])
    assert (set(alone.inputs), set(alone.plates)) == ({"z", "data"}, {"data"})
    assert dict(alone.term.inputs).keys() == {"z", "data"}


def test_lowering_leaves_the_trace_as_it_was() -> None:
    run = poutine.trace(poutine.enum(observed_in_a_plate, first_available_dim=-2)).get_trace(torch.zeros(3))
    before = {name: dict(site) for name, site in run.nodes.items()}
    lower(run)
    for name, site in run.nodes.items():
        assert site.keys() == before[name].keys()
        assert all(site[key] is before[name][key] for key in before[name])


def test_literals_in_float32_meet_data_in_float64() -> None:
    graph = lower(
        poutine.trace(poutine.enum(observed_in_a_plate, first_available_dim=-2)).get_trace(
            torch.zeros(3, dtype=torch.float64)
        )
    )
    assert {factor.data.dtype for factor in graph.factors} == {torch.float64}


def test_a_scale_for_each_element() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0]).double()
    data = torch.arange(3.0).double()

    def model(touched: bool) -> None:
        z = sample("z", dist.Bernoulli(torch.tensor(0.25).double())) if touched else 0.0
        with plate("data", 3), poutine.scale(scale=weights):
            sample("x", dist.Normal(z, 1.0), obs=data)

    off, on = [(dist.Normal(loc, 1.0).log_prob(data) * weights).sum() for loc in (0.0, 1.0)]
    torch.testing.assert_close(infer.log_evidence(model)(False), off)
    expected = torch.logaddexp(off + math.log(0.75), on + math.log(0.25))
    torch.testing.assert_close(infer.log_evidence(model)(True), expected, **EXACT)
    with pytest.raises(PlateError, match=r"'x' has a scale of shape \(3,\)"):
        lower(
            poutine.trace(poutine.enum(infer.config_enumerate(model), first_available_dim=-2)).get_trace(True)
        )


def test_a_subsample_stands_for_its_plate() -> None:
    data = torch.randn(10).double()
    chosen = torch.tensor([1, 4, 7])
    probs = torch.tensor([0.3, 0.7]).double()

    def model() -> None:
        z = sample("z", dist.Categorical(probs))
        with plate("data", 10, subsample=chosen) as index:
            w = sample("w", dist.Categorical(probs[torch.stack([z, 1 - z], -1)]))
            sample("x", dist.Normal(w + z, 1.0), obs=data[index])
            sample("y", dist.Normal(z.double(), 1.0), obs=data[index])

    total = []
    for z in (0, 1):
        local = torch.stack(
            [
                probs[[z, 1 - z]][w].log() + dist.Normal(float(w + z), 1.0).log_prob(data[chosen])
                for w in (0, 1)
            ]
        ).logsumexp(0)
        seen = local + dist.Normal(float(z), 1.0).log_prob(data[chosen])
        total.append(probs[z].log() + seen.sum() * 10 / 3)
    torch.testing.assert_close(infer.log_evidence(model)(), torch.stack(total).logsumexp(0), **EXACT)


def test_a_plate_without_a_size_has_that_of_its_sites() -> None:
    def model() -> None:
        with sumout.plate("data", dim=-1):
            z = sample("z", dist.Bernoulli(torch.full((4,), 0.5).double()))
            sample("x", dist.Normal(z, 1.0), obs=torch.zeros(4).double())

    one = torch.logsumexp(dist.Normal(torch.tensor([0.0, 1.0]).double(), 1.0).log_prob(torch.zeros(())), 0)
    torch.testing.assert_close(infer.log_evidence(model)(), 4 * (one - torch.log(torch.tensor(2.0).double())))
