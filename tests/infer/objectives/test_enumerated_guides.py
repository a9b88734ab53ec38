"""TraceEnum_ELBO with sites of the guide enumerated, against every joint value written out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from bounds import Chosen, assert_same, assert_unbiased, bound, gradients, plain_log_prob, runs
from sumout import Vindex, markov, plate, sample
from sumout.effects.handlers import mask, scale, trace
from sumout.errors import EnumerationError, MemoryLimitError, ModelError, PlanError, PlateError
from sumout.infer import TraceEnum_ELBO, TraceEnumSample_ELBO, config_enumerate

X = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _own_parameters() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    with sumout.get_param_store().scope():
        yield
    torch.set_default_dtype(torch.float32)


def logits(name: str, *shape: int) -> Tensor:
    """A parameter of fixed random numbers."""
    seed = sum(map(ord, name)) + sum(shape)
    return sumout.param(f"{name} {shape}", torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def categorical(name: str, *shape: int) -> Any:
    return dist.Categorical(logits=logits(name, *shape))


def assert_exact(model: Callable[[], Any], guide: Callable[[], Any], **options: Any) -> None:
    loss = TraceEnum_ELBO(**options).differentiable_loss(config_enumerate(model), config_enumerate(guide))
    assert_same(-loss, bound(model, guide))


def chain_model(length: int = 3, size: int = 2, history: int = 1, **steps: Any) -> Callable[[], None]:
    def model() -> None:
        x = before = torch.tensor(0)
        for t in markov(range(length), history=history, **steps):
            table = logits("p_move", *[size] * (history + 1))
            row = table[x] if history == 1 else Vindex(table)[before, x]
            before, x = x, sample(f"x_{t}", dist.Categorical(logits=row))
            sample(f"y_{t}", dist.Normal(logits("p_loc", size)[x], 1.0), obs=X[t])

    return model


# ---------------------------------------------------------------------------------------------------- in the guide


def test_one_site_in_both() -> None:
    def model() -> None:
        z = sample("z", categorical("p_z", 3))
        sample("x", dist.Normal(logits("loc", 3)[z], 1.0), obs=X[0])

    assert_exact(model, lambda: sample("z", categorical("q_z", 3)))


def test_global_and_local_sites_in_the_guide() -> None:
    def model() -> None:
        a = sample("a", categorical("p_a", 2))
        with plate("data", 3):
            b = sample("b", dist.Categorical(logits=logits("p_b", 2, 3)[a]))
            sample("x", dist.Normal(Vindex(logits("loc", 2, 3))[a, b], 1.0), obs=X)

    def guide() -> None:
        a = sample("a", categorical("q_a", 2))
        with plate("data", 3) as i:
            sample("b", dist.Categorical(logits=Vindex(logits("q_b", 3, 2, 3))[i, a]))

    assert_exact(model, guide)


def test_the_guide_draws_in_another_order() -> None:
    def model() -> None:
        a = sample("a", categorical("p_a", 2))
        b = sample("b", dist.Categorical(logits=logits("p_b", 2, 3)[a]))
        sample("x", dist.Normal(logits("loc", 3)[b], 1.0), obs=X[0])

    def guide() -> None:
        b = sample("b", categorical("q_b", 3))
        sample("a", dist.Categorical(logits=logits("q_a", 3, 2)[b]))

    assert_exact(model, guide)


def test_some_sites_in_the_guide_and_others_in_the_model_alone() -> None:
    def model() -> None:
        a = sample("a", categorical("p_a", 2))
        with plate("data", 3):
            b = sample("b", dist.Categorical(logits=logits("p_b", 2, 3)[a]))
            c = sample("c", dist.Categorical(logits=logits("p_c", 3, 2)[b]))
            sample("x", dist.Normal(Vindex(logits("loc", 2, 2))[a, c], 1.0), obs=X)

    def guide() -> None:
        a = sample("a", categorical("q_a", 2))
        with plate("data", 3):
            sample("b", dist.Categorical(logits=logits("q_b", 2, 3)[a]))

    assert_exact(model, guide)
    assert_exact(model, lambda: sample("a", categorical("q_a", 2)))


def test_an_auxiliary_site_that_the_model_does_not_have() -> None:
    def model() -> None:
        z = sample("z", categorical("p_z", 3))
        sample("x", dist.Normal(logits("loc", 3)[z], 1.0), obs=X[0])

    def guide() -> None:
        u = sample("u", categorical("q_u", 2), infer={"is_auxiliary": True})
        sample("z", dist.Categorical(logits=logits("q_z", 2, 3)[u]))

    assert_exact(model, guide)


def test_an_extra_dependency_of_the_guide() -> None:
    def model() -> None:
        with plate("data", 3):
            y = sample("y", categorical("p_y", 2))
            z = sample("z", categorical("p_z", 3))
            sample("x", dist.Normal(logits("u", 2)[y] + logits("v", 3)[z], 1.0), obs=X)

    def guide() -> None:
        with plate("data", 3):
            y = sample("y", categorical("q_y", 2))
            sample("z", dist.Categorical(logits=logits("q_z", 2, 3)[y]))

    assert_exact(model, guide)


def test_under_mask_scale_and_in_a_subsampled_plate() -> None:
    kept = torch.tensor([True, False, True])

    def model() -> None:
        a = sample("a", categorical("p_a", 2))
        with plate("data", 12, subsample=torch.tensor([3, 7, 1])), mask(mask=kept), scale(scale=1.5):
            b = sample("b", dist.Categorical(logits=logits("p_b", 2, 3)[a]))
            with scale(scale=0.3):
                sample("x", dist.Normal(Vindex(logits("loc", 2, 3))[a, b], 1.0), obs=X)

    def guide() -> None:
        a = sample("a", categorical("q_a", 2))
        with plate("data", 12, subsample=torch.tensor([3, 7, 1])), mask(mask=kept), scale(scale=1.5):
            sample("b", dist.Categorical(logits=logits("q_b", 2, 3)[a]))

    assert_exact(model, guide)


def test_local_sites_summed_out_under_a_scale_and_an_enumerated_global() -> None:
    def model() -> None:
        a = sample("a", categorical("p_a", 2))
        with plate("data", 12, subsample=torch.tensor([3, 7, 1])):
            b = sample("b", dist.Categorical(logits=logits("p_b", 2, 3)[a]))
            sample("x", dist.Normal(Vindex(logits("loc", 2, 3))[a, b], 1.0), obs=X)

    loss = TraceEnum_ELBO().differentiable_loss(
        config_enumerate(model), config_enumerate(lambda: sample("a", categorical("q_a", 2)))
    )
    q, p, b = logits("q_a", 2).softmax(-1), logits("p_a", 2).softmax(-1), logits("p_b", 2, 3).log_softmax(-1)
    inner = (b[:, None] + dist.Normal(logits("loc", 2, 3)[:, None], 1.0).log_prob(X[:, None])).logsumexp(-1)
    exact = (q * (p.log() - q.log() + 4 * inner.sum(-1))).sum()
    assert_same(-loss, exact)


def test_nested_and_sibling_plates() -> None:
    data = torch.linspace(-1, 1, 4).reshape(2, 2)

    def model() -> None:
        rows, columns, others = (
            plate("rows", 2, dim=-2),
            plate("columns", 2, dim=-1),
            plate("others", 2, dim=-1),
        )
        with rows:
            a = sample("a", categorical("p_a", 2))
        with others:
            b = sample("b", categorical("p_b", 2))
            sample("y", dist.Normal(logits("u", 2)[b], 1.0), obs=data[0])
        with rows, columns:
            c = sample("c", dist.Categorical(logits=logits("p_c", 2, 2)[a]))
            sample("x", dist.Normal(Vindex(logits("loc", 2, 2))[a, c], 1.0), obs=data)

    def guide() -> None:
        with plate("rows", 2, dim=-2):
            a = sample("a", dist.Categorical(logits=logits("q_a", 2, 1, 2)))
            with plate("columns", 2, dim=-1):
                sample("c", dist.Categorical(logits=logits("q_c", 2, 2)[a]))
        with plate("others", 2, dim=-1):
            sample("b", dist.Categorical(logits=logits("q_b", 2, 2)))

    assert_exact(model, guide)


# ---------------------------------------------------------------------------------------------------------- chains


def chain_guide(
    length: int = 3, size: int = 2, history: int = 1, reach: int = 1, **steps: Any
) -> Callable[[], None]:
    """A chain of which each step depends on the ``reach`` steps before."""

    def guide() -> None:
        x = before = torch.tensor(0)
        for t in markov(range(length), history=history, **steps):
            row = logits("q_0", size) if reach == 0 else logits("q_move", size, size)[x]
            if reach == 2:
                row = Vindex(logits("q_two", size, size, size))[before, x]
            before, x = x, sample(f"x_{t}", dist.Categorical(logits=row))

    return guide


@pytest.mark.parametrize("of_model", [1, 2])
@pytest.mark.parametrize("of_guide", [0, 1, 2])
def test_chains_of_any_history_in_both(of_model: int, of_guide: int) -> None:
    guide = chain_guide(history=max(of_guide, 1), reach=of_guide)
    assert_exact(chain_model(history=of_model), guide)


@pytest.mark.parametrize("of_guide", [1, 2])
@pytest.mark.parametrize("of_model", [1, 2])
@pytest.mark.parametrize("vectorized", ["guide", "model", "both"])
def test_vectorized_chains(vectorized: str, of_model: int, of_guide: int) -> None:
    model = chain_model(history=of_model, name="time")
    guide = chain_guide(history=of_guide, reach=of_guide, name="time")
    exact = bound(model, guide)
    options = {"dim": -1, "name": "time"}
    if vectorized != "guide":
        model = chain_model(history=of_model, **options)
    if vectorized != "model":
        guide = chain_guide(history=of_guide, reach=of_guide, **options)
    loss = TraceEnum_ELBO().differentiable_loss(config_enumerate(model), config_enumerate(guide))
    assert_same(-loss, exact)


@pytest.mark.parametrize("of_model", [{"name": "time"}, {"dim": -1, "name": "time"}], ids=["loop", "at once"])
@pytest.mark.parametrize("history", [0, 1, 2])
def test_a_guide_of_independent_steps_at_once(history: int, of_model: dict[str, Any]) -> None:
    def guide(**steps: Any) -> None:
        for t in markov(range(3), **steps):
            sample(f"x_{t}", dist.Categorical(logits=logits("q_t", 3, 2)[t]))

    def at_once() -> None:
        guide(history=history, dim=-1, name="time")

    exact = bound(chain_model(), guide)
    loss = TraceEnum_ELBO().differentiable_loss(
        config_enumerate(chain_model(**of_model)), config_enumerate(at_once)
    )
    assert_same(-loss, exact)


def test_plates_that_are_chains_in_both() -> None:
    def model(**steps: Any) -> None:
        for t in markov(range(3), **steps):
            x = sample(f"x_{t}", categorical("p_x", 2))
            sample(f"y_{t}", dist.Normal(logits("p_loc", 2)[x], 1.0), obs=X[t])

    def guide(**steps: Any) -> None:
        for t in markov(range(3), **steps):
            sample(f"x_{t}", dist.Categorical(logits=logits("q_t", 3, 2)[t]))

    exact = bound(model, guide)
    options = {"history": 0, "dim": -1, "name": "time"}
    loss = TraceEnum_ELBO().differentiable_loss(
        config_enumerate(lambda: model(**options)), config_enumerate(lambda: guide(**options))
    )
    assert_same(-loss, exact)


def test_a_chain_without_markov_in_one_of_them() -> None:
    def guide() -> None:
        x = torch.tensor(0)
        for t in range(3):
            x = sample(f"x_{t}", dist.Categorical(logits=logits("q_move", 2, 2)[x]))

    assert_exact(chain_model(), guide)
    assert_exact(chain_model(history=2), guide)

    def model() -> None:
        x = torch.tensor(0)
        for t in range(3):
            x = sample(f"x_{t}", dist.Categorical(logits=logits("p_move", 2, 2)[x]))
            sample(f"y_{t}", dist.Normal(logits("p_loc", 2)[x], 1.0), obs=X[t])

    assert_exact(model, chain_guide())
    assert_exact(model, chain_guide(history=2, reach=2))


def test_a_long_chain_of_the_guide() -> None:
    """Against the forward recursion of the guide's marginals; 60 steps have no table of their own."""
    length, size = 60, 3
    data = torch.linspace(-1, 1, length)

    def model() -> None:
        x = torch.tensor(0)
        for t in markov(range(length)):
            x = sample(f"x_{t}", dist.Categorical(logits=logits("p_move", size, size)[x]))
            sample(f"y_{t}", dist.Normal(logits("p_loc", size)[x], 1.0), obs=data[t])

    loss = TraceEnum_ELBO().differentiable_loss(
        config_enumerate(model), config_enumerate(chain_guide(length, size))
    )
    q, p = logits("q_move", size, size).log_softmax(-1), logits("p_move", size, size).log_softmax(-1)
    marginal, exact = torch.eye(size)[0], torch.zeros(())
    for t in range(length):
        exact = exact + (marginal[:, None] * q.exp() * (p - q)).sum()
        marginal = marginal @ q.exp()
        exact = exact + (marginal * dist.Normal(logits("p_loc", size), 1.0).log_prob(data[t])).sum()
    assert_same(-loss, exact)


