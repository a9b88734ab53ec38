from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects import (
    Message,
    Messenger,
    NonlocalExit,
    am_i_wrapped,
    apply_stack,
    default_process_message,
    effectful,
    get_mask,
    get_plates,
)
from sumout.effects.handlers import EscapeMessenger, block, mask, trace
from sumout.effects.handlers.escape import Escape
from sumout.effects.primitives import plate, sample
from sumout.effects.stack import state


class Logger(Messenger):
    """Notes when it sees a message before and after it is settled."""

    def __init__(
        self, name: str, log: list[str], action: Callable[[Message], None] = lambda msg: None
    ) -> None:
        self.name, self.log, self.action = name, log, action

    def _process_message(self, msg: Message) -> None:
        self.log.append(f"{self.name} before")
        self.action(msg)

    def _postprocess_message(self, msg: Message) -> None:
        self.log.append(f"{self.name} after {msg.value}")


@effectful(type="double")
def double(x: int) -> int:
    return 2 * x


class TestApplyStack:
    def test_goes_outwards_and_back(self) -> None:
        log: list[str] = []
        with Logger("outer", log), Logger("inner", log):
            assert double(2) == 4
        assert log == ["inner before", "outer before", "outer after 4", "inner after 4"]

    def test_stop_hides_from_those_outside(self) -> None:
        log: list[str] = []
        with Logger("outer", log), Logger("inner", log, lambda msg: msg.update(stop=True)):
            assert double(2) == 4
        assert log == ["inner before", "inner after 4"]

    def test_done_keeps_the_value_and_still_reaches_everybody(self) -> None:
        log: list[str] = []
        with Logger("outer", log), Logger("inner", log, lambda msg: msg.update(done=True, value=-1)):
            assert double(2) == -1
        assert log == ["inner before", "outer before", "outer after -1", "inner after -1"]

    def test_a_value_that_is_given_is_not_computed(self) -> None:
        with Messenger():
            assert double(2, obs=7) == 7

    def test_the_continuation_comes_last(self) -> None:
        log: list[str] = []
        action: Any = lambda msg: msg.update(continuation=lambda msg: log.append(f"last {msg.value}"))  # noqa: E731
        with Logger("it", log, action):
            double(2)
        assert log == ["it before", "it after 4", "last 4"]

    def test_handlers_may_be_entered_inside_a_handler(self) -> None:
        class Twice(Messenger):
            def _pyro_double(self, msg: Message) -> None:
                with Messenger():
                    msg.value = msg.fn(*msg.args)

        with Twice():
            assert double(3) == 6

    def test_a_message_by_hand(self) -> None:
        msg = Message(type="other", fn=lambda x, y: x - y, args=(5,), kwargs={"y": 3})
        apply_stack(msg)
        assert (msg.value, msg.done) == (2, True)

    def test_its_argument_has_a_name(self) -> None:
        msg = Message(type="other", fn=lambda: 3)
        apply_stack(initial_msg=msg)
        assert msg.value == 3

    def test_dictionaries_without_infer(self) -> None:
        """As a program for Pyro writes them, whose own function sets infer to an empty dictionary."""
        msg: Any = {"type": "other", "fn": lambda x: x + 1, "args": (5,), "infer": None, "kwargs": None}
        apply_stack(msg)
        assert (msg["value"], msg["done"], msg["infer"], msg["kwargs"]) == (6, True, {}, {})


class TestDefaultProcessMessage:
    def test_calls_the_function(self) -> None:
        for msg in (
            Message(type="other", fn=lambda x: x + 1, args=(5,)),
            {"type": "other", "fn": lambda x: x + 1, "args": (5,), "value": None, "done": False},
        ):
            default_process_message(msg)  # type: ignore[arg-type]
            assert (msg["value"], msg["done"]) == (6, True)

    def test_keeps_what_is_settled(self) -> None:
        for settled in ({"value": 1}, {"value": 1, "is_observed": True}, {"value": 1, "done": True}):
            msg: Any = {"type": "other", "fn": lambda: 2, **settled}
            default_process_message(msg)
            assert (msg["value"], msg["done"]) == (1, True)

    def test_an_error_of_the_function_is_its_own(self) -> None:
        with pytest.raises(AttributeError, match="colour"):
            default_process_message(Message(type="other", fn=lambda: state.colour))  # type: ignore[attr-defined]


class TestEffectful:
    def test_outside_handlers_it_is_the_function(self) -> None:
        assert double(3) == 6
        assert double.__name__ == "double"

    def test_twice_is_once(self) -> None:
        assert effectful(double, type="double") is double

    def test_needs_a_type(self) -> None:
        with pytest.raises(ValueError, match="type"):
            effectful(len)

    def test_hooks_get_its_messages(self) -> None:
        class Negative(Messenger):
            def _pyro_post_double(self, msg: Message) -> None:
                msg.value = -msg.value

        with Negative():
            assert double(1) == -2
            assert double(1, infer={"a": 1}, name="d") == -2

    def test_infer_is_the_messages_own(self) -> None:
        given = {"a": 1}

        class Writer(Messenger):
            def _pyro_double(self, msg: Message) -> None:
                msg.infer["b"] = 2

        with Writer():
            double(1, infer=given)
        assert given == {"a": 1}


