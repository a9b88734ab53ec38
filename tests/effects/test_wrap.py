from __future__ import annotations

import copy
import functools
import inspect
import pickle
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from queue import LifoQueue
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sumout.distributions as dist
from forms import forms, in_threads
from sumout import poutine
from sumout.effects import Message, Messenger, Trace, handlers
from sumout.effects.handlers import condition, enum, infer_config, mask, replay, scale, seed, trace, wrap
from sumout.effects.primitives import get_param_store, param, plate, sample
from sumout.effects.random_state import get_rng_state
from sumout.effects.stack import state
from sumout.infer.reparam import LocScaleReparam


class AddMessenger(Messenger):
    """Adds to every value."""

    def __init__(self, amount: float, times: int = 1) -> None:
        self.amount, self.times = amount, times

    def _pyro_post_sample(self, msg: Message) -> None:
        msg.value = msg.value + self.amount * self.times


add = wrap(AddMessenger)


def model(loc: float = 0.0) -> Any:
    """Observes nothing."""
    return sample("z", dist.Delta(torch.tensor(loc)))


def test_of_a_function() -> None:
    assert add(model, 2.0)(1.0) == 3
    assert add(model, amount=2.0, times=3)(loc=1.0) == 7
    handled = add(model, 2.0)
    assert inspect.signature(handled) == inspect.signature(model)
    assert handled.__doc__ == "Observes nothing."


def test_without_a_function() -> None:
    assert isinstance(add(amount=1.0), AddMessenger)
    with add(amount=1.0):
        assert model() == 1

    @add(amount=1.0)
    @add(amount=10.0)
    def decorated() -> Any:
        return model()

    assert decorated() == 11


def test_keeps_name_signature_and_docstring() -> None:
    assert add.__name__ == "add"
    assert add.__doc__ == "Adds to every value."
    assert str(inspect.signature(add)) == "(fn, amount: 'float', times: 'int' = 1)"
    assert infer_config.__name__ == "infer_config"
    assert str(inspect.signature(enum)).startswith("(fn=None, first_available_dim: 'int | None' = None")
    assert next(iter(inspect.signature(condition).parameters)) == "fn"


@pytest.mark.parametrize("name", [name for name in handlers.__all__ if name.islower() and name != "wrap"])
def test_every_handler_has_a_docstring_and_pickles_by_name(name: str) -> None:
    handler = getattr(handlers, name)
    assert handler.__doc__
    assert pickle.loads(pickle.dumps(handler)) is handler


@pytest.mark.parametrize(
    ("handler", "argument", "remedy"),
    [
        (condition, {"z": 1.0}, r"condition takes a function first.*dict.*condition\(data=\.\.\.\)"),
        (replay, Trace(), r"replay\(trace=\.\.\.\)"),
        (scale, 0.5, r"float 0\.5.*scale\(scale=\.\.\.\)"),
        (mask, torch.tensor(True), r"mask\(mask=\.\.\.\)"),
        (trace, "flat", r"trace\(graph_type=\.\.\.\)"),
        (enum, -2, r"enum\(first_available_dim=\.\.\.\)"),
    ],
)
def test_something_else_than_a_function_first(handler: Any, argument: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){remedy}"):
        handler(argument)


def test_a_missing_argument_is_told_by_name() -> None:
    with pytest.raises(TypeError, match="data"):
        condition(model)  # type: ignore[call-arg]


# --------------------------------------------------------------------------------- what holds of every handler

NOT_FORMS = {"wrap", "vectorized_markov"}
"""What the namespace has besides: the maker of function forms, and a loop."""


def program(i: float = 0.0, pause: Callable[[], object] = lambda: None) -> tuple[Any, ...]:
    """Each kind of site, with values that follow from ``i``; random are ``n``, hardly, and what comes last."""
    pause()
    p = param("p", torch.tensor(1.0))
    a = sample("a", dist.Delta(torch.tensor(i)))
    pause()
    with plate("data", 2):
        b = sample("b", dist.Delta(a + 1.0), obs=torch.tensor([i + 1.0, i + 1.0]))
        n = sample("n", dist.Normal(a + 10.0, 1e-9))
    pause()
    sample("x", dist.Normal(n.sum(), 1.0), obs=torch.tensor(0.0))
    z = sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
    return p, a, b, n, z


