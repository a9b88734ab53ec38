"""Runs made at once, beside a forward loop written out here and beside the same plan made group by group."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sumout.execute import algebra, execute, log_sweep
from sumout.execute.kernels import Trust
from sumout.factors import FactorGraph
from sumout.plan import make_plan, runs_of

EXACT = {"rtol": 1e-9, "atol": 1e-9}


class Chain(NamedTuple):
    """A chain of some order in a plate, or in none: log-tables over ``history`` states before and one, and over one."""

    steps: int
    size: int
    sequences: int
    history: int
    links: list[Tensor]
    """One for each step after the first ones, of shape ``(size,) * (history + 1)``, or with the plate first."""
    sights: list[Tensor | None]
    """One for each step, over the plate and the state, or the state alone."""

    def graph(self) -> FactorGraph:
        names = [f"x{t}" for t in range(self.steps)]
        tables: dict[str, tuple[list[str], Tensor]] = {}
        for t, table in enumerate(self.links):
            inputs = names[t : t + self.history + 1]
            tables[f"link{t}"] = (["s", *inputs] if table.ndim > len(inputs) else inputs, table)
        for t, sight in enumerate(self.sights):
            if sight is not None:
                tables[f"sight{t}"] = (["s", names[t]] if sight.ndim == 2 else [names[t]], sight)
        ordinals = {name: ["s"] for name in [*names, *tables]}
        return FactorGraph.from_tables(tables, plates={"s": self.sequences}, ordinals=ordinals, log=True)

    def log_z(self) -> Tensor:
        """The forward loop, over messages of as many states as the chain looks back."""
        rank = self.history
        message = torch.zeros((self.sequences, *[self.size] * rank), dtype=torch.float64)
        for t in range(rank):
            message = message + self._sight(t, t, rank)
        for t, link in enumerate(self.links):
            joint = message.unsqueeze(-1) + (link if link.ndim > rank + 1 else link.unsqueeze(0))
            message = log_sum(joint, 1) + self._sight(t + rank, rank - 1, rank)
        return log_sum(message.flatten(1), 1).sum()

    def _sight(self, step: int, place: int, rank: int) -> Tensor:
        sight = self.sights[step]
        if sight is None:
            return torch.zeros((), dtype=torch.float64)
        lead = [self.sequences if sight.ndim == 2 else 1]
        return sight.reshape(*lead, *[self.size if each == place else 1 for each in range(rank)])


def log_sum(x: Tensor, dim: int) -> Tensor:
    """``logsumexp`` whose derivative is no NaN where all is impossible."""
    shift = x.detach().amax(dim, keepdim=True).clamp(min=-1e300)
    total = (x - shift).exp().sum(dim)
    positive = total > 0
    return torch.where(positive, torch.where(positive, total, 1.0).log(), -torch.inf) + shift.squeeze(dim)


@st.composite
def chains(draw: st.DrawFn, spread: float = 3.0, zeros: bool = False) -> Chain:
    history = draw(st.sampled_from([1, 1, 2]))
    steps = draw(st.integers(8, 16))
    size, sequences = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))

    def table(*shape: int) -> Tensor:
        data = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
        if zeros:
            data = torch.where(torch.rand(shape, generator=generator) < 0.2, -torch.inf, data)
        return data.requires_grad_()

    def link() -> Tensor:
        return table(*[sequences] * of_each, *[size] * (history + 1))

    of_each, shared = draw(st.booleans()), draw(st.booleans())
    one = link()
    links = [one if shared else link() for _ in range(steps - history)]
    kind = draw(st.sampled_from(["each", "state", "same", "none", "some"]))
    same = table(sequences, size)
    sights: list[Tensor | None] = []
    for t in range(steps):
        plain = kind == "none" or (kind == "some" and t % 2 == 0)
        sight = same if kind == "same" else table(size) if kind == "state" else table(sequences, size)
        sights.append(None if plain else sight)
    return Chain(steps, size, sequences, history, links, sights)


def compare(chain: Chain, orders: tuple[str, ...]) -> None:
    graph, expected = chain.graph(), chain.log_z()
    value = execute(make_plan(graph.structure, orders=orders), graph).value
    torch.testing.assert_close(value, expected, **EXACT)
    with torch.no_grad():
        torch.testing.assert_close(
            execute(make_plan(graph.structure, orders=orders), graph).value, value, **EXACT
        )
    if expected == -torch.inf:
        return
    leaves = list({id(each): each for each in [*chain.links, *chain.sights] if each is not None}.values())
    ours, theirs = (torch.autograd.grad(each, leaves) for each in (value, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, **EXACT)


ORDERS = st.sampled_from([("greedy",), ("absorbed",), ("min_weight",)])


@given(chains(), ORDERS)
@settings(max_examples=150)
def test_chains(chain: Chain, orders: tuple[str, ...]) -> None:
    compare(chain, orders)


@given(chains(spread=150.0), ORDERS)
@settings(max_examples=60)
def test_chains_of_wide_ranges(chain: Chain, orders: tuple[str, ...]) -> None:
    compare(chain, orders)


@given(chains(zeros=True), ORDERS)
@settings(max_examples=60)
def test_chains_with_hard_zeros(chain: Chain, orders: tuple[str, ...]) -> None:
    compare(chain, orders)


@given(chains(), st.booleans())
@settings(max_examples=60)
def test_marginals_are_derivatives(chain: Chain, deferred: bool) -> None:
    graph = chain.graph()
    names = tuple(graph.variables)
    plan = make_plan(graph.structure, names, orders=("greedy",))
    before, log_sweep.DEFERRED = log_sweep.DEFERRED, deferred
    try:
        with torch.no_grad():
            result = execute(plan, graph, beliefs=True)
    finally:
        log_sweep.DEFERRED = before
    fresh = [factor.data.detach().clone().requires_grad_() for factor in graph.factors]
    links = len(chain.links)
    sights = iter(fresh[links:])
    apart = chain._replace(
        links=fresh[:links], sights=[None if each is None else next(sights) for each in chain.sights]
    )
    for mine, other in zip(result.beliefs, torch.autograd.grad(apart.log_z(), fresh), strict=False):
        torch.testing.assert_close(mine, other, **EXACT)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each run that was tried, whether its numbers were right."""
    found: list[bool] = []
    scan = algebra.scan

    def counted(*args: object) -> object:
        result = scan(*args)  # type: ignore[arg-type]
        found.append(not result.wrong)
        return result

    monkeypatch.setattr(algebra, "scan", counted)
    return found