class TestInspection:
    def test_am_i_wrapped(self) -> None:
        assert not am_i_wrapped()
        with Messenger():
            assert am_i_wrapped()
        assert not am_i_wrapped()

    def test_get_mask_combines_those_around(self) -> None:
        assert get_mask() is None
        some = torch.tensor([True, False])
        with mask(mask=some):
            assert get_mask() is some
            with mask(mask=True):
                assert torch.equal(get_mask(), some)
            with mask(mask=torch.tensor([True, True])):
                assert torch.equal(get_mask(), some)
            with mask(mask=False), block():
                assert get_mask() is None
        with Messenger():
            assert get_mask() is None
        with mask(mask=False):
            assert get_mask() is False

    def test_get_plates_lists_those_around_outermost_first(self) -> None:
        assert get_plates() == ()
        with plate("a", 3), plate("b", 2):
            assert [(frame.name, frame.dim, frame.size) for frame in get_plates()] == [
                ("a", -1, 3),
                ("b", -2, 2),
            ]
        with Messenger():
            assert get_plates() == ()


class TestNonlocalExit:
    def test_carries_the_site_and_resets_the_handlers(self) -> None:
        class Escape(Messenger):
            def _pyro_sample(self, msg: Message) -> None:
                if msg.name == "b":
                    msg.done = True

                    def leave(site: Message) -> None:
                        raise NonlocalExit(site)

                    msg.continuation = leave

        def model() -> None:
            sample("a", dist.Normal(0.0, 1.0))
            sample("b", dist.Normal(0.0, 1.0))
            raise AssertionError("not reached")

        with Escape():
            tracer = trace(model)
            with pytest.raises(NonlocalExit) as caught:
                tracer.get_trace()
            assert caught.value.site.name == "b"
            assert "a" in tracer.trace
            with tracer.msngr:
                sample("a", dist.Normal(0.0, 1.0))
                caught.value.reset_stack()
                assert "a" not in tracer.msngr.trace
        assert state.stack == []

    def test_handlers_beyond_a_block_are_not_reset(self) -> None:
        site = Message(type="sample", name="z")
        with trace() as outer:
            sample("x", dist.Normal(0.0, 1.0))
            with block(hide=["z"]), trace() as inner:
                sample("y", dist.Normal(0.0, 1.0))
                NonlocalExit(site).reset_stack()
                assert "y" not in inner.trace
            assert "x" in outer.trace
            with block(hide=["other"]), trace():
                NonlocalExit(site).reset_stack()
            assert "x" not in outer.trace

    def test_pickles(self) -> None:
        site = Message(type="sample", name="z", infer={"a": 1})
        again = pickle.loads(pickle.dumps(NonlocalExit(site, "left", 3)))
        assert type(again) is NonlocalExit
        assert again.args == ("left", 3)
        assert (again.site.name, again.site.infer) == ("z", {"a": 1})
        own = pickle.loads(pickle.dumps(Escape(site, EscapeMessenger(len))))  # type: ignore[arg-type]
        assert type(own) is Escape
        assert own.site.name == "z"
        assert own.by.escape_fn is len


class TestThreads:
    def test_two_threads_under_different_handlers_never_see_each_other(self) -> None:
        """The threads meet inside their handlers at each step, so that any sharing would show."""
        steps, threads = 50, 4
        together = threading.Barrier(threads)
        found: dict[int, Any] = {}

        def run(me: int) -> None:
            def model() -> None:
                data = plate(f"plate_{me}", 2 + me)
                for i in range(steps):
                    together.wait()
                    with data:
                        together.wait()
                        sample(f"{me}_{i}", dist.Normal(float(me), 1.0))

            found[me] = trace(model).get_trace()

        runs = [threading.Thread(target=run, args=(me,)) for me in range(threads)]
        with trace() as outside:
            for thread in runs:
                thread.start()
            for thread in runs:
                thread.join()
        assert len(outside.trace) == 0
        assert len(found) == threads
        for me, recorded in found.items():
            names = [name for name in recorded.stochastic_nodes if not name.startswith("plate")]
            assert names == [f"{me}_{i}" for i in range(steps)]
            for name in names:
                site = recorded.nodes[name]
                assert site.value.shape == (2 + me,)
                (frame,) = site.cond_indep_stack
                assert (frame.name, frame.dim) == (f"plate_{me}", -1)

    def test_one_tracer_records_each_thread_apart(self) -> None:
        together = threading.Barrier(3)

        @trace
        def model(me: int) -> None:
            together.wait()
            sample(f"z_{me}", dist.Normal(0.0, 1.0))
            together.wait()

        found: dict[int, list[str]] = {}
        runs = [
            threading.Thread(target=lambda me=me: found.update({me: model.get_trace(me).stochastic_nodes}))
            for me in range(3)
        ]
        for thread in runs:
            thread.start()
        for thread in runs:
            thread.join()
        assert found == {me: [f"z_{me}"] for me in range(3)}
        assert model.trace.stochastic_nodes in found.values()  # of the run that began last

    def test_one_handled_function_runs_in_many_threads_at_once(self) -> None:
        together = threading.Barrier(3)

        @mask(mask=False)
        def model() -> bool:
            together.wait()
            seen = get_mask() is False
            together.wait()
            return seen

        seen: list[bool] = []
        runs = [threading.Thread(target=lambda: seen.append(model())) for _ in range(3)]
        for thread in runs:
            thread.start()
        for thread in runs:
            thread.join()
        assert seen == [True, True, True]
        assert get_mask() is None


def test_a_site_may_be_a_plain_dictionary() -> None:
    site = {"type": "sample", "name": "x", "fn": lambda: 3, "args": (), "kwargs": {}, "value": None}
    apply_stack(site)  # type: ignore[arg-type]
    assert site["value"] == 3
    assert site["done"] is True
