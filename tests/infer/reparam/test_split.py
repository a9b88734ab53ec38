from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sumout.distributions as dist
from sumout.effects.handlers import condition, mask, reparam, scale, trace
from sumout.effects.primitives import plate, sample
from sumout.errors import ModelError
from sumout.infer.reparam import LocScaleReparam, SplitReparam
from sumout.infer.reparam.split import default_support, real_support, same_support

constraints = dist.constraints


@given(
    sections=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    dim=st.sampled_from([-1, -2]),
    batch=st.sampled_from([(), (2,)]),
    seed=st.integers(0, 1000),
)
def test_the_parts_make_the_whole_with_its_density(
    sections: list[int], dim: int, batch: tuple[int, ...], seed: int
) -> None:
    torch.manual_seed(seed)
    whole = sum(sections)
    shape = (*batch, 2, whole) if dim == -1 else (*batch, whole, 2)
    fn = dist.StudentT(4.0, torch.randn(shape), torch.rand(shape) + 0.5).to_event(2)

    def model() -> None:
        sample("x", fn)

    config = {"x": SplitReparam(sections, dim)}
    x = fn.sample()
    parts = {f"x_split_{number}": part for number, part in enumerate(x.split(sections, dim))}
    seen = trace(condition(reparam(model, config), data=parts)).get_trace()
    assert torch.equal(seen.nodes["x"]["value"], x)
    for name, part in parts.items():
        assert seen.nodes[name]["fn"].shape() == part.shape
        assert (seen.nodes[name]["log_prob"] == 0.0).all()
    torch.testing.assert_close(seen.nodes["x"]["log_prob"], fn.log_prob(x))

    seen = trace(reparam(condition(model, data={"x": x}), config)).get_trace()
    assert seen.stochastic_nodes == []
    for name, part in parts.items():
        assert torch.equal(seen.nodes[name]["value"], part)
    torch.testing.assert_close(seen.log_prob_sum(), fn.log_prob(x).sum())


def test_in_a_plate_with_scale_and_mask() -> None:
    fn = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    present = torch.tensor([True, False])

    def model() -> None:
        with plate("data", 2), scale(scale=2.0), mask(mask=present):
            sample("x", fn)

    data = {"x_split_0": torch.ones(2, 1), "x_split_1": torch.zeros(2, 2)}
    seen = trace(condition(reparam(model, {"x": SplitReparam([1, 2])}), data=data)).get_trace()
    x = torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(seen.log_prob_sum(), 2.0 * fn.log_prob(x))
    hidden = mask(condition(reparam(model, {"x": SplitReparam([1, 2])}), data=data), mask=False)
    assert trace(hidden).get_trace().log_prob_sum() == 0.0


def test_one_size_for_all_parts() -> None:
    def model() -> None:
        sample("x", dist.Normal(torch.zeros(5), 1.0).to_event(1), obs=torch.arange(5.0))

    seen = trace(reparam(model, {"x": SplitReparam(2)})).get_trace()
    assert [seen.nodes[f"x_split_{number}"]["value"].tolist() for number in range(3)] == [[0, 1], [2, 3], [4]]


def test_parts_that_broadcast() -> None:
    def model() -> None:
        sample("x", dist.Normal(torch.zeros(2, 3), 1.0).to_event(1))

    data = {"x_split_0": torch.tensor([[1.0], [2.0]]), "x_split_1": torch.tensor([3.0, 4.0])}
    seen = trace(condition(reparam(model, {"x": SplitReparam([1, 2])}), data=data)).get_trace()
    assert seen.nodes["x"]["value"].tolist() == [[1.0, 3.0, 4.0], [2.0, 3.0, 4.0]]


REALS = "IndependentConstraint(Real(), 1)"


def test_the_support_of_parts() -> None:
    normal = dist.Normal(torch.zeros(4), 1.0).to_event(1)
    assert str(default_support(normal, slice(0, 2), -1)) == REALS
    assert str(real_support(normal)) == REALS
    pieces = constraints.cat([constraints.positive, constraints.real], -1, [3, 2])

    class Pieces(dist.Normal):
        support = pieces

    fn = Pieces(torch.zeros(5), 1.0).to_event(1)
    part = default_support(fn, slice(2, 4), -1).base_constraint
    assert (part.cseq, list(part.lengths)) == (pieces.cseq, [1, 1])
    assert part.check(torch.tensor([1.0, -1.0])).all()
    assert not part.check(torch.tensor([-1.0, -1.0])).all()
    part = default_support(fn, slice(3, 5), -1).base_constraint
    assert (part.cseq, list(part.lengths)) == ([constraints.real], [2])
    assert default_support(fn, slice(0, 2), -2).base_constraint is pieces
    assert same_support(fn, slice(0, 2), -1).base_constraint is pieces

    class Stacked(dist.Normal):
        support = constraints.stack([constraints.positive, constraints.real], -1)

    fn = Stacked(torch.zeros(2), 1.0).to_event(1)
    assert default_support(fn, slice(1, 2), -1).base_constraint.cseq == [constraints.real]


def test_the_support_function_is_asked() -> None:
    asked: list[Any] = []

    def support(fn: Any, part: slice, dim: int) -> Any:
        asked.append((part, dim))
        return real_support(fn)

    def model() -> None:
        sample("x", dist.Gamma(torch.ones(3), 1.0).to_event(1), obs=torch.ones(3))

    seen = trace(reparam(model, {"x": SplitReparam([1, 2], -1, support)})).get_trace()
    assert asked == [(slice(0, 1), -1), (slice(1, 3), -1)]
    assert str(seen.nodes["x_split_0"]["fn"].support) == REALS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([1], 0), "dim=0"), (([], -1), "sections="), (([1, 0], -1), "sections="), (("ab", -1), "sections=")],
)
def test_arguments_that_are_none(arguments: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        SplitReparam(*arguments)


def test_what_does_not_fit() -> None:
    fn = dist.Normal(torch.zeros(3), 1.0)
    with pytest.raises(ModelError, match=r"site 'x'.*event shape \(\), which has no dim -1"):
        reparam(lambda: sample("x", fn), {"x": SplitReparam([1, 2])})()
    with pytest.raises(ModelError, match=r"size along dim -1 is 3, and the sections \[1, 1\] add up to 2"):
        reparam(lambda: sample("x", fn.to_event(1)), {"x": SplitReparam([1, 1])})()


def test_a_part_cannot_be_reparameterized_without_a_location() -> None:
    fn = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    config = {"x": SplitReparam([1, 2]), "x_split_0": LocScaleReparam(0.0)}
    with pytest.raises(ModelError, match="site 'x_split_0', which is ImproperUniform"):
        reparam(lambda: sample("x", fn), config)()