# --------------------------------------------------------------------------------------------- enumerated and drawn


def assert_right(model: Callable[[], Any], guide: Callable[[], Any], drawn: set[str], **options: Any) -> None:
    """The bound's mean over all draws of some sites is exact, and so is the mean of its gradient."""
    options.setdefault("max_plate_nesting", 1)  # a run that looks for it would draw too

    def loss(guide: Callable[[], Any]) -> Tensor:
        return TraceEnum_ELBO(**options).differentiable_loss(model, guide)

    assert_unbiased(loss, guide, drawn, -bound(model, guide))


MARK = {"enumerate": "parallel"}


def three_levels_model() -> None:
    a = sample("a", categorical("p_a", 2))
    b = sample("b", dist.Bernoulli(logits=logits("p_b", 2)[a]))
    with plate("data", 2):
        c = sample("c", dist.Bernoulli(logits=logits("p_c", 2)[a] + b))
        d = sample("d", dist.Bernoulli(logits=logits("p_d", 2)[a] - c), infer=MARK)
        sample("x", dist.Normal(logits("loc", 2)[a] + b * c - d, 1.0), obs=X[:2])


@pytest.mark.parametrize("drawn", ["a", "b", "c", "ab", "ac", "bc", "abc"])
def test_sites_are_enumerated_or_drawn(drawn: str) -> None:
    def infer(name: str) -> dict[str, str]:
        return {} if name in drawn else MARK

    def guide() -> None:
        a = sample("a", categorical("q_a", 2), infer=infer("a"))
        b = sample("b", dist.Bernoulli(logits=logits("q_b", 2)[a]), infer=infer("b"))
        with plate("data", 2):
            sample("c", dist.Bernoulli(logits=logits("q_c", 2)[a] + b * logits("q_cb", 2)), infer=infer("c"))

    assert_right(three_levels_model, guide, drawn)