def long_chain(spread: float = 1.0, dtype: torch.dtype = torch.float64) -> Chain:
    torch.manual_seed(0)
    link = torch.randn(5, 5, dtype=dtype).log_softmax(-1).requires_grad_()
    sights: list[Tensor | None] = [
        (spread * torch.randn(3, 5, dtype=dtype)).requires_grad_() for _ in range(40)
    ]
    return Chain(40, 5, 3, 1, [link] * 39, sights)


def test_a_long_chain_is_made_at_once(made: list[bool]) -> None:
    chain = long_chain()
    plan = make_plan(chain.graph().structure)
    (run,) = runs_of(plan.schedule.groups).values()
    assert run.cycles * len(run.sides) > 0.8 * len(plan.schedule.groups)
    compare(chain, ("greedy",))
    assert made
    assert all(made)


def test_what_underflows_is_made_again_and_that_is_kept(made: list[bool]) -> None:
    chain = long_chain()
    # A state that is hardly ever entered, and seen for certain in the end.
    chain.links[0].data[:, 0] = -900.0
    assert chain.sights[20] is not None
    chain.sights[20].data[:, 1:] = -2000.0
    graph, expected = chain.graph(), chain.log_z()
    plan = make_plan(graph.structure)
    for _ in range(3):
        torch.testing.assert_close(execute(plan, graph).value, expected, **EXACT)
    assert made == [False, False]
    assert Trust.LOGS in log_sweep.trust_in(plan)[False]


def test_hard_zeros_are_made_at_once(made: list[bool]) -> None:
    chain = long_chain()
    # From left to right: states are left for ever, and some are never seen at some steps.
    for row in range(5):
        chain.links[0].data[row, :row] = -torch.inf
    for t in range(5, 15):
        chain.sights[t].data[:, t % 4] = -torch.inf  # type: ignore[union-attr]
    compare(chain, ("greedy",))
    assert made[0] is False
    assert all(made[1:])


