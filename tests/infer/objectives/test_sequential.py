"""TraceEnum_ELBO with sites enumerated sequentially, in the guide, in the model, and together with parallel ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from bounds import assert_same, assert_unbiased, bound
from sumout import plate, sample
from sumout.errors import EnumerationError
from sumout.infer import TraceEnum_ELBO

X = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)
MARKS = ["parallel", "sequential"]


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


def mark(kind: str | None) -> dict[str, Any]:
    return {"enumerate": kind}


def model_of(a: str | None, b: str | None, c: str | None) -> Callable[[], None]:
    def model() -> None:
        za = sample("a", dist.Bernoulli(logits=logits("p_a", 1)[0]), infer=mark(a))
        zb = sample("b", dist.Bernoulli(logits=logits("p_b", 1)[0] * za), infer=mark(b))
        with plate("data", 2):
            zc = sample("c", dist.Bernoulli(logits=logits("p_c", 1)[0] - zb), infer=mark(c))
            sample("x", dist.Normal(za + zb * zc, 1.0), obs=X[:2])

    return model


@pytest.mark.parametrize("kinds", list(itertools.product(MARKS, repeat=3)), ids="-".join)
def test_in_the_model(kinds: tuple[str, str, str]) -> None:
    model = model_of(*kinds)
    assert_same(-TraceEnum_ELBO().differentiable_loss(model, lambda: None), bound(model, lambda: None))


@pytest.mark.parametrize("kinds", list(itertools.product([*MARKS, "model"], repeat=3)), ids="-".join)
def test_in_guide_and_model(kinds: tuple[str, str, str]) -> None:
    """Each site is enumerated in the guide, in one way or the other, or in the model alone."""
    model = model_of(*("sequential" if kind == "model" else None for kind in kinds))
    of_guide = {name: kind for name, kind in zip("abc", kinds, strict=True) if kind != "model"}

    def guide() -> None:
        za = zb = torch.tensor(0.0)
        if "a" in of_guide:
            za = sample("a", dist.Bernoulli(logits=logits("q_a", 1)[0]), infer=mark(of_guide["a"]))
        if "b" in of_guide:
            zb = sample("b", dist.Bernoulli(logits=logits("q_b", 2)[0] * za - 0.3), infer=mark(of_guide["b"]))
        if "c" in of_guide:
            with plate("data", 2):
                row = logits("q_c", 2)
                sample("c", dist.Bernoulli(logits=row + zb), infer=mark(of_guide["c"]))

    elbo = TraceEnum_ELBO()
    if "model" in kinds[:2] and kinds[2] != "model":
        # A sum over all values of a global site, each with all values of local ones.
        with pytest.raises(EnumerationError, match="all elements at once"):
            elbo.loss(model, guide)
        return
    assert_same(-elbo.differentiable_loss(model, guide), bound(model, guide))


def test_python_decides_on_the_value() -> None:
    def model() -> None:
        if sample("a", dist.Bernoulli(logits=logits("p_a", 1)[0]), infer=mark("sequential")):
            b = sample("b", dist.Bernoulli(logits=logits("p_b", 1)[0]), infer=mark("parallel"))
            sample("x", dist.Normal(2 * b, 1.0), obs=X[0])
        else:
            sample("x", dist.Normal(logits("loc", 1)[0], 1.0), obs=X[0])

    def guide() -> None:
        sample("a", dist.Bernoulli(logits=logits("q_a", 1)[0]), infer=mark("sequential"))

    assert_same(-TraceEnum_ELBO().differentiable_loss(model, lambda: None), bound(model, lambda: None))
    assert_same(-TraceEnum_ELBO().differentiable_loss(model, guide), bound(model, guide))


def test_automatically_where_python_decides() -> None:
    def model(kind: str = "auto") -> None:
        a = sample("a", dist.Bernoulli(logits=logits("p_a", 1)[0]), infer=mark(kind))
        loc = 1.5 if a else logits("loc", 1)[0]
        sample("x", dist.Normal(loc, 1.0), obs=X[0])

    def guide() -> None:
        sample("a", dist.Bernoulli(logits=logits("q_a", 1)[0]), infer=mark("auto"))

    assert_same(-TraceEnum_ELBO().differentiable_loss(model, lambda: None), bound(model, lambda: None))
    assert_same(-TraceEnum_ELBO().differentiable_loss(model, guide), bound(model, guide))


def test_a_draw_that_steers_a_sequential_site() -> None:
    """Each run draws by itself; that a draw is the same in all runs here does not change the mean."""

    def model() -> None:
        s = sample("s", dist.Bernoulli(logits=logits("p_s", 1)[0]))
        a = sample("a", dist.Bernoulli(logits=logits("p_a", 1)[0] * s))
        sample("x", dist.Normal(a + 0.5 * s, 1.0), obs=X[0])

    def guide() -> None:
        s = sample("s", dist.Bernoulli(logits=logits("q_s", 1)[0]))
        sample("a", dist.Bernoulli(logits=logits("q_a", 1)[0] * (s - 0.4)), infer=mark("sequential"))

    def loss(guide: Callable[[], None]) -> Tensor:
        return TraceEnum_ELBO().differentiable_loss(model, guide)

    assert_unbiased(loss, guide, {"s"}, -bound(model, guide))


def test_a_draw_in_each_run_of_the_guide() -> None:
    """Over all pairs of draws, one in each run, loss and gradients are those of the sum over all values."""
    drawn: dict[int, int] = {}

    class Forced(dist.Categorical):  # type: ignore[misc]
        in_run = 0

        def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
            return torch.tensor(drawn[self.in_run])

    def model() -> None:
        a = sample("a", dist.Bernoulli(logits=logits("p_a", 1)[0]))
        k = sample("k", dist.Categorical(logits=logits("p_k", 2, 3)[a.long()]))
        z = sample("z", dist.Bernoulli(logits=logits("p_z", 1)[0]), infer=mark("parallel"))
        sample("x", dist.Normal(k + a * z, 1.0), obs=X[0])

    def guide() -> None:
        a = sample("a", dist.Bernoulli(logits=logits("q_a", 1)[0]), infer=mark("sequential"))
        fn = Forced(logits=logits("q_k", 2, 3)[a.long()])
        fn.in_run = int(a)
        sample("k", fn)

    def summed() -> None:
        a = sample("a", dist.Bernoulli(logits=logits("q_a", 1)[0]), infer=mark("parallel"))
        sample("k", dist.Categorical(logits=logits("q_k", 2, 3)[a.long()]), infer=mark("parallel"))

    total = torch.zeros(())
    weights = logits("q_k", 2, 3).detach().softmax(-1)
    for drawn[0], drawn[1] in itertools.product(range(3), repeat=2):
        loss = TraceEnum_ELBO().differentiable_loss(model, guide)
        total = total + weights[0, drawn[0]] * weights[1, drawn[1]] * loss
    assert_same(total, TraceEnum_ELBO().differentiable_loss(model, summed))


def test_deeper_plates_in_a_later_call() -> None:
    def model(deep: bool) -> None:
        with plate("rows", 2, dim=-1 - deep):
            z = sample("z", dist.Bernoulli(0.3), infer=mark("parallel"))
            sample("x", dist.Normal(z, 1.0), obs=X[:2].reshape([2] + [1] * deep))

    for elbo in (TraceEnum_ELBO(), TraceEnum_ELBO(num_particles=2, vectorize_particles=True)):
        shallow = elbo.loss(model, lambda deep: None, False)
        assert elbo.loss(model, lambda deep: None, True) == pytest.approx(shallow)
        assert elbo.max_plate_nesting == 2
        assert elbo.loss(model, lambda deep: None, False) == pytest.approx(shallow)
    with pytest.raises(EnumerationError, match="max_plate_nesting=2"):
        TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda deep: None, True)


def test_a_guide_in_nested_plates_under_runs_of_the_model() -> None:
    """The component is written out along the inner plate alone; copies are one for each element of the outer."""

    def model() -> None:
        steers = sample("steers", dist.Bernoulli(logits=logits("p_s", 1)[0]), infer=mark("sequential"))
        shift = 1.0 if steers else -0.5
        with plate("outer", 2, dim=-2):
            a = sample("a", dist.Bernoulli(0.4), infer=mark("parallel"))
            with plate("inner", 2, dim=-1):
                b = sample("b", dist.Bernoulli(0.2 + 0.5 * a))
                sample("x", dist.Normal(a + shift * b, 1.0), obs=X[:2])

    def guide() -> None:
        with plate("outer", 2, dim=-2), plate("inner", 2, dim=-1):
            sample("b", dist.Bernoulli(logits=logits("q_b", 2)), infer=mark("parallel"))

    with pytest.raises(
        EnumerationError, match="Site 'b' of the guide is enumerated for each element of a plate"
    ):
        TraceEnum_ELBO().loss(model, guide)