def test_the_model_draws_first_what_the_guide_draws_for_each_value() -> None:
    """As in semi-supervised autoencoders: the guide draws z given the label, the model the label after z."""

    def model() -> None:
        with plate("data", 2):
            z = sample("z", dist.Bernoulli(logits=logits("p_z", 1)))
            y = sample("y", dist.Categorical(logits=logits("p_y", 3) * z[..., None]))
            sample("x", dist.Normal(logits("loc", 3)[y] + z, 1.0), obs=X[:2])

    def guide() -> None:
        with plate("data", 2):
            y = sample("y", categorical("q_y", 3), infer=MARK)
            sample("z", dist.Bernoulli(logits=logits("q_z", 3)[y]))

    assert_right(model, guide, {"z"})


def test_pathwise_values_for_each_value_of_an_enumerated_site() -> None:
    """At fixed noise a draw is a function of the parameters: one run of the model for each value, by hand."""
    index = 0
    noise = torch.tensor([[0.3, -0.7], [1.1, 0.2], [-0.4, 0.9]])

    def noisy(fn: Any) -> Tensor:
        each = noise if fn.batch_shape == (3, 2) else noise[index]
        return fn.loc + fn.scale * each

    def model() -> None:
        with plate("data", 2):
            z = sample("z", dist.Normal(logits("p_z", 1), 1.0))
            y = sample("y", dist.Categorical(logits=logits("p_y", 3) * z[..., None]))
            sample("x", dist.Normal(logits("loc", 3)[y] + z, 1.0), obs=X[:2])

    def guide(infer: Any = MARK) -> None:
        with plate("data", 2):
            y = sample("y", categorical("q_y", 3), infer=infer)
            sample("z", dist.Normal(logits("q_z", 3)[y], 0.7))

    loss = TraceEnum_ELBO().differentiable_loss(model, Chosen({"z": noisy})(guide))
    q, exact = logits("q_y", 3).softmax(-1), torch.zeros(())
    for index in range(3):
        values = {"z": noisy, "y": torch.tensor([index, index])}
        guide_trace = trace(Chosen(values)(guide)).get_trace()
        model_trace = trace(
            Chosen({name: guide_trace.nodes[name]["value"] for name in values})(model)
        ).get_trace()
        log_p = torch.stack([model_trace.nodes[name]["log_prob"] for name in "zyx"]).sum(0)
        log_q = guide_trace.nodes["z"]["log_prob"] + guide_trace.nodes["y"]["log_prob"]
        exact = exact + (q[index] * (log_p - log_q)).sum()
    assert_same(-loss, exact)