def test_terms_that_are_lost_before_a_message_is_scaled() -> None:
    """What is far below a message's maximum is all that leads to where the chain must go."""
    chain = long_chain()
    links = [table.detach().clone() for table in chain.links]
    sights = [table.detach().clone() for table in chain.sights if table is not None]
    ten = torch.tensor(10.0, dtype=torch.float64).log()
    links[8][:] = ten * torch.tensor([0.0, -230.0, -270.0, -270.0, -270.0])
    sights[9][:] = ten * torch.tensor([-200.0, -100.0, 0.0, 0.0, 0.0])
    links[9][:, 1] = ten * torch.tensor([-240.0, 0.0, -300.0, -300.0, -300.0])
    sights[10][:] = ten * torch.tensor([-400.0, 0.0, -400.0, -400.0, -400.0])
    for each in (*links, *sights):
        each.requires_grad_()
    compare(chain._replace(links=links, sights=list(sights)), ("greedy",))


def test_a_table_that_all_steps_share_gets_one_derivative() -> None:
    chain = long_chain()
    graph = chain.graph()
    (ours,) = torch.autograd.grad(execute(make_plan(graph.structure), graph).value, chain.links[:1])
    (theirs,) = torch.autograd.grad(chain.log_z(), chain.links[:1])
    torch.testing.assert_close(ours, theirs, **EXACT)
    # Expected transitions: 39 in each of 3 sequences.
    assert ours.sum().item() == pytest.approx(3 * 39)


@given(chains(), ORDERS)
@settings(max_examples=30)
def test_one_plan_scanned_and_not(tame: Chain, orders: tuple[str, ...]) -> None:
    """Derivatives find their steps, whichever way the plan ran before."""
    graph = tame.graph()
    plan = make_plan(graph.structure, orders=orders)
    leaves = [factor.data for factor in graph.factors]
    expected = torch.autograd.grad(tame.log_z(), leaves)
    for trust in (Trust.POSITIVE, Trust.LOGS, Trust.ZEROS, Trust.LOGS, Trust.POSITIVE):
        log_sweep.trust_in(plan)[False][:] = [trust] * len(plan.schedule.groups)
        found = torch.autograd.grad(execute(plan, graph).value, leaves)
        for mine, other in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, other, **EXACT)


def test_second_derivatives_and_transforms() -> None:
    chain = long_chain()
    graph = chain.graph()
    plan = make_plan(graph.structure)

    def value_of(link: Tensor) -> Tensor:
        return execute(plan, chain._replace(links=[link] * 39).graph()).value

    def by_hand(link: Tensor) -> Tensor:
        return chain._replace(links=[link] * 39).log_z()

    link = chain.links[0]
    for derivative in (torch.func.grad, lambda f: torch.func.jacrev(torch.func.jacrev(f))):
        torch.testing.assert_close(
            derivative(value_of)(link.detach()), derivative(by_hand)(link.detach()), **EXACT
        )
    (first,) = torch.autograd.grad(value_of(link), link, create_graph=True)
    (second,) = torch.autograd.grad(first[0, 1], link)
    (expected,) = torch.autograd.grad(by_hand(link), link, create_graph=True)
    (wanted,) = torch.autograd.grad(expected[0, 1], link)
    torch.testing.assert_close(second, wanted, **EXACT)


def test_single_precision() -> None:
    chain = long_chain(20.0, torch.float32)
    graph = chain.graph()
    leaves = [chain.links[0], *[each for each in chain.sights if each is not None]]
    ours = torch.autograd.grad(execute(make_plan(graph.structure), graph).value, leaves)
    wide = long_chain(20.0, torch.float32)
    wide = wide._replace(
        links=[wide.links[0].detach().double().requires_grad_()] * 39,
        sights=[None if each is None else each.detach().double().requires_grad_() for each in wide.sights],
    )
    expected = torch.autograd.grad(wide.log_z(), [wide.links[0], *[s for s in wide.sights if s is not None]])
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-4)
