"""The handler: what it hides, what it leaves, barriers, sites it cannot integrate, chains, and where it may stand."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from forms import forms
from sumout import infer, plate, poutine, sample
from sumout.effects.handlers import TraceMessenger
from sumout.effects.primitives import barrier, markov
from sumout.effects.stack import state
from sumout.errors import ModelError
from sumout.infer.collapsing.handler import CollapseMessenger
from sumout.poutine import collapse
from sumout.poutine.collapse_messenger import CollapseMessenger as Public

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def rows(count: int = 5) -> torch.Tensor:
    return torch.linspace(-1.0, 2.0, count, dtype=D)


def model(data: torch.Tensor | None = None) -> Any:
    """A mean and its observations."""
    data = rows() if data is None else data
    loc = sample("loc", dist.Normal(torch.tensor(0.0, dtype=D), 1.0))
    with plate("rows", len(data)):
        sample("y", dist.Normal(loc, 1.0), obs=data)
    return loc


def evidence(data: torch.Tensor) -> torch.Tensor:
    count = len(data)
    covariance = torch.ones(count, count, dtype=D) + torch.eye(count, dtype=D)
    found: torch.Tensor = dist.MultivariateNormal(torch.zeros(count, dtype=D), covariance).log_prob(data)
    return found


def factors(run: Any, *args: Any) -> dict[str, Any]:
    nodes = poutine.trace(run).get_trace(*args).nodes
    return {name: site for name, site in nodes.items() if site.type == "sample" and name != "rows"}


def test_its_place_and_arguments() -> None:
    assert Public is CollapseMessenger
    assert issubclass(CollapseMessenger, TraceMessenger)
    handler = CollapseMessenger("dense", param_only=True)
    assert (handler.graph_type, handler.param_only) == ("dense", True)
    assert collapse(model).__doc__ == "A mean and its observations."


def test_all_forms_leave_one_factor() -> None:
    for name, run in forms(collapse, model, graph_type="dense").items():
        sites = factors(run)
        assert list(sites) == ["_collapsed_loc"], name
        torch.testing.assert_close(sites["_collapsed_loc"]["log_prob"], evidence(rows()), **EXACT)
        assert state.stack == [], name


def test_errors_leave_no_trace() -> None:
    def broken() -> None:
        model()
        raise KeyError("x")

    handler = CollapseMessenger()
    with pytest.raises(KeyError), handler:
        broken()
    assert state.stack == []
    with handler:
        model()


def test_copies_and_threads() -> None:
    run = collapse(model)
    for again in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        torch.testing.assert_close(factors(again)["_collapsed_loc"]["log_prob"], evidence(rows()), **EXACT)
    found: dict[int, torch.Tensor] = {}

    def work(count: int) -> None:
        found[count] = factors(run, rows(count))["_collapsed_loc"]["log_prob"]

    threads = [threading.Thread(target=work, args=(count,)) for count in (2, 3, 4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for count, value in found.items():
        torch.testing.assert_close(value, evidence(rows(count)), **EXACT)


def test_masks_and_scales_inside_and_outside() -> None:
    def masked() -> None:
        loc = sample("loc", dist.Normal(torch.tensor(0.0, dtype=D), 1.0))
        with plate("rows", 5), poutine.mask(mask=rows() > 0):
            sample("y", dist.Normal(loc, 1.0), obs=rows())

    wanted = evidence(rows()[rows() > 0])
    torch.testing.assert_close(factors(collapse(masked))["_collapsed_loc"]["log_prob"], wanted, **EXACT)
    outside = poutine.scale(collapse(model), scale=2.0)
    torch.testing.assert_close(factors(outside)["_collapsed_loc"]["log_prob"], 2 * evidence(rows()), **EXACT)

    def ignored() -> None:
        loc = sample("loc", dist.Normal(torch.tensor(0.0, dtype=D), 1.0))
        with poutine.mask(mask=False):
            sample("y", dist.Normal(loc, 1.0), obs=torch.tensor(3.0, dtype=D))

    assert factors(collapse(ignored))["_collapsed_loc"]["log_prob"].abs() < 1e-12


def test_plates_outside_keep_their_elements_apart() -> None:
    data = torch.stack([rows(), 2 * rows()])

    def inner() -> None:
        loc = sample("loc", dist.Normal(torch.tensor(0.0, dtype=D), 1.0))
        with plate("rows", 5):
            sample("y", dist.Normal(loc, 1.0), obs=data)

    def outer() -> None:
        with plate("problems", 2, dim=-2):
            collapse(inner)()

    (site,) = (each for name, each in factors(outer).items() if name == "_collapsed_loc")
    wanted = torch.stack([evidence(each) for each in data])
    torch.testing.assert_close(site["log_prob"].reshape(-1), wanted, **EXACT)
    torch.testing.assert_close(infer.log_evidence(outer)(), wanted.sum(), **EXACT)


def test_subsampled_plates_weigh_what_is_inside() -> None:
    def local() -> None:
        with plate("rows", 50, subsample_size=5):
            x = sample("x", dist.Normal(torch.tensor(0.0, dtype=D), 1.0))
            sample("y", dist.Normal(x, 1.0), obs=rows())

    wanted = 10 * dist.Normal(torch.tensor(0.0, dtype=D), math.sqrt(2.0)).log_prob(rows()).sum()
    torch.testing.assert_close(factors(collapse(local))["_collapsed_x"]["log_prob_sum"], wanted, **EXACT)


def test_a_barrier_draws_from_the_posterior_so_far() -> None:
    def program() -> torch.Tensor:
        x = sample("x", dist.Normal(torch.tensor(0.0, dtype=D), 1.0))
        sample("y", dist.Normal(x, 1.0), obs=torch.tensor(2.0, dtype=D))
        value = barrier(x)
        sample("w", dist.Poisson(value.exp()), obs=torch.tensor(2.0, dtype=D))
        return value

    torch.manual_seed(0)
    sites = poutine.trace(collapse(program)).get_trace().nodes
    value = sites["_RETURN"].value
    assert type(value) is torch.Tensor
    torch.testing.assert_close(
        sites["_collapsed_x"]["log_prob"], evidence(torch.tensor([2.0], dtype=D)), **EXACT
    )
    torch.testing.assert_close(
        sites["w"]["log_prob"], dist.Poisson(value.exp()).log_prob(torch.tensor(2.0, dtype=D)), **EXACT
    )
    drawn = torch.stack([collapse(program)() for _ in range(400)])
    assert float((drawn.mean() - 1.0).abs() * math.sqrt(400 / 0.5)) < 4.0
    assert 0.38 < float(drawn.var()) < 0.63  # within 3.5 standard errors of 0.5


def test_what_was_drawn_at_a_barrier_is_not_delayed_any_more() -> None:
    def program() -> None:
        x = sample("x", dist.Normal(0.0, 1.0))
        barrier(x)
        sample("y", dist.Normal(x, 1.0), obs=torch.tensor(2.0))

    with pytest.raises(
        ModelError, match=r"Site 'y' depends on the delayed value of site 'x', which was drawn"
    ):
        collapse(program)()


def test_python_cannot_decide_on_delayed_values() -> None:
    def program() -> None:
        x = sample("x", dist.Normal(0.0, 1.0))
        if x > 0:
            sample("y", dist.Normal(x, 1.0), obs=torch.tensor(2.0))

    with pytest.raises(ModelError, match=r"site 'x' is delayed.*truth value.*barrier"):
        collapse(program)()


def mixed() -> None:
    x = sample("x", dist.Normal(torch.tensor(0.0, dtype=D), 1.0))
    sample("y", dist.Normal(x, 1.0), obs=torch.tensor(2.0, dtype=D))
    r = sample("r", dist.Gamma(torch.tensor(2.0, dtype=D), 1.0))
    sample("c", dist.Poisson(r.sqrt()), obs=torch.tensor(3.0, dtype=D))


def test_sites_without_a_closed_form_can_be_left_alone() -> None:
    handler = CollapseMessenger(strict=False)
    sites = factors(handler(mixed))
    assert set(sites) == {"_collapsed_x", "r", "c"}
    assert sites["r"].value > 0
    told = handler.explain()
    assert "x: integrated out" in told
    assert "r: left alone. Site 'c' (Poisson) depends on" in told
    with pytest.raises(ModelError, match=r"Site 'c' \(Poisson\) depends on the delayed site 'r'"):
        collapse(mixed)()


def test_a_site_left_alone_leaves_alone_what_it_depends_on() -> None:
    """``b`` has no closed form, and cannot be drawn while ``a`` is delayed."""

    def program() -> None:
        a = sample("a", dist.Normal(torch.tensor(0.0, dtype=D), 1.0))
        b = sample("b", dist.Normal(a, 1.0))
        sample("k", dist.Poisson(b.exp()), obs=torch.tensor(2.0, dtype=D))

    handler = CollapseMessenger(strict=False)
    sites = poutine.trace(handler(program)).get_trace().nodes
    assert {"a", "b", "k"} <= set(sites)
    told = handler.explain().splitlines()
    assert told[0].startswith("b: left alone. Site 'k' (Poisson) depends on the delayed site 'b'")
    assert told[1].startswith(
        "a: left alone. Site 'b' has no closed form and depends on the delayed site 'a'"
    )


def test_single_sites_are_marked() -> None:
    def program() -> None:
        x = sample("x", dist.Normal(torch.tensor(0.0, dtype=D), 1.0), infer={"collapse": True})
        w = sample("w", dist.Normal(torch.tensor(0.0, dtype=D), 1.0), infer={"collapse": False})
        v = sample("v", dist.Normal(torch.tensor(0.0, dtype=D), 1.0))
        sample("y", dist.Normal(x + w + v, 1.0), obs=torch.tensor(2.0, dtype=D))

    assert set(factors(collapse(program))) == {"_collapsed_x", "w"}
    assert set(factors(collapse(program, marked=True))) == {"_collapsed_x", "w", "v"}


@pytest.mark.parametrize("history", [1, 2])
@pytest.mark.parametrize("steps", [3, 7])
def test_vectorized_chains_are_loops(history: int, steps: int) -> None:
    data = torch.randn(steps, 3, 2, dtype=D, generator=torch.Generator().manual_seed(steps))
    move = torch.tensor([[0.5, 0.2], [-0.1, 0.7]], dtype=D, requires_grad=True)

    def program(vectorized: bool) -> None:
        with plate("series", 3, dim=-1):
            before: list[Any] = [torch.zeros(2, dtype=D)] * history
            chain = markov(range(steps), dim=-2, name="time", history=history) if vectorized else range(steps)
            for t in chain:
                loc = sum(before[-1 - lag] @ move.mT / (1 + lag) for lag in range(history))
                x = sample(f"x_{t}", dist.MultivariateNormal(loc, torch.eye(2, dtype=D)))
                sample(f"y_{t}", dist.Normal(x, 0.5).to_event(1), obs=data[t])
                before = [*before[1:], x]

    query = infer.log_evidence(collapse(program))
    found, wanted = query(True), query(False)
    torch.testing.assert_close(found, wanted, **EXACT)
    torch.testing.assert_close(
        torch.autograd.grad(found, move)[0], torch.autograd.grad(wanted, move)[0], rtol=1e-8, atol=1e-8
    )


def test_kalman_filter() -> None:
    """The textbook's recursion (Durbin and Koopman 2012, section 4.3)."""
    generator = torch.Generator().manual_seed(1)
    move, look = (torch.randn(shape, generator=generator, dtype=D) for shape in ((3, 3), (2, 3)))
    data = torch.randn(12, 2, generator=generator, dtype=D)
    move = 0.5 * move

    def program() -> None:
        x: Any = torch.zeros(3, dtype=D)
        for t in range(12):
            x = sample(f"x{t}", dist.MultivariateNormal(move @ x, torch.eye(3, dtype=D)))
            sample(f"y{t}", dist.MultivariateNormal(look @ x, 0.5 * torch.eye(2, dtype=D)), obs=data[t])

    mean, covariance = torch.zeros(3, dtype=D), torch.zeros(3, 3, dtype=D)
    total = torch.zeros((), dtype=D)
    for y in data:
        mean, covariance = move @ mean, move @ covariance @ move.T + torch.eye(3, dtype=D)
        spread = look @ covariance @ look.T + 0.5 * torch.eye(2, dtype=D)
        total = total + dist.MultivariateNormal(look @ mean, spread).log_prob(y)
        gain = covariance @ look.T @ torch.linalg.inv(spread)
        mean, covariance = mean + gain @ (y - look @ mean), covariance - gain @ look @ covariance
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), total, **EXACT)