def test_drawn_in_a_chain_for_each_value_of_the_step() -> None:
    def model() -> None:
        x = torch.tensor(0)
        for t in markov(range(3)):
            x = sample(f"x_{t}", dist.Categorical(logits=logits("p_move", 2, 2)[x]))
            z = sample(f"z_{t}", dist.Bernoulli(logits=logits("p_z", 2)[x]))
            sample(f"y_{t}", dist.Normal(logits("p_loc", 2)[x] + z, 1.0), obs=X[t])

    def guide() -> None:
        x = torch.tensor(0)
        for t in markov(range(3)):
            x = sample(f"x_{t}", dist.Categorical(logits=logits("q_move", 2, 2)[x]), infer=MARK)
            sample(f"z_{t}", dist.Bernoulli(logits=logits("q_z", 2)[x]))

    assert_right(model, guide, {"z_0", "z_1", "z_2"})


def test_several_particles() -> None:
    def guide() -> None:
        a = sample("a", categorical("q_a", 2), infer=MARK)
        b = sample("b", dist.Bernoulli(logits=logits("q_b", 2)[a]))
        with plate("data", 2):
            sample("c", dist.Bernoulli(logits=logits("q_c", 2)[a] + b), infer=MARK)

    assert_right(three_levels_model, guide, {"b"}, num_particles=2, vectorize_particles=True)

    def enumerated() -> None:
        a = sample("a", categorical("q_a", 2), infer=MARK)
        b = sample("b", dist.Bernoulli(logits=logits("q_b", 2)[a]), infer=MARK)
        with plate("data", 2):
            sample("c", dist.Bernoulli(logits=logits("q_c", 2)[a] + b), infer=MARK)

    for options in ({}, {"vectorize_particles": True}):
        assert_right(three_levels_model, enumerated, set(), num_particles=3, **options)


