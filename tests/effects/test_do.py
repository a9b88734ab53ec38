"""Interventions against the truncated factorization, and counterfactuals against sums written by hand."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sumout.distributions as dist
from forms import forms
from sumout.effects.handlers import (
    block,
    condition,
    do,
    enum,
    mask,
    replay,
    scale,
    trace,
    uncondition,
)
from sumout.effects.primitives import deterministic, param, plate, sample
from sumout.errors import ModelError
from sumout.infer import log_evidence, map_assignment, marginals

EXACT = {"rtol": 1e-10, "atol": 1e-12}
Program = Callable[[], Any]


def normals() -> Any:
    """z -> x -> y; the value goes on to y."""
    z = sample("z", dist.Normal(0.0, 1.0))
    x = sample("x", dist.Normal(z, 1.0))
    return sample("y", dist.Normal(x, 0.1)), x


# ------------------------------------------------------------------------------------------- what is recorded


@pytest.mark.parametrize(
    "form", ["function", "decorator", "context manager", "copy", "copy of a handled program"]
)
def test_the_program_goes_on_with_the_value_and_the_site_stays(form: str) -> None:
    three = torch.tensor(3.0)
    handled = forms(do, normals, data={"x": three})[form]
    recorded = trace(handled).get_trace()
    _, x = recorded.nodes["_RETURN"]["value"]
    assert x == 3.0
    assert recorded.nodes["y"]["fn"].loc == 3.0
    site = recorded.nodes["x"]
    assert site["fn"].loc == recorded.nodes["z"]["value"]
    assert site["value"] != 3.0
    assert not site["is_observed"]
    assert list(recorded) == ["_INPUT", "z", "x", "y", "_RETURN"]


@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 1000))
def test_order_of_trace_and_do_does_not_matter(x: float, z: float, seed: int) -> None:
    data = {"x": torch.tensor(x), "z": torch.tensor(z)}
    torch.manual_seed(seed)
    outside = trace(do(normals, data=data)).get_trace()
    torch.manual_seed(seed)
    with trace() as around_do, do(data=data), trace() as inside:
        normals()
    for name in ("z", "x", "y"):
        for recorded in (around_do.trace, inside.trace):
            assert recorded.nodes[name]["value"] == outside.nodes[name]["value"]
            assert recorded.nodes[name]["log_prob"] == outside.nodes[name]["log_prob"]
    assert outside.nodes["x"]["fn"].loc == data["z"]  # as SWIGs have it: do(z) shows in the natural x


def test_a_natural_value_has_no_influence() -> None:
    """The gradient of what is downstream by the natural value is none at all."""
    natural = torch.tensor(0.7, requires_grad=True)
    recorded = trace(do(condition(normals, data={"x": natural}), data={"x": 2.0})).get_trace()
    recorded.nodes["x"]["log_prob"].backward()
    assert natural.grad is not None
    natural.grad = None
    assert not recorded.nodes["y"]["log_prob"].requires_grad


def test_condition_inside_and_outside_observe_the_natural_value() -> None:
    one = torch.tensor(1.0)
    for handled in (
        condition(do(normals, data={"x": 2.0}), data={"x": one}),
        do(condition(normals, data={"x": one}), data={"x": 2.0}),
    ):
        recorded = trace(handled).get_trace()
        assert recorded.nodes["x"]["value"] is one
        assert recorded.nodes["x"]["is_observed"]
        assert recorded.nodes["y"]["fn"].loc == 2.0


def test_an_observed_site_keeps_its_observation() -> None:
    def model() -> Any:
        return sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.5))

    recorded = trace(do(model, data={"x": 7})).get_trace()
    assert recorded.nodes["x"]["value"] == 0.5
    assert recorded.nodes["_RETURN"]["value"] == 7
    free = trace(uncondition(do(model, data={"x": 7}))).get_trace()
    assert not free.nodes["x"]["is_observed"]
    assert free.nodes["_RETURN"]["value"] == 7


def test_a_deterministic_site() -> None:
    def model() -> Any:
        return deterministic("twice", 2 * sample("x", dist.Normal(0.0, 1.0)))

    recorded = trace(do(model, data={"twice": 1.0})).get_trace()
    assert recorded.nodes["twice"]["value"] == 2 * recorded.nodes["x"]["value"]
    assert recorded.nodes["_RETURN"]["value"] == 1.0


def test_replay_gives_natural_values() -> None:
    before = trace(normals).get_trace()
    recorded = trace(replay(do(normals, data={"x": 2.0}), trace=before)).get_trace()
    assert recorded.nodes["x"]["value"] is before.nodes["x"]["value"]
    assert recorded.nodes["y"]["fn"].loc == 2.0


def test_scales_and_masks_inside_count_once() -> None:
    for outside in (False, True):
        inner = normals if outside else scale(mask(normals, mask=True), scale=2.0)
        handled = do(inner, data={"x": 1.0})
        handled = scale(handled, scale=2.0) if outside else handled
        assert trace(handled).get_trace().nodes["x"]["scale"] == 2.0


def test_block_hides_the_natural_site() -> None:
    recorded = trace(block(do(normals, data={"x": 1.0}), hide=["x"])).get_trace()
    assert "x" not in recorded
    assert recorded.nodes["y"]["fn"].loc == 1.0


def test_values_are_tensors_and_numbers() -> None:
    for value in (1, 1.0, True, np.float64(1.0), torch.tensor(1.0)):
        x = do(normals, data={"x": value})()[1]
        assert isinstance(x, Tensor)
        assert x == 1
        assert x.dtype == torch.float32  # that of the natural value
    assert do(normals, data={"x": None})()[1] != 0.0


def test_a_number_that_the_natural_type_cannot_hold_has_its_own() -> None:
    def model() -> Any:
        return sample("k", dist.Categorical(torch.ones(3)))

    assert do(model, data={"k": 2})().dtype == torch.int64
    assert do(model, data={"k": 0.5})() == 0.5


def test_other_values_are_told_at_once() -> None:
    with pytest.raises(ModelError, match=r"'x' is of type str.*torch\.as_tensor"):
        do(normals, data={"x": "one"})  # type: ignore[dict-item]
    with pytest.raises(ModelError, match="do takes values by name of site and was given int"):
        do(normals, data=3)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="given a Trace"):
        do(normals, data=trace(normals).get_trace())  # type: ignore[arg-type]


def test_a_value_of_another_shape_is_told_at_the_site() -> None:
    def model() -> None:
        with plate("data", 3):
            sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    do(model, data={"x": torch.zeros(2)})()
    do(model, data={"x": torch.zeros(5, 1, 2)})()  # five interventions at once
    with pytest.raises(
        ModelError, match=r"'x' has shape \(4, 2\).*batch shape \(3,\) and event shape \(2,\)"
    ):
        do(model, data={"x": torch.zeros(4, 2)})()
    with pytest.raises(ModelError, match=r"'x' has shape \(4,\)"), plate("outside", 3):
        do(normals, data={"x": torch.zeros(4)})()


def test_of_two_interventions_the_inner_one_holds() -> None:
    twice = do(do(normals, data={"x": 1.0}), data={"x": 2.0})
    with pytest.warns(RuntimeWarning, match="Two interventions on site 'x'"):
        assert twice()[1] == 1.0
    # On different sites there is nothing to tell.
    assert do(do(normals, data={"z": 1.0}), data={"x": 2.0})()[1] == 2.0


def test_params_are_left_alone() -> None:
    assert do(lambda: param("p", torch.tensor(1.0)), data={"p": None})() == 1.0


def test_a_trace_of_it_is_pickled() -> None:
    recorded = trace(do(normals, data={"x": 1.0})).get_trace()
    recorded.remove_node("_INPUT")
    assert pickle.loads(pickle.dumps(recorded)).nodes["x"]["value"] == recorded.nodes["x"]["value"]


def test_under_plates() -> None:
    def model() -> Any:
        with plate("units", 3):
            x = sample("x", dist.Normal(0.0, 1.0))
            return sample("y", dist.Normal(10.0 * x, 0.001))

    doses = torch.tensor([1.0, 2.0, 3.0])
    recorded = trace(do(model, data={"x": doses})).get_trace()
    assert recorded.nodes["x"]["value"].shape == (3,)
    assert recorded.nodes["x"]["fn"].batch_shape == (3,)
    assert torch.allclose(recorded.nodes["y"]["value"], 10 * doses, atol=0.1)  # 100 standard deviations
    assert [frame.name for frame in recorded.nodes["x"]["cond_indep_stack"]] == ["units"]


# ------------------------------------------------------------------------------- exact inference: three coins


def probabilities(*shape: int) -> st.SearchStrategy[Tensor]:
    number = int(np.prod(shape))
    return st.lists(st.floats(0.05, 0.95), min_size=number, max_size=number).map(
        lambda values: torch.tensor(values, dtype=torch.float64).reshape(shape)
    )


@st.composite
def confounded(draw: st.DrawFn) -> tuple[Program, Tensor]:
    """c -> x, (c, x) -> y, and the table of P(c, x, y_0, y_1), in which y_b is y had x been b."""
    c1, x1, y1 = draw(probabilities()), draw(probabilities(2)), draw(probabilities(2, 2))

    def model() -> Any:
        c = sample("c", dist.Bernoulli(c1)).long()
        x = sample("x", dist.Bernoulli(x1[c])).long()
        return sample("y", dist.Bernoulli(y1[c, x]))

    def coin(p: Tensor) -> Tensor:
        return torch.stack([1 - p, p], -1)

    table = coin(c1)[:, None, None] * coin(x1)[:, :, None] * coin(y1)[:, None, 0]
    return model, table[..., None] * coin(y1)[:, None, 1][:, :, None, :]


def tensor(value: int) -> Tensor:
    return torch.tensor(float(value), dtype=torch.float64)


@given(confounded(), st.integers(0, 1))
def test_an_intervention_is_the_truncated_factorization(scm: tuple[Program, Tensor], b: int) -> None:
    """P(y | do(x = b)) = sum_c P(c) P(y | c, b): the back-door adjustment."""
    model, table = scm
    y = table.sum((0, 1, 3 - b))
    answer = marginals(do(model, data={"x": b}))()
    torch.testing.assert_close(answer["y"].probs, y[1], **EXACT)
    torch.testing.assert_close(answer["x"].probs, table.sum((0, 2, 3))[1], **EXACT)  # as without do
    torch.testing.assert_close(answer.log_evidence, tensor(0), **EXACT)


@given(confounded(), st.integers(0, 1), st.integers(0, 1))
def test_the_treated_had_they_not_been(scm: tuple[Program, Tensor], a: int, b: int) -> None:
    """P(Y_b | X = a), and P(X = a, Y_b = 1); where a = b it is P(y | x), the law of consistency."""
    model, table = scm
    joint = table.sum(0)[a].sum(1 - b)
    intervened = do(model, data={"x": b})
    for handled in (
        condition(intervened, data={"x": tensor(a)}),
        do(condition(model, data={"x": tensor(a)}), data={"x": torch.tensor(b)}),
    ):
        answer = marginals(handled)()
        torch.testing.assert_close(answer["y"].probs, joint[1] / joint.sum(), **EXACT)
        torch.testing.assert_close(answer.log_evidence.exp(), joint.sum(), **EXACT)
    both = log_evidence(condition(intervened, data={"x": tensor(a), "y": tensor(1)}))()
    torch.testing.assert_close(both.exp(), joint[1], **EXACT)
    if a == b:
        factual = marginals(condition(model, data={"x": tensor(a)}))()
        torch.testing.assert_close(factual["y"].probs, joint[1] / joint.sum(), **EXACT)


@given(confounded(), st.integers(0, 1), st.integers(0, 1))
def test_the_confounder_given_a_counterfactual(scm: tuple[Program, Tensor], a: int, b: int) -> None:
    """P(c | X = a, Y_b = 1), and its most probable value."""
    model, table = scm
    joint = table[:, a].sum(2 - b)[:, 1]
    handled = condition(do(model, data={"x": b}), data={"x": tensor(a), "y": tensor(1)})
    torch.testing.assert_close(marginals(handled)()["c"].probs, joint[1] / joint.sum(), **EXACT)
    if abs(float(joint[1] - joint[0])) > 1e-9:
        assert map_assignment(handled)()["c"] == int(joint[1] > joint[0])


@pytest.mark.parametrize("order", ["enum inside", "enum outside"])
def test_enum_inside_and_outside(order: str) -> None:
    def model() -> Any:
        x = sample("x", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        return sample("y", dist.Bernoulli(0.1 + 0.6 * x), infer={"enumerate": "parallel"})

    if order == "enum inside":
        handled = do(enum(model, first_available_dim=-1), data={"x": 1})
    else:
        handled = enum(do(model, data={"x": 1}), first_available_dim=-1)
    recorded = trace(handled).get_trace()
    assert recorded.nodes["x"]["value"].shape == (2,)
    assert recorded.nodes["y"]["value"].shape == (2, 1)
    assert recorded.nodes["y"]["fn"].batch_shape == ()


# ---------------------------------------------------------------- exact inference: two worlds with the same noise


@given(probabilities(2, 4), *[st.integers(0, 1)] * 3)
def test_twin_network(weights: Tensor, a: int, b: int, y: int) -> None:
    """P(Y_b = 1 | X = a, Y = y), by summing over response functions (Balke and Pearl 1994, section 3).

    The noise is u, the natural x, and r, which of the four functions of x gives y; they are dependent.
    """
    joint = weights / weights.sum()
    function = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])

    def world(u: Tensor, r: Tensor, prefix: str) -> None:
        x = sample(prefix + "x", dist.Bernoulli(u.double())).long()
        sample(prefix + "y", dist.Bernoulli(function[r, x].double()))

    def twin() -> None:
        noise = sample("noise", dist.Categorical(joint.reshape(-1)))
        u, r = noise // 4, noise % 4
        world(u, r, "")
        with do(data={"had_x": b}):
            world(u, r, "had_")

    happened = function[:, a] == y
    expected = joint[a][happened & (function[:, b] == 1)].sum() / joint[a][happened].sum()
    answer = marginals(condition(twin, data={"x": tensor(a), "y": tensor(y)}))()
    torch.testing.assert_close(answer["had_y"].probs, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        answer["had_x"].probs, tensor(a), rtol=1e-9, atol=1e-12
    )  # natural, as it happened
    torch.testing.assert_close(answer.log_evidence.exp(), joint[a][happened].sum(), rtol=1e-9, atol=1e-12)


def test_a_plate_of_units_is_a_loop_over_them() -> None:
    treated = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    doses = torch.tensor([0, 0, 1])
    y1 = torch.tensor([[0.2, 0.7], [0.5, 0.9]], dtype=torch.float64)

    def unit(x: Any) -> None:
        c = sample("c", dist.Bernoulli(tensor(1) * 0.4)).long()
        x = sample("x", dist.Bernoulli(0.3 + 0.5 * c.double()), obs=x).long()
        sample("y", dist.Bernoulli(y1[c, x]))

    def model() -> None:
        with plate("units", 3):
            unit(treated)

    together = marginals(do(model, data={"x": doses}))()
    for i in range(3):
        one = marginals(do(lambda i=i: unit(treated[i]), data={"x": int(doses[i])}))()
        torch.testing.assert_close(together["y"].probs[i], one["y"].probs, **EXACT)
