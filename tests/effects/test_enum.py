"""Enumeration: the dimensions it hands out name the right sites, and what it cannot do is said.

Exactness is tested without the graph half: each site's probabilities become a table whose axes are named by
``enum_dims``, and the product of all tables, summed, is compared with a visit of every joint assignment.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.effects import Trace
from sumout.effects.handlers import MarkovMessenger, condition, enum, replay, trace
from sumout.effects.primitives import deterministic, factor, markov, plate, sample
from sumout.errors import EnumerationError, ModelError

PARALLEL = {"enumerate": "parallel"}
PRIOR = torch.tensor([0.3, 0.7]).double()
STEP = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).double()
TWO_STEPS = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(1)).double() + 0.1
NOISE = torch.tensor([0.15, 0.6]).double()

Program = Callable[[], Any]


def latent(name: str, probs: Tensor) -> Tensor:
    return sample(name, dist.Categorical(probs), infer=PARALLEL)


def seen(name: str, state: Tensor, value: float = 1.0) -> None:
    sample(name, dist.Bernoulli(NOISE[state]), obs=torch.tensor(value).double())


def enumerated(program: Program, first_available_dim: int = -1) -> Trace:
    return trace(enum(program, first_available_dim=first_available_dim)).get_trace()


def summed(program: Program) -> Tensor:
    """The sum over all enumerated sites, by named tables; a dimension that nobody owns is a KeyError."""
    operands: list[Any] = []
    letters: dict[str, int] = {}
    for site in enumerated(program).nodes.values():
        if site.type != "sample":
            continue
        table = site["log_prob"].exp()
        axes = [dim for dim in range(-table.dim(), 0) if table.shape[dim] > 1]
        names = [site.enum_dims[dim] for dim in axes]
        operands += [table.squeeze(), [letters.setdefault(name, len(letters)) for name in names]]
    return torch.einsum(*operands, [])


def visited(program: Program) -> Tensor:
    """The same by one run for each joint assignment."""
    names = [name for name, site in enumerated(program).nodes.items() if site.enum_dim is not None]
    total = torch.zeros(()).double()
    for values in itertools.product([0, 1], repeat=len(names)):
        data = {name: torch.tensor(value) for name, value in zip(names, values, strict=True)}
        total = total + trace(condition(program, data=data)).get_trace().log_prob_sum().exp()
    return total


def pair() -> None:
    a = latent("a", PRIOR)
    b = latent("b", STEP[a])
    seen("y", a | b)


def chain(history: int = 1, steps: int = 4) -> None:
    root = latent("root", PRIOR)
    one = two = root
    for t in markov(range(steps), history=history):
        probs = (STEP[root], STEP[one], TWO_STEPS[two, one])[history]
        two, one = one, latent(f"x{t}", probs)
        seen(f"y{t}", one, float(t % 2))


def contexts() -> None:
    steps, x = MarkovMessenger(), torch.tensor(0)
    with steps:
        x = latent("x0", STEP[x])
        with steps:
            x = latent("x1", STEP[x])
            with steps:
                x = latent("x2", STEP[x])
                with steps:
                    seen("y", latent("x3", STEP[x]))


def tree() -> None:
    @markov
    def grow(name: str, parent: Tensor, depth: int) -> None:
        x = latent(name, STEP[parent])
        if depth == 0:
            seen(name + "_leaf", x)
            return
        grow(name + "0", x, depth - 1)
        grow(name + "1", x, depth - 1)

    grow("r", torch.tensor(0), 2)


def two_sites_a_step() -> None:
    x = w = torch.tensor(0)
    for t in markov(range(4)):
        x = latent(f"x{t}", STEP[x])
        w = latent(f"w{t}", TWO_STEPS[w, x])
        seen(f"y{t}", x & w)


def nested_chains() -> None:
    top = torch.tensor(0)
    for s in markov(range(2)):
        top, low = latent(f"top{s}", STEP[top]), torch.tensor(0)
        for t in markov(range(3)):
            low = latent(f"low{s}{t}", TWO_STEPS[top, low])
            seen(f"y{s}{t}", low)


def after_a_chain() -> None:
    x = torch.tensor(0)
    for t in markov(range(4)):
        x = latent(f"x{t}", STEP[x])
    z = latent("z", STEP[x])
    seen("y", z & x)


def chain_after_chain() -> None:
    ends = []
    for c in range(3):
        x = torch.tensor(0)
        for t in markov(range(2)):
            x = latent(f"x{c}{t}", STEP[x])
            seen(f"y{c}{t}", x)
        ends.append(x)
    seen("all", ends[0] & ends[1] & ends[2])
    u = torch.tensor(0)
    for t in markov(range(2)):
        u = latent(f"u{t}", TWO_STEPS[u, ends[0]])
        seen(f"v{t}", u & ends[2])


def chains_in_a_loop_over_a_plate() -> None:
    for i in plate("sequences", 3):
        x = torch.tensor(0)
        for t in markov(range(2)):
            x = latent(f"x{i}{t}", STEP[x])
        seen(f"y{i}", x)


def through_a_deterministic_site() -> None:
    d = torch.tensor(0)
    for t in markov(range(4)):
        x = latent(f"x{t}", STEP[d])
        d = deterministic(f"d{t}", 1 - x, event_dim=0)
        factor(f"f{t}", NOISE[d])


@pytest.mark.parametrize(
    "program",
    [
        pair,
        chain,
        lambda: chain(history=0),
        lambda: chain(history=2),
        lambda: chain(steps=1),
        contexts,
        tree,
        two_sites_a_step,
        nested_chains,
        after_a_chain,
        chain_after_chain,
        chains_in_a_loop_over_a_plate,
        through_a_deterministic_site,
    ],
)
def test_summing_named_tables_is_summing_over_all_assignments(program: Program) -> None:
    torch.testing.assert_close(summed(program), visited(program), rtol=1e-12, atol=0)


def too_far_back(history: int) -> None:
    states = [torch.tensor(0)] * 3
    for t in markov(range(7), history=history):
        states.append(latent(f"x{t}", STEP[states[-1]] if history else PRIOR))
        seen(f"y{t}", states[-1] & states[-2 - history])


def around_a_ring() -> None:
    states = [torch.tensor(0)]
    for t in markov(range(4)):
        states.append(latent(f"x{t}", STEP[states[-1]]))
    seen("closed", states[-1] & states[1])


def between_branches() -> None:
    leaves: list[Tensor] = []

    @markov
    def grow(depth: int) -> Tensor:
        x = latent(f"x{len(leaves)}", PRIOR)
        leaves.append(x)
        if depth:
            left, right = grow(depth - 1), grow(depth - 1)
            z = latent(f"z{len(leaves)}", STEP[x])
            seen(f"y{len(leaves)}", z & left & right)
        return x

    grow(1)


@pytest.mark.parametrize(
    "program",
    [
        lambda: too_far_back(0),
        lambda: too_far_back(1),
        lambda: too_far_back(2),
        around_a_ring,
        between_branches,
    ],
)
def test_what_is_out_of_reach_meets_a_dimension_that_nobody_owns(program: Program) -> None:
    with pytest.raises(KeyError):
        summed(program)


def test_each_site_outside_of_markov_has_its_own_dimension_leftwards() -> None:
    run = enumerated(pair, first_available_dim=-3)
    assert {name: run.nodes[name].enum_dim for name in "aby"} == {"a": -3, "b": -4, "y": None}
    assert run.nodes["a"].value.shape == (2, 1, 1)
    assert run.nodes["b"].value.shape == (2, 1, 1, 1)
    assert run.nodes["a"].enum_dims == {-3: "a"}
    assert run.nodes["b"].enum_dims == run.nodes["y"].enum_dims == {-3: "a", -4: "b"}


@pytest.mark.parametrize(("history", "most"), [(0, 3), (1, 4), (2, 5)])
def test_a_long_chain_needs_few_dimensions(history: int, most: int) -> None:
    run = enumerated(lambda: chain(history, steps=60))
    kept = max(1, history)  # by the last steps, which a program may go on from
    assert len({site.enum_dim for site in run.nodes.values() if site.enum_dim}) <= most + kept


def test_many_chains_in_a_row_need_few_dimensions() -> None:
    def many() -> None:
        for c in range(100):
            x = torch.tensor(0)
            for t in markov(range(3)):
                x = latent(f"x{c}_{t}", STEP[x])

    run = enumerated(many)
    assert min(site.enum_dim for site in run.nodes.values() if site.type == "sample") >= -20


def test_many_elements_of_a_looped_plate_need_few_dimensions() -> None:
    def many() -> None:
        for i in plate("sequences", 100):
            x = torch.tensor(0)
            for t in markov(range(3)):
                x = latent(f"x{i}_{t}", STEP[x])
            seen(f"y{i}", x)

    run = enumerated(many)
    dims = [site.enum_dim for site in run.nodes.values() if site.enum_dim is not None]
    assert min(dims) >= -4


def test_plates_and_event_dimensions_lie_right_of_the_enumerated() -> None:
    def model() -> None:
        with plate("a", 3), plate("b", 2):
            sample("z", dist.OneHotCategorical(torch.ones(4).double()), infer=PARALLEL)
            sample("k", dist.Bernoulli(torch.rand(2, 3).double()), infer=PARALLEL)

    run = enumerated(model, first_available_dim=-3)
    z, k = run.nodes["z"], run.nodes["k"]
    assert z.value.shape == (4, 1, 1, 4)
    assert torch.equal(z.value.reshape(4, 4), torch.eye(4).double())
    assert z["log_prob"].shape == (4, 2, 3)
    assert k.value.shape == (2, 1, 1, 1)
    assert k.value.dtype == torch.float64
    torch.testing.assert_close(k["log_prob"].exp().sum(0), torch.ones(1, 2, 3).double(), rtol=1e-12, atol=0)


def test_expanded_values_fill_the_plates() -> None:
    def model() -> None:
        a = latent("a", PRIOR)
        with plate("p", 3):
            sample("z", dist.Categorical(STEP[a]), infer={**PARALLEL, "expand": True})

    z = enumerated(model, first_available_dim=-2).nodes["z"]
    assert z.value.shape == (2, 2, 3)
    assert torch.equal(z.value[:, 0, 0], torch.tensor([0, 1]))
    assert torch.equal(z.value, z.value[:, :1, :1].expand(2, 2, 3))


def test_an_expanded_value_in_a_dimension_used_again() -> None:
    def model() -> None:
        for t in markov(range(8), history=0):
            sample(f"x{t}", dist.Categorical(PRIOR.expand(3, 2)), infer={**PARALLEL, "expand": True})

    with_plate = enumerated(lambda: plate("p", 3)(model)(), first_available_dim=-2)
    for t in range(8):
        site = with_plate.nodes[f"x{t}"]
        moved = site.value.movedim(site.enum_dim, 0).reshape(2, 3)
        assert torch.equal(moved, torch.tensor([[0] * 3, [1] * 3]))


def test_observed_replayed_and_unmarked_sites_are_left_alone() -> None:
    def model() -> None:
        sample("o", dist.Bernoulli(0.5), obs=torch.tensor(1.0), infer=PARALLEL)
        sample("u", dist.Bernoulli(0.5))
        sample("s", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})

    run = enumerated(model)
    assert [site.value.shape for name, site in run.nodes.items() if name in "ous"] == [(), (), ()]
    again = trace(enum(replay(pair, trace=trace(pair).get_trace()), first_available_dim=-1)).get_trace()
    assert again.nodes["a"].value.shape == ()


def test_an_inner_enum_shares_the_dimensions_of_an_outer_one() -> None:
    def model() -> None:
        a = latent("a", PRIOR)
        with enum():
            b = latent("b", STEP[a])
        seen("y", a & b)

    run = enumerated(model)
    assert (run.nodes["a"].enum_dim, run.nodes["b"].enum_dim) == (-1, -2)
    assert run.nodes["y"].enum_dims == {-1: "a", -2: "b"}


def test_the_second_run_starts_anew() -> None:
    handled = enum(pair, first_available_dim=-1)
    for _ in range(2):
        assert trace(handled).get_trace().nodes["b"].enum_dim == -2


@pytest.mark.parametrize(
    ("fn", "family"),
    [
        (lambda: dist.Poisson(3.0), "Poisson"),
        (lambda: dist.Geometric(torch.tensor([0.5])).expand([3]), "Geometric"),
        (lambda: dist.Normal(0.0, 1.0).mask(False), "Normal"),
    ],
)
def test_a_support_that_is_not_finite_names_site_family_and_remedy(
    fn: Callable[[], Any], family: str
) -> None:
    with pytest.raises(
        EnumerationError, match=f"'n' cannot be enumerated: {family} .*Observe the site, cut a count off"
    ):
        with enum(first_available_dim=-3):
            sample("n", fn(), infer=PARALLEL)


def test_too_many_dimensions_name_site_and_remedy() -> None:
    def model() -> None:
        for t in range(70):
            latent(f"x{t}", PRIOR)

    with pytest.raises(EnumerationError, match=r"'x64' would be enumerated along dim -65.*markov"):
        enum(model, first_available_dim=-1)()


def test_a_plate_in_the_dimensions_of_enumeration() -> None:
    with pytest.raises(EnumerationError, match=r"Plate 'b' uses dim -2 at site 'x'.*first_available_dim=-3"):
        with enum(first_available_dim=-2), plate("a", 2), plate("b", 2):
            latent("x", PRIOR)


def test_the_first_dimension_is_negative_and_known() -> None:
    with pytest.raises(ValueError, match="first_available_dim=0"):
        enum(pair, first_available_dim=0)
    for wrong in (-1.5, "-1", True, False):
        with pytest.raises(ModelError, match=f"first_available_dim={wrong!r}; it is a negative integer"):
            enum(pair, first_available_dim=wrong)  # type: ignore[arg-type]
    assert enum(first_available_dim=np.int64(-2)).first_available_dim == -2  # type: ignore[arg-type]
    with pytest.raises(EnumerationError, match="'a'.*no first_available_dim"):
        enum(pair)()


def test_one_handled_program_in_two_threads() -> None:
    ready, problems = threading.Barrier(2), list[BaseException]()

    @markov
    def descend(name: str, x: Tensor, depth: int) -> None:
        ready.wait(timeout=30)
        x = latent(f"{name}{depth}", STEP[x])
        if depth:
            descend(name, x, depth - 1)

    handled = enum(descend, first_available_dim=-1)

    def run(name: str, depth: int) -> None:
        try:
            found = trace(handled).get_trace(name, torch.tensor(0), depth)
            for site in found.nodes.values():
                if site.type == "sample":
                    assert site.name.startswith(name)
                    assert all(owner.startswith(name) for owner in site.enum_dims.values())
                    assert len(site.enum_dims) <= 2
        except BaseException as error:
            problems.append(error)
            ready.abort()

    threads = [threading.Thread(target=run, args=(name, 9)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_what_cannot_be_enumerated_is_also_the_error_that_programs_for_pyro_catch() -> None:
    handled = enum(lambda: sample("z", dist.Normal(0.0, 1.0), infer=PARALLEL), first_available_dim=-1)
    with pytest.raises(NotImplementedError, match="'z' cannot be enumerated"):
        handled()