def test_several_samples_of_a_site() -> None:
    """Samples along a dimension of their own are a mean within the bound."""

    def guide(count: int = 2) -> None:
        a = sample("a", categorical("q_a", 2), infer=MARK)
        more = {**MARK, "num_samples": count, "expand": True}
        b = sample("b", dist.Bernoulli(logits=logits("q_b", 2)[a]), infer=more)
        with plate("data", 2):
            sample("c", dist.Bernoulli(logits=logits("q_c", 2)[a] + b), infer=MARK)

    def plain() -> None:
        a = sample("a", categorical("q_a", 2))
        b = sample("b", dist.Bernoulli(logits=logits("q_b", 2)[a]))
        with plate("data", 2):
            sample("c", dist.Bernoulli(logits=logits("q_c", 2)[a] + b))

    mean, grads = mean_over_samples(three_levels_model, guide, "b")
    exact = -bound(three_levels_model, plain)
    torch.testing.assert_close(mean, exact.item(), rtol=1e-9, atol=1e-10)
    for name, each in gradients(exact).items():
        torch.testing.assert_close(grads[name], each, rtol=1e-9, atol=1e-10, msg=f"{{}}: {name}".format)


def mean_over_samples(model: Any, guide: Any, name: str) -> tuple[float, dict[str, Tensor]]:
    """Over all joint samples that ``torch.bernoulli`` may give to one site."""
    mean, grads = 0.0, dict[str, Tensor]()
    for index in itertools.product([0.0, 1.0], repeat=4):
        weight = torch.ones(())

        def fixed(probs: Tensor, *args: Any, index: Any = index, **kwargs: Any) -> Tensor:
            nonlocal weight
            if probs.numel() != len(index):
                return torch.zeros_like(probs)  # of a run before, that looks at shapes, or after, that checks
            value = torch.tensor(index).reshape(probs.shape)
            weight = torch.where(value == 1, probs, 1 - probs).prod()
            return value

        with patch("torch.bernoulli", fixed):
            loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model, guide)
        mean += weight.item() * loss.item()
        for each, grad in gradients(loss).items():
            grads[each] = grads.get(each, 0.0) + weight.item() * grad
    return mean, grads