def queue_of_empty_traces() -> LifoQueue[Trace]:
    empty: LifoQueue[Trace] = LifoQueue()
    for _ in range(100):
        empty.put(Trace())
    return empty


def earlier() -> Trace:
    with get_param_store().scope():
        recorded = trace(program).get_trace(5.0)
    for name in [name for name in recorded if name != "a"]:
        recorded.remove_node(name)
    return recorded


ARGUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "block": lambda: {"hide": ["b"]},
    "broadcast": dict,
    "condition": lambda: {"data": {"a": torch.tensor(3.0)}},
    "do": lambda: {"data": {"a": torch.tensor(4.0)}},
    "enum": lambda: {"first_available_dim": -2},
    "equalize": lambda: {"sites": ["a", "other"]},
    "escape": lambda: {"escape_fn": lambda site: False},
    "infer_config": lambda: {"config_fn": lambda site: {"seen": site.name}},
    "lift": lambda: {"prior": {"p": dist.Delta(torch.tensor(2.0))}},
    "markov": lambda: {"history": 2},
    "mask": lambda: {"mask": torch.tensor(True)},
    "queue": lambda: {"queue": queue_of_empty_traces(), "escape_fn": lambda seen, site: False},
    "reparam": lambda: {"config": {"n": LocScaleReparam(0.0)}},
    "replay": lambda: {"trace": earlier()},
    "scale": lambda: {"scale": 2.0},
    "seed": lambda: {"rng_seed": 3},
    "substitute": lambda: {"data": {"p": torch.tensor(2.0)}},
    "trace": lambda: {"graph_type": "dense"},
    "uncondition": dict,
}
every_handler = pytest.mark.parametrize("name", ARGUMENTS)


def handled_by(name: str, fn: Any = program) -> Any:
    return getattr(handlers, name)(fn, **ARGUMENTS[name]())


def summary(handled: Any, *args: Any) -> tuple[Any, ...]:
    """What a run recorded, but for random values, and what it returned."""
    recorded = trace(handled).get_trace(*args)
    sites = {
        site.name: (
            site.type,
            site.is_observed,
            site.scale,
            sorted(site.infer),
            tuple(torch.as_tensor(site.value).shape),
        )
        for site in recorded.nodes.values()
        if site.type in ("sample", "param")
    }
    p, a, b, n, z = recorded.nodes["_RETURN"].value
    return sites, p.item(), a.item(), b.tolist(), n.round().tolist(), z.shape


@pytest.fixture
def _params() -> Any:
    with get_param_store().scope():
        yield


def test_every_handler_is_here() -> None:
    # collapse is built on the graph half, where it has tests of its own.
    assert set(ARGUMENTS) == set(poutine.handlers.__all__) - NOT_FORMS - {"collapse"}


@every_handler
@pytest.mark.usefixtures("_params")
def test_the_function_form_the_decorator_and_the_context_manager_do_the_same(name: str) -> None:
    handler = getattr(handlers, name)
    arguments = ARGUMENTS[name]()
    if (
        name == "queue"
    ):  # A queue is shared by copies on purpose; and there is no body to run again in a with.
        ways: dict[str, Any] = {
            "function": handler(program, **arguments),
            "decorator": handler(**arguments)(program),
        }
    else:
        ways = forms(handler, program, **arguments)
    expected = summary(ways["function"], 1.0)
    for way, handled in ways.items():
        assert summary(handled, 1.0) == expected, way


@every_handler
def test_name_signature_and_docstring_of_the_program_are_kept(name: str) -> None:
    handler = getattr(handlers, name)
    for handled in (handled_by(name), handler(**ARGUMENTS[name]())(program)):
        assert handled.__name__ == "program"
        assert handled.__doc__ == program.__doc__
        assert inspect.signature(handled) == inspect.signature(program)


@pytest.mark.parametrize("name", sorted(set(ARGUMENTS) - {"escape", "infer_config", "queue"}))
def test_handled_programs_of_every_handler_are_pickled(name: str) -> None:
    """Of those three the arguments here are no functions of a module."""
    again = pickle.loads(pickle.dumps(handled_by(name)))
    assert again.__name__ == "program"
    assert callable(again)


