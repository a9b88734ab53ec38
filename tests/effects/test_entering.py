"""An entry that fails or is refused: nothing is left on the stack, and what is going on goes on as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects import Message, Messenger
from sumout.effects.handlers import (
    ConditionMessenger,
    DoMessenger,
    EnumMessenger,
    EqualizeMessenger,
    IndepMessenger,
    InferConfigMessenger,
    LiftMessenger,
    MarkovMessenger,
    MaskMessenger,
    PlateMessenger,
    ReparamMessenger,
    ReplayMessenger,
    ScaleMessenger,
    SeedMessenger,
    SubsampleMessenger,
    SubstituteMessenger,
    TraceMessenger,
)
from sumout.effects.primitives import get_param_store, param, plate, sample
from sumout.effects.random_state import get_rng_state
from sumout.effects.stack import state
from sumout.effects.trace import Trace
from sumout.errors import ModelError

NORMAL = dist.Normal(0.0, 1.0)

HANDLERS: dict[str, Callable[[], Any]] = {
    "condition": lambda: ConditionMessenger({"z": torch.tensor(1.0)}),
    "do": lambda: DoMessenger({"z": torch.tensor(1.0)}),
    "enum": lambda: EnumMessenger(-2),
    "equalize": lambda: EqualizeMessenger("z"),
    "indep": lambda: IndepMessenger("data", 3),
    "infer_config": lambda: InferConfigMessenger(lambda site: {}),
    "lift": lambda: LiftMessenger({"p": NORMAL}),
    "mask": lambda: MaskMessenger(True),
    "plate": lambda: PlateMessenger("data", 3),
    "reparam": lambda: ReparamMessenger({}),
    "replay": lambda: ReplayMessenger(Trace()),
    "scale": lambda: ScaleMessenger(2.0),
    "seed": lambda: SeedMessenger(1),
    "subsample": lambda: SubsampleMessenger("data", 3),
    "substitute": lambda: SubstituteMessenger({"p": 1.0}),
    "trace": TraceMessenger,
}


@pytest.fixture(autouse=True)
def _no_other_test_meets_what_is_left() -> Any:
    yield
    left = [type(frame).__name__ for frame in state.stack]
    del state.stack[:]
    state.dims._names.clear()
    assert left == []


def everything() -> tuple[Any, ...]:
    random = get_rng_state()
    return [id(frame) for frame in state.stack], dict(state.dims._names), random.torch.tolist()


@pytest.mark.parametrize("name", [*HANDLERS, "markov"])
def test_where_getting_ready_fails_a_handler_is_not_entered(name: str) -> None:
    made = HANDLERS[name]() if name != "markov" else MarkovMessenger()

    class Failing(type(made)):  # type: ignore[misc]
        fails = True

        def _begin(self) -> None:
            if self.fails:
                raise LookupError
            super()._begin()

    made.__class__ = Failing
    before = everything()
    for _ in range(2):
        with pytest.raises(LookupError), made:
            pytest.fail("entered")
        assert everything() == before
    made.fails = False
    with get_param_store().scope():
        param("p", torch.tensor(1.0))
        with made:
            sample("z", NORMAL)
            param("p")
    assert state.stack == []


@pytest.mark.parametrize("name", HANDLERS)
def test_a_second_entry_is_refused_and_changes_nothing(name: str) -> None:
    handler = HANDLERS[name]()
    with get_param_store().scope(), TraceMessenger() as outside, handler:
        param("p", torch.tensor(1.0))
        before = everything()
        with pytest.raises(ValueError, match="already active"):
            handler.__enter__()
        assert everything() == before
        sample("z", NORMAL)
        param("p")
    assert state.stack == []
    assert "z" in outside.trace


def test_enum_refused_keeps_the_dims_of_its_run() -> None:
    handler = EnumMessenger(first_available_dim=-1)
    with handler, TraceMessenger() as recorder:
        sample("a", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        with pytest.raises(ValueError, match="already active"):
            handler.__enter__()
        sample("b", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    assert [recorder.trace.nodes[name].enum_dim for name in "ab"] == [-1, -2]


def test_a_trace_refused_keeps_what_it_recorded() -> None:
    recorder = TraceMessenger()
    with recorder:
        sample("a", NORMAL)
        with pytest.raises(ValueError, match="already active"):
            recorder.__enter__()
        sample("b", NORMAL)
    assert list(recorder.trace) == ["a", "b"]


def test_a_loop_refused_keeps_the_step_of_the_other() -> None:
    rows = plate("rows", 3)
    counters = []
    for i in rows:
        with pytest.raises(ValueError, match="already active"):
            for _ in rows:
                pytest.fail("entered")
        with TraceMessenger() as recorder:
            sample(f"z_{i}", NORMAL)
        counters += [frame.counter for frame in recorder.trace.nodes[f"z_{i}"].cond_indep_stack]
    assert counters == [1, 2, 3]


@pytest.mark.parametrize("rng_seed", [2**64, -(2**63) - 1, 10**30])
def test_a_seed_of_more_than_64_bits_is_told(rng_seed: int) -> None:
    before = everything()
    with pytest.raises(ModelError, match=f"64 bits, and {rng_seed} has more"):
        SeedMessenger(rng_seed)
    handler = SeedMessenger(1)
    handler.rng_seed = rng_seed
    with pytest.raises((ValueError, RuntimeError, OverflowError)), handler:
        pytest.fail("entered")
    assert everything() == before
    for largest in (2**64 - 1, -(2**63)):
        with SeedMessenger(largest):
            pass
    assert everything() == before


class TestSubclassesThatDoNotCallInit:
    """They are handlers all the same, as in Pyro, where what they set is all that is looked at."""

    def test_condition(self) -> None:
        class Ones(ConditionMessenger):
            def __init__(self) -> None:
                self.data = {"z": torch.tensor(1.0)}

        handler = Ones()
        assert handler(sample)("z", NORMAL) == 1.0
        with pytest.warns(UserWarning, match="ones found no sample site named 'z'"), handler:
            pass
        assert state.stack == []

    def test_replay(self) -> None:
        before = TraceMessenger()(lambda: sample("z", NORMAL)).get_trace()

        class Again(ReplayMessenger):
            def __init__(self) -> None:
                self.trace, self.params = before, None

        assert Again()(sample)("z", NORMAL) is before.nodes["z"].value

    def test_scale_and_mask(self) -> None:
        class Doubled(ScaleMessenger):
            def __init__(self) -> None:
                self.scale = 2.0

        class Hidden(MaskMessenger):
            def __init__(self) -> None:
                self.mask = False

        with TraceMessenger() as recorder, Doubled():
            z = sample("z", NORMAL)
            with Hidden():
                sample("masked", NORMAL)
        assert recorder.trace.log_prob_sum() == 2 * NORMAL.log_prob(z)

    def test_one_whose_state_is_missing_is_not_left_on_the_stack(self) -> None:
        class Wrong(LiftMessenger):
            def __init__(self) -> None:
                self.prior = {}

        with pytest.raises(AttributeError), Wrong():
            pytest.fail("entered")
        assert state.stack == []


def test_a_program_that_enters_its_own_handler() -> None:
    """The refused entry inside does not end the run outside."""

    class Marking(Messenger):
        def _pyro_sample(self, msg: Message) -> None:
            msg.infer["marked"] = True

    handler = Marking()

    @handler
    def program() -> None:
        with pytest.raises(ValueError, match="already active"):
            handler(sample)("a", NORMAL)
        sample("b", NORMAL)

    recorded = TraceMessenger()(program).get_trace()
    assert "a" not in recorded
    assert recorded.nodes["b"].infer == {"marked": True}