def test_samples_that_go_with_those_of_another_site_are_refused() -> None:
    def guide() -> None:
        more = {**MARK, "num_samples": 2}
        a = sample("a", categorical("q_a", 2), infer=more)
        b = sample("b", dist.Bernoulli(0.2 + 0.5 * a), infer=more)
        with plate("data", 2):
            sample("c", dist.Bernoulli(0.3 + 0.2 * b))

    with pytest.raises(EnumerationError, match="'b' of the guide .* depends on 'a'.*expand.*TraceTMC_ELBO"):
        TraceEnum_ELBO().loss(three_levels_model, guide)


# ----------------------------------------------------------------------------------------- what has no answer


def test_a_global_sum_over_a_local_enumerated_guide() -> None:
    def model() -> None:
        a = sample("a", categorical("p_a", 2), infer=MARK)
        with plate("data", 3):
            b = sample("b", dist.Categorical(logits=logits("p_b", 2, 3)[a]))
            sample("x", dist.Normal(logits("loc", 3)[b], 1.0), obs=X)

    def guide() -> None:
        with plate("data", 3):
            sample("b", dist.Categorical(logits=logits("q_b", 3, 3)), infer=MARK)

    assert_exact(model, guide)


def test_plates_within_plates_are_written_out() -> None:
    data = torch.linspace(-1, 1, 4).reshape(2, 2)

    def model() -> None:
        rows, columns = plate("rows", 2, dim=-2), plate("columns", 2, dim=-1)
        a = sample("a", categorical("p_a", 2), infer=MARK)
        with rows:
            b = sample("b", dist.Categorical(logits=logits("p_b", 2, 2)[a]), infer=MARK)
            with columns:
                c = sample("c", dist.Categorical(logits=logits("p_c", 2, 2)[b]))
                sample("x", dist.Normal(Vindex(logits("loc", 2, 2))[a, c], 1.0), obs=data)

    def of_all() -> None:
        with plate("rows", 2, dim=-2) as i:
            with plate("columns", 2, dim=-1) as j:
                sample("c", dist.Categorical(logits=logits("q_c", 2, 2, 2)[i[:, None], j]), infer=MARK)

    def of_rows() -> None:
        a = sample("a", categorical("q_a", 2), infer=MARK)
        with plate("rows", 2, dim=-2):
            u = sample("u", categorical("q_u", 2), infer={**MARK, "is_auxiliary": True})
            with plate("columns", 2, dim=-1):
                sample("c", dist.Categorical(logits=Vindex(logits("q_c", 2, 2, 2))[a, u]), infer=MARK)

    assert_exact(model, of_all)
    assert_exact(model, of_rows)