@pytest.mark.parametrize("name", ["broadcast", "markov", "trace", "uncondition", "block"])
def test_those_that_need_no_arguments_decorate_without(name: str) -> None:
    @getattr(handlers, name)  # type: ignore[untyped-decorator]
    def decorated(loc: float = 0.0) -> float:
        """Draws nothing."""
        return loc + 1.0

    assert decorated.__doc__ == "Draws nothing."
    assert decorated(loc=1.0) == 2.0


class Interruption(Exception):
    pass


class Interrupt(Messenger):
    """Raises before or after the n-th site."""

    def __init__(self, number: int, after: bool) -> None:
        self.number, self.after = number, after

    def _count(self) -> None:
        self.number -= 1
        if self.number < 0:
            raise Interruption

    def _process_message(self, msg: Message) -> None:
        if not self.after:
            self._count()

    def _postprocess_message(self, msg: Message) -> None:
        if self.after:
            self._count()


def everything() -> tuple[Any, ...]:
    """All state that handlers change while they are active."""
    random = get_rng_state()
    active = [id(frame) for frame in state.stack]
    return active, dict(state.dims._names), sorted(get_param_store()), random.python, random.torch.tolist()


@given(st.sampled_from(sorted(ARGUMENTS)), st.integers(0, 9), st.booleans(), st.booleans(), st.booleans())
def test_a_body_that_raises_leaves_everything_as_it_was(
    name: str, number: int, after: bool, inside: bool, managed: bool
) -> None:
    """And the handler itself works afterwards as if it had not been."""
    with get_param_store().scope():
        param("p", torch.tensor(1.0))
        handler: Any = getattr(handlers, name)(**ARGUMENTS[name]())
        fresh: Any = getattr(handlers, name)(**ARGUMENTS[name]())
        with seed(rng_seed=0), scale(scale=1.0), plate("around", 1, dim=-3):
            before = everything()[:3]
            body = Interrupt(number, after)(program) if inside else program
            handled = (
                functools.partial(managed_by, handler, body) if managed and name != "queue" else handler(body)
            )
            if not inside:
                handled = Interrupt(number, after)(handled)
            with suppress(Interruption):
                handled(1.0)
            assert everything()[:3] == before
        assert everything()[:2] == ([], {})
        assert summary(handler(program), 1.0) == summary(fresh(program), 1.0)


def managed_by(handler: AbstractContextManager[Any], fn: Any, *args: Any) -> Any:
    with handler:
        return fn(*args)


def test_the_random_state_is_put_back_by_seed() -> None:
    before = everything()
    with pytest.raises(Interruption):
        Interrupt(0, True)(seed(functools.partial(sample, "z", dist.Normal(0.0, 1.0)), rng_seed=1))()
    assert everything() == before


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_one_handled_program_runs_in_many_threads(name: str) -> None:
    """All are inside it at once, and each gets what it gets alone."""
    number = 3
    with get_param_store().scope():
        param("p", torch.tensor(1.0))
    param("p", torch.tensor(1.0))  # the store of all threads
    try:
        handled = handled_by(name)
        alone = [summary(handled, float(i)) for i in range(number)]
        meeting = threading.Barrier(number, timeout=60)
        together = in_threads(
            *[functools.partial(summary, handled, float(i), meeting.wait) for i in range(number)]
        )
        assert together == alone
    finally:
        get_param_store().clear()


@every_handler
def test_a_copy_of_an_active_handler_is_not_active(name: str) -> None:
    if name == "queue":
        pytest.skip("there is nothing to enter")
    with get_param_store().scope():
        handler = getattr(handlers, name)(**ARGUMENTS[name]())

        def run() -> Any:
            again = copy.deepcopy(handler)
            return summary(again(program), 1.0)

        alone = run()
        with handler:
            program(1.0)
        with getattr(handlers, "block")(), handler:  # noqa: B009
            program(1.0)
            within = copy.deepcopy(handler)
        assert summary(within(program), 1.0) == alone
