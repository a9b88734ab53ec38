"""Sequential enumeration visits every assignment once: its sums are those of the exact engine and of brute force."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterator
from queue import LifoQueue, Queue
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sumout.distributions as dist
from forms import in_threads
from models import MODELS
from oracles import log_z
from programs import Program, programs
from sumout.effects import Message, NonlocalExit, Trace
from sumout.effects.handlers import block, condition, enum, escape, queue, replay, scale, seed, trace
from sumout.effects.primitives import get_param_store, param, plate, sample
from sumout.effects.stack import state
from sumout.effects.trace import all_escape, mc_extend
from sumout.errors import EnumerationError, ModelError
from sumout.infer import config_enumerate, log_evidence


@pytest.fixture(autouse=True)
def _params_of_this_test() -> Iterator[None]:
    with get_param_store().scope():
        yield


def begun(kind: Callable[[], Any] = LifoQueue) -> Any:
    """A queue with an empty trace."""
    partial = kind()
    partial.put(Trace())
    return partial


def complete_traces(program: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Trace]:
    partial = begun()
    run = trace(queue(program, queue=partial, **kwargs))
    found = []
    while not partial.empty():
        found.append(run.get_trace(*args))
    return found


def evidence(traces: list[Trace]) -> torch.Tensor:
    return torch.logsumexp(torch.stack([torch.as_tensor(each.log_prob_sum()) for each in traces]), 0)


def pair(probs: float = 0.3) -> Any:
    """Two coins."""
    a = sample("a", dist.Bernoulli(torch.tensor(probs).double()))
    b = sample("b", dist.Bernoulli(0.2 + 0.5 * a))
    sample("x", dist.Normal(a + b, 1.0), obs=torch.tensor(0.7).double())
    return int(a), int(b)


# ------------------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("name", ["hmm_1", "hmm_2", "iterated_plate", "parameters"])
def test_the_complete_traces_of_a_model_sum_to_its_evidence(name: str) -> None:
    model = MODELS[name]
    program = model.program()
    traces = complete_traces(program)
    exact = log_evidence(config_enumerate(program))()
    torch.testing.assert_close(evidence(traces), exact, rtol=1e-12, atol=1e-12)
    sites = [trace(program).get_trace().nodes[each] for each in model.discrete]
    numbers = [len(site.fn.enumerate_support(expand=False)) ** site.fn.batch_shape.numel() for site in sites]
    assert len(traces) == math.prod(numbers)
    for each in traces:
        assert list(each) == list(trace(program).get_trace())


@given(programs(max_statements=4, max_assignments=80))
@settings(max_examples=25)
def test_the_complete_traces_of_a_random_program_sum_to_its_evidence(program: Program) -> None:
    traces = complete_traces(program)
    problem = program.problem()
    assert len(traces) == problem.assignments()
    found = evidence(traces)
    torch.testing.assert_close(found, log_z(problem), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found, log_evidence(config_enumerate(program))(), rtol=1e-10, atol=1e-10)


@given(programs(max_statements=3, max_assignments=30))
@settings(max_examples=10)
def test_every_complete_trace_is_another_assignment(program: Program) -> None:
    traces = complete_traces(program)
    latent = [name for name in (traces[0].stochastic_nodes) if name not in program.plates]
    assignments = {tuple(str(each.nodes[name].value.tolist()) for name in latent) for each in traces}
    assert len(assignments) == len(traces)


def test_the_sites_may_depend_on_the_values() -> None:
    def program() -> Any:
        n = sample("n", dist.Categorical(torch.tensor([0.2, 0.3, 0.5]).double()))
        half = torch.tensor(0.5).double()
        return [int(sample(f"x{i}", dist.Bernoulli(half))) for i in range(int(n))]

    traces = complete_traces(program)
    assert len(traces) == 1 + 2 + 4
    torch.testing.assert_close(evidence(traces), torch.tensor(0.0).double(), rtol=0, atol=1e-12)


def test_the_order_is_that_of_the_queue() -> None:
    assert [each.nodes["_RETURN"].value for each in complete_traces(pair)] == [(1, 1), (1, 0), (0, 1), (0, 0)]
    partial = begun(Queue)
    run = queue(pair, queue=partial)
    found = []
    while not partial.empty():
        found.append(run())
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_the_elements_of_a_vectorized_plate_take_all_values() -> None:
    def program() -> Any:
        with plate("data", 3):
            return tuple(sample("z", dist.Bernoulli(0.5)).tolist())

    found = [each.nodes["_RETURN"].value for each in complete_traces(program)]
    assert sorted(found) == list(itertools.product((0.0, 1.0), repeat=3))


def test_gradients_go_through() -> None:
    probs = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def program() -> None:
        z = sample("z", dist.Bernoulli(probs))
        sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=torch.tensor(1.0).double())

    (gradient,) = torch.autograd.grad(evidence(complete_traces(program)), probs)
    torch.testing.assert_close(gradient, torch.tensor(0.6 / (0.2 + 0.6 * 0.3)).double())


# --------------------------------------------------------------------------------------------- forms of use


def test_in_every_form() -> None:
    @queue(queue=begun())
    def decorated(probs: float = 0.3) -> Any:
        """Two coins."""
        return pair(probs)

    decorate = queue(queue=begun())
    runs = [queue(pair, begun()), queue(queue=begun())(pair), decorate(pair), decorated]
    runs.append(copy.deepcopy(queue(pair, begun())))
    for run in runs:
        assert run() == (1, 1)
        assert run(probs=0.4) == (1, 0)
        assert inspect.signature(run) == inspect.signature(pair)
        assert run.__doc__ == "Two coins."
        assert state.stack == []


def test_it_is_a_method_in_a_class() -> None:
    class Model:
        probs = 0.3

        @queue(queue=begun())
        def run(self) -> Any:
            return pair(self.probs)

    assert Model().run() == (1, 1)


def test_arguments_go_to_every_run() -> None:
    def program(loc: float, *, extra: float = 0.0) -> Any:
        sample("z", dist.Bernoulli(0.5))
        return loc + extra

    assert queue(program, begun())(1.0, extra=2.0) == 3


def test_a_continuous_site_keeps_its_value_from_one_partial_trace_to_the_next() -> None:
    drawn = []

    def program() -> Any:
        drawn.append(sample("x", dist.Normal(0.0, 1.0)))
        return sample("z", dist.Bernoulli(0.5))

    queue(program, begun())()
    assert drawn[0] is drawn[1]


def test_params_are_recorded() -> None:
    def program() -> None:
        sample("z", dist.Bernoulli(param("p", torch.tensor(0.3))))

    traces = complete_traces(program)
    assert all(each.param_nodes == ["p"] for each in traces)


# ------------------------------------------------------------------------------------------ where it goes on


def test_the_user_chooses_where_to_leave_and_how_to_go_on() -> None:
    asked = []

    def leave(partial: Trace, site: Message) -> bool:
        return site.name == "b" and "b" not in partial

    def extend(partial: Trace, site: Message, *, num_samples: int) -> list[Trace]:
        asked.append((list(partial), site.name, num_samples))
        return mc_extend(partial, site, num_samples=num_samples)

    partial = begun()
    run = queue(pair, partial, escape_fn=leave, extend_fn=extend)
    assert run()[1] in (0, 1)
    assert partial.empty()
    assert asked == [(["_INPUT", "a"], "b", -1)]
    queue(pair, begun(), escape_fn=leave, extend_fn=extend, num_samples=7)()
    assert asked[1][-1] == 7


def test_num_samples_limits_the_values() -> None:
    assert len(complete_traces(pair, num_samples=1)) == 1
    assert len(complete_traces(pair, num_samples=2)) == 4


def test_monte_carlo_at_every_site() -> None:
    def program() -> Any:
        with plate("data", 10, subsample_size=2):
            return sample("z", dist.Normal(0.0, 1.0)) + sample("y", dist.Normal(0.0, 1.0))

    traces = complete_traces(program, escape_fn=all_escape, extend_fn=mc_extend, num_samples=3)
    assert len(traces) == 27
    assert len({str(each.nodes["y"].value) for each in traces}) == 27
    assert len({str(each.nodes["z"].value) for each in traces}) == 9


def test_what_cannot_be_listed() -> None:
    with pytest.raises(EnumerationError, match="'x' cannot be enumerated: Normal"):
        queue(lambda: sample("x", dist.Normal(0.0, 1.0)), begun(), escape_fn=all_escape)()


# --------------------------------------------------------------------------------------------------- errors


def test_without_a_queue() -> None:
    with pytest.raises(ModelError, match=r"needs a queue of partial traces.*q\.put\(Trace\(\)\)"):
        queue(pair)
    with pytest.raises(ModelError, match="needs a queue"):
        queue()
    with pytest.raises(ModelError, match="takes a program first"):
        queue(begun())


def test_an_empty_queue() -> None:
    with pytest.raises(ModelError, match="no partial trace left"):
        queue(pair, LifoQueue())()
    with pytest.raises(ModelError, match="no partial trace left"):
        queue(pair, begun(), num_samples=0)()


def test_too_many_tries() -> None:
    assert queue(pair, begun(), max_tries=3)() == (1, 1)
    with pytest.raises(ModelError, match="max_tries=2"):
        queue(pair, begun(), max_tries=2)()
    with pytest.raises(ValueError, match="max_tries=2"):
        queue(pair, begun(), max_tries=2)()


def test_an_error_of_the_program_goes_through_and_leaves_nothing_behind() -> None:
    def program() -> None:
        with plate("data", 1):
            if sample("z", dist.Bernoulli(0.5)).sum() > 0:
                raise ZeroDivisionError

    partial = begun()
    run = queue(program, partial)
    with pytest.raises(ZeroDivisionError):
        run()
    assert state.stack == []
    assert state.dims._names == {}
    assert run() is None  # the other value


# ------------------------------------------------------------------------------------- with other handlers


def test_handlers_outside_see_the_complete_run_alone() -> None:
    with trace() as tracer, scale(scale=2.0):
        queue(pair, begun())()
    assert list(tracer.trace) == ["a", "b", "x"]
    assert tracer.trace.nodes["a"].scale == 2


def test_a_blocked_queue_does_not_reset_what_lies_outside() -> None:
    with trace() as tracer:
        sample("before", dist.Normal(0.0, 1.0))
        block(queue(pair, begun()))()
        sample("after", dist.Normal(0.0, 1.0))
    assert list(tracer.trace) == ["before", "after"]


def test_condition_inside_leaves_fewer_assignments() -> None:
    one = torch.tensor(1.0).double()
    traces = complete_traces(condition(pair, data={"a": one}))
    assert [each.nodes["_RETURN"].value for each in traces] == [(1, 1), (1, 0)]
    torch.testing.assert_close(evidence(traces), evidence(complete_traces(pair)[:2]))


def test_replay_outside_fixes_what_is_not_left_at() -> None:
    def program() -> Any:
        return sample("x", dist.Normal(0.0, 1.0)), sample("z", dist.Bernoulli(0.5))

    before = trace(program).get_trace()
    before.remove_node("z")
    x, _ = replay(queue(program, begun()), trace=before)()
    assert x is before.nodes["x"].value


def test_a_program_that_leaves_by_itself_is_taken_up() -> None:
    inside = escape(pair, escape_fn=functools.partial(lambda seen, site: seen.append(site.name) or False, []))
    assert len(complete_traces(inside)) == 4

    left = []

    def once(site: Message) -> bool:
        left.append(site.name)
        return left == ["a"]

    assert queue(escape(pair, escape_fn=once), begun())() is not None


def test_an_exit_of_an_outer_queue_passes_an_inner_one() -> None:
    extended = []

    def extend(partial: Trace, site: Message, *, num_samples: int) -> list[Trace]:
        extended.append(site.name)
        return []

    def program() -> Any:
        return queue(pair, begun(), escape_fn=lambda partial, site: False, extend_fn=extend)()

    found = [each.nodes["_RETURN"].value for each in complete_traces(program)]
    assert found == [(1, 1), (1, 0), (0, 1), (0, 0)]
    assert extended == []


def test_sequential_enumeration_within_a_parallel_one() -> None:
    def program() -> Any:
        a = sample("a", dist.Bernoulli(torch.tensor(0.3).double()), infer={"enumerate": "parallel"})
        b = sample("b", dist.Bernoulli(0.2 + 0.5 * a))
        sample("x", dist.Normal(a + b, 1.0), obs=torch.tensor(0.7).double())

    def only_b(partial: Trace, site: Message) -> bool:
        return site.name == "b" and "b" not in partial

    partial, total = begun(), torch.tensor(0.0).double()
    handled = trace(enum(queue(program, partial, escape_fn=only_b), first_available_dim=-1))
    while not partial.empty():
        recorded = handled.get_trace()
        assert recorded.nodes["a"].value.shape == (2,)
        total = total + sum(recorded.nodes[name]["log_prob"] for name in "abx").exp().sum()  # type: ignore[union-attr]
    torch.testing.assert_close(total.log(), evidence(complete_traces(pair)))


def test_a_seed_makes_it_repeatable() -> None:
    def program() -> Any:
        sample("z", dist.Bernoulli(0.5))
        return sample("x", dist.Normal(0.0, 1.0))

    assert seed(queue(program, begun()), rng_seed=1)() == seed(queue(program, begun()), rng_seed=1)()


def test_a_queue_of_the_multiprocessing_kind() -> None:
    partial = begun(multiprocessing.Queue)
    run = queue(pair, queue=partial)
    assert sorted(run() for _ in range(4)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with pytest.raises(ModelError, match="no partial trace left"):
        run()
    partial.close()
    partial.join_thread()


def test_threads_share_a_queue() -> None:
    partial = begun()
    run = queue(pair, partial)
    first = [run()]  # leaves two traces for two threads
    assert sorted(first + in_threads(run, run) + [run()]) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_an_exit_that_nobody_takes_up_is_the_callers() -> None:
    with pytest.raises(NonlocalExit):
        escape(queue(pair, begun()), escape_fn=lambda site: site.name == "x")()


@given(st.integers(0, 3), st.integers(1, 4))
@settings(max_examples=10)
def test_the_number_of_tries_is_that_of_sites_on_the_way(coins: int, sides: int) -> None:
    def program() -> None:
        for i in range(coins):
            sample(f"z{i}", dist.Categorical(torch.ones(sides)))

    queue(program, begun(), max_tries=coins + 1)()
    if coins:
        with pytest.raises(ModelError):
            queue(program, begun(), max_tries=coins)()