def test_a_subsampled_plate_cannot_be_written_out() -> None:
    def model() -> None:
        a = sample("a", categorical("p_a", 2), infer=MARK)
        with plate("data", 9, subsample=torch.arange(3)):
            b = sample("b", dist.Categorical(logits=logits("p_b", 2, 3)[a]))
            sample("x", dist.Normal(logits("loc", 3)[b], 1.0), obs=X)

    def guide() -> None:
        with plate("data", 9, subsample=torch.arange(3)):
            sample("b", categorical("q_b", 3), infer=MARK)

    with pytest.raises(PlanError, match="'data'.*subsample"):
        TraceEnum_ELBO().loss(model, guide)


def test_tables_of_the_guide_that_are_too_large() -> None:
    def model() -> None:
        zs = [sample(f"z{i}", dist.Bernoulli(0.5)) for i in range(12)]
        sample("x", dist.Normal(sum(zs), 1.0), obs=X[0])

    def guide() -> None:
        before: Any = 0.0
        for i in range(12):
            before = sample(f"z{i}", dist.Bernoulli(logits=0.1 * before), infer=MARK)

    with sumout.settings.override(memory_limit=10_000), pytest.raises(MemoryLimitError, match="'z0', 'z1'"):
        TraceEnum_ELBO().loss(model, guide)


def test_case_weights() -> None:
    """Each element of a plate with a scale of its own, of all sites in it."""
    weights = torch.tensor([0.5, 2.0, 3.5])

    def model() -> None:
        a = sample("a", categorical("p_a", 2))
        with plate("data", 3), scale(scale=weights):
            b = sample("b", dist.Categorical(logits=logits("p_b", 2, 3)[a]), infer=MARK)
            sample("x", dist.Normal(Vindex(logits("loc", 2, 3))[a, b], 1.0), obs=X)

    def guide() -> None:
        sample("a", categorical("q_a", 2), infer=MARK)

    def by_hand(q_b: Tensor | None = None) -> Tensor:
        q, p, b = logits("q_a", 2).softmax(-1), logits("p_a", 2).softmax(-1), logits("p_b", 2, 3)
        joint = b.log_softmax(-1)[:, None] + dist.Normal(logits("loc", 2, 3)[:, None], 1.0).log_prob(
            X[:, None]
        )
        inner = joint.logsumexp(-1) if q_b is None else (q_b.exp() * (joint - q_b)).sum(-1)
        return (q * (p.log() - q.log() + inner @ weights)).sum()

    assert_same(-TraceEnum_ELBO().differentiable_loss(model, guide), by_hand())

    def local() -> None:
        guide()
        with plate("data", 3), scale(scale=weights):
            sample("b", categorical("q_b", 3), infer=MARK)

    loss = TraceEnum_ELBO().differentiable_loss(model, local)
    assert_same(-loss, by_hand(logits("q_b", 3).log_softmax(-1)))

    def uneven() -> None:
        with plate("data", 3):
            b = sample("b", categorical("p_b", 3), infer=MARK)
            with scale(scale=weights):
                sample("x", dist.Normal(logits("loc", 3)[b], 1.0), obs=X)

    with pytest.raises(PlateError, match="'x' has a scale for each element of 'data'.*'b'"):
        TraceEnum_ELBO().loss(uneven, lambda: None)


# ---------------------------------------------------------------------------------------------- what the sites are


def summed_given_guide() -> None:
    a = sample("a", categorical("p_a", 2))
    with plate("data", 3):
        b = sample("b", dist.Categorical(logits=logits("p_b", 2, 3)[a]))
        c = sample("c", dist.Bernoulli(logits=logits("p_c", 3)[b] + a), infer=MARK)
        sample("x", dist.Normal(Vindex(logits("loc", 2, 3))[a, b] + c, 1.0), obs=X)


def guide_of_two() -> None:
    a = sample("a", categorical("q_a", 2), infer=MARK)
    with plate("data", 3) as i:
        sample("b", dist.Categorical(logits=Vindex(logits("q_b", 3, 2, 3))[i, a]), infer=MARK)


def test_marginals_with_an_enumerated_guide() -> None:
    found = TraceEnum_ELBO().compute_marginals(summed_given_guide, guide_of_two)
    expected = {name: torch.zeros(()) for name in "abc"}
    for values, record in runs(guide_of_two, {}):
        q = plain_log_prob(record, values).exp()
        full = list(runs(summed_given_guide, values))
        posterior = torch.stack([each.log_prob_sum() for _, each in full]).softmax(0)
        for weight, (everything, _) in zip(posterior, full, strict=True):
            for name in "abc":
                expected[name] = expected[name] + q * weight * torch.eye(3)[everything[name].long()]
    assert list(found) == ["a", "b", "c"]
    torch.testing.assert_close(found["a"].probs, expected["a"][:2], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found["b"].probs, expected["b"], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found["c"].probs, expected["c"][:, 1], rtol=1e-9, atol=1e-10)


def test_marginals_of_what_nothing_is_known() -> None:
    def model() -> None:
        loc = sample("loc", dist.Normal(0.0, 1.0))
        z = sample("z", dist.Bernoulli(0.3), infer=MARK)
        sample("x", dist.Normal(loc + z, 1.0), obs=X[0])

    with (
        pytest.warns(UserWarning, match="drawn from the prior"),
        pytest.raises(EnumerationError, match="'loc' of the model is latent and has no guide"),
    ):
        TraceEnum_ELBO().compute_marginals(model, lambda: None)


def test_samples_of_the_posterior() -> None:
    """Frequencies of 500 samples are within five standard errors of the marginals."""

    def model() -> Any:
        summed_given_guide()
        return "returned"

    elbo = TraceEnum_ELBO()
    marginals = elbo.compute_marginals(model, guide_of_two)
    torch.manual_seed(0)
    counts = {"a": torch.zeros(()), "c": torch.zeros(3)}
    for _ in range(500):
        with trace() as recorder:
            assert elbo.sample_posterior(model, guide_of_two) == "returned"
        for name, count in counts.items():
            count += recorder.trace.nodes[name]["value"]
    for name, probs in (("a", marginals["a"].probs[1]), ("c", marginals["c"].probs)):
        error = (probs * (1 - probs) / 500).sqrt()
        assert bool(((counts[name] / 500 - probs).abs() < 5 * error).all()), name


def test_samples_of_the_last_run() -> None:
    def model() -> Tensor:
        x = torch.tensor(0)
        for t in markov(range(3), dim=-1, name="time"):
            x = sample(f"x_{t}", dist.Categorical(logits=50 * torch.eye(2)[x]))
            sample(f"y_{t}", dist.Normal(1.0 * x, 0.1), obs=torch.ones(3)[t])
        return x

    elbo = TraceEnumSample_ELBO()
    with pytest.raises(ModelError, match="no run to draw from yet"):
        elbo.sample_saved()
    elbo.loss(config_enumerate(model), lambda: None)
    assert elbo.sample_saved().tolist() == [1, 1]  # where all that is seen says that it is
    with pytest.raises(ModelError, match="num_particles=2"):
        TraceEnumSample_ELBO(num_particles=2)
    elbo.loss(summed_given_guide, guide_of_two)
    with pytest.raises(EnumerationError, match="enumerated in the guide"):
        elbo.sample_saved()


def test_a_model_that_moves_the_guides_values_is_told() -> None:
    def model() -> None:
        with plate("data", 3):
            z = sample("z", dist.Bernoulli(0.3))
        sample("x", dist.Normal(z.sum(), 1.0), obs=X[0])

    def guide() -> None:
        with plate("data", 3):
            sample("z", dist.Bernoulli(logits=logits("q_z", 3)), infer=MARK)

    with pytest.raises((EnumerationError, PlateError)):
        TraceEnum_ELBO().loss(model, guide)


def test_a_guide_with_other_values_than_the_model() -> None:
    """A truncated support: the guide has few of the values that the model's site may have, or some twice."""

    def model() -> None:
        z = sample("z", dist.Poisson(logits("p_z", 1)[0].exp()))
        w = sample("w", categorical("p_w", 4))
        sample("x", dist.Normal(0.3 * z - w, 1.0), obs=X[0])

    def guide() -> None:
        sample("z", dist.Binomial(3, logits=logits("q_z", 1)[0]), infer=MARK)
        sample("w", categorical("q_w", 2), infer=MARK)

    loss = TraceEnum_ELBO().differentiable_loss(model, guide)
    assert_same(-loss, bound(model, guide))
