from __future__ import annotations

import functools
import inspect
import warnings
from abc import ABC, abstractmethod
from typing import Any

import pytest
from torch import nn

from sumout.effects import Message, Messenger, apply_stack, block_messengers, effectful
from sumout.effects.stack import state


@effectful(type="ping")
def ping() -> str:
    return "ping"


class Marker(Messenger):
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def _pyro_post_ping(self, msg: Message) -> None:
        msg.value += self.mark


class TestEntering:
    def test_as_a_context_manager(self) -> None:
        with Marker("!") as entered:
            assert isinstance(entered, Marker)
            assert ping() == "ping!"
        assert ping() == "ping"

    def test_as_a_decorator(self) -> None:
        @Marker("!")
        def model(times: int = 1) -> str:
            """Pings."""
            return ping() * times

        assert model(2) == "ping!ping!"
        assert model() == "ping!"
        assert model.__name__ == "model"
        assert model.__doc__ == "Pings."
        assert list(inspect.signature(model).parameters) == ["times"]

    def test_of_a_method(self) -> None:
        class Model:
            @Marker("!")
            def __call__(self) -> str:
                return ping()

        assert Model()() == "ping!"
        assert Marker("?")(Model())() == "ping?!"

    def test_nested_handlers_act_from_the_outside_in_after_a_site(self) -> None:
        with Marker("a"), Marker("b"):
            assert ping() == "pingab"

    def test_only_functions_can_be_decorated(self) -> None:
        with pytest.raises(ValueError, match="not callable"):
            Messenger()(3)  # type: ignore[arg-type]

    def test_an_instance_is_not_entered_twice_at_once(self) -> None:
        marker = Marker("!")
        with marker, pytest.raises(ValueError, match="Marker is already active"), marker:
            pass
        assert state.stack == []
        with marker:
            assert ping() == "ping!"

    def test_leaving_out_of_order_is_an_error(self) -> None:
        outer, inner = Marker("a"), Marker("b")
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(ValueError, match="must nest"):
            outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        outer.__exit__(None, None, None)
        assert state.stack == []

    def test_an_error_inside_leaves_no_handler_behind(self) -> None:
        with pytest.raises(KeyError), Marker("a"):
            Marker("left open by hand").__enter__()
            raise KeyError
        assert state.stack == []
        with pytest.raises(KeyError):
            Marker("b")({}.__getitem__)("missing")
        assert state.stack == []


class TestHooks:
    def test_the_general_methods_see_every_type(self) -> None:
        seen: list[tuple[str, str]] = []

        class All(Messenger):
            def _process_message(self, msg: Message) -> None:
                seen.append(("before", msg.type))
                super()._process_message(msg)

            def _postprocess_message(self, msg: Message) -> None:
                seen.append(("after", msg.type))
                super()._postprocess_message(msg)

            def _pyro_ping(self, msg: Message) -> None:
                seen.append(("hook", msg.type))

        with All():
            ping()
        assert seen == [("before", "ping"), ("hook", "ping"), ("after", "ping")]

    def test_are_inherited_and_overridden(self) -> None:
        class Louder(Marker):
            def _pyro_post_ping(self, msg: Message) -> None:
                super()._pyro_post_ping(msg)
                msg.value = msg.value.upper()

        with Louder("!"):
            assert ping() == "PING!"

    def test_register_and_unregister(self) -> None:
        class Changed(Messenger):
            pass

        class Child(Changed):
            pass

        def hook(msg: Message) -> None:
            msg.value, msg.done = "pong", True

        assert Changed.register(hook, type="ping") is hook
        with Changed():
            assert ping() == "pong"
        with Child():
            assert ping() == "pong"
        with Messenger():
            assert ping() == "ping"
        Changed.unregister(hook, type="ping")
        with Child():
            assert ping() == "ping"

    def test_register_as_a_decorator_and_after_the_site(self) -> None:
        class Changed(Messenger):
            pass

        @Changed.register(type="ping", post=True)
        def hook(msg: Message) -> None:
            msg.value += "?"

        with Changed():
            assert ping() == "ping?"
        Changed.unregister(type="ping")
        with Changed():
            assert ping() == "ping"

    def test_register_takes_the_functions_name_for_the_type(self) -> None:
        class Changed(Messenger):
            pass

        @Changed.register
        def ping_again(msg: Message) -> None:
            msg.value = "pong"

        primitive = effectful(lambda: "ping", type="ping_again")
        with Changed():
            assert primitive() == "pong"
            assert ping() == "ping"
        assert Changed.unregister(ping_again) is ping_again
        with Changed():
            assert primitive() == "ping"

    def test_register_needs_a_type_where_there_is_no_name(self) -> None:
        for nameless in (lambda msg: None, functools.partial(print)):
            with pytest.raises(ValueError, match="type"):
                Messenger.register(nameless)
            with pytest.raises(ValueError, match="type"):
                Messenger.unregister(nameless)

    def test_a_misspelt_hook_warns(self) -> None:
        with pytest.warns(UserWarning, match="_pyro_smaple.*_pyro_sample"):
            type("Wrong", (Messenger,), {"_pyro_smaple": lambda self, msg: None})
        with pytest.warns(UserWarning, match="_pyro_post_parm.*_pyro_post_param"):
            type("Wrong", (Messenger,), {"_pyro_post_parm": lambda self, msg: None})

    @pytest.mark.parametrize("wrong", ["_process_mesage", "_proces_message", "_process_msg"])
    def test_a_misspelt_general_method_warns(self, wrong: str) -> None:
        with pytest.warns(UserWarning, match=f"Wrong.{wrong} is not called.* Did you mean _process_message"):
            type("Wrong", (Messenger,), {wrong: lambda self, msg: None})
        later = type("Later", (Messenger,), {})
        with pytest.warns(UserWarning, match=f"Later.{wrong} is not called.* Did you mean _process_message"):
            setattr(later, wrong, lambda self, msg: None)

    @pytest.mark.parametrize("wrong", ["_postprocess_mesage", "_post_process_message"])
    def test_and_the_one_after(self, wrong: str) -> None:
        with pytest.warns(UserWarning, match=f"{wrong} .* Did you mean _postprocess_message"):
            type("Wrong", (Messenger,), {wrong: lambda self, msg: None})

    def test_other_private_names_do_not_warn(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            type("Right", (Messenger,), {"_prior": len, "_process": len, "_post": len, "_process_mesage": 3})

    def test_a_misspelt_hook_that_comes_later_warns_too(self) -> None:
        class Changed(Messenger):
            pass

        with pytest.warns(UserWarning, match="Changed._pyro_smaple.*_pyro_sample"):
            Changed.register(lambda msg: None, type="smaple")
        with pytest.warns(UserWarning, match="Changed._pyro_post_smaple.*_pyro_post_sample"):
            Changed.register(lambda msg: None, type="smaple", post=True)
        with pytest.warns(UserWarning, match="Changed._pyro_subsampel.*_pyro_subsample"):
            Changed._pyro_subsampel = lambda self, msg: None  # type: ignore[attr-defined]

    def test_the_warning_is_told_of_the_users_line(self) -> None:
        with pytest.warns(UserWarning, match="smaple") as caught:
            type("Wrong", (Messenger,), {"_pyro_smaple": lambda self, msg: None})

        class Changed(Messenger):
            pass

        with pytest.warns(UserWarning, match="smaple") as later:
            Changed.register(lambda msg: None, type="smaple")
        assert [each.filename for each in (*caught, *later)] == [__file__] * 2

    def test_a_hook_may_be_assigned_and_deleted_later(self) -> None:
        class Changed(Messenger):
            pass

        class Child(Changed):
            pass

        def hook(self: Messenger, msg: Message) -> None:
            msg.value += type(self).__name__

        Changed._pyro_post_ping = hook  # type: ignore[attr-defined]
        for kind in (Changed, Child):
            with kind():
                assert ping() == "ping" + kind.__name__
        del Changed._pyro_post_ping  # type: ignore[attr-defined]
        with Child():
            assert ping() == "ping"

        seen: list[str] = []
        Changed._process_message = lambda self, msg: seen.append(msg.type)  # type: ignore[method-assign]
        with Child():
            ping()
        assert seen == ["ping"]
        del Changed._process_message  # type: ignore[method-assign]
        with Child():
            ping()
        assert seen == ["ping"]

    def test_other_attributes_are_assigned_as_ever(self) -> None:
        class Changed(Messenger):
            colour = "red"

        before = Changed._before
        Changed.colour = "blue"
        assert Changed._before is before

    def test_an_abstract_handler(self) -> None:
        class Abstract(Messenger, ABC):
            @abstractmethod
            def amount(self) -> str: ...

            def _pyro_post_ping(self, msg: Message) -> None:
                msg.value += self.amount()

        class Concrete(Abstract):
            def amount(self) -> str:
                return "!"

        with pytest.raises(TypeError, match="abstract"):
            Abstract()  # type: ignore[abstract]
        with Concrete():
            assert ping() == "ping!"

    def test_a_handler_that_is_a_module(self) -> None:
        class Net(Messenger, nn.Module):
            def _pyro_post_ping(self, msg: Message) -> None:
                msg.value += "!"

        with Net():
            assert ping() == "ping!"

    def test_hooks_of_ones_own_types_do_not_warn(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            type(
                "Right",
                (Messenger,),
                {"_pyro_sample": lambda self, msg: None, "_pyro_my_op": lambda self, msg: None},
            )


class TestBlockMessengers:
    def test_mutes_for_a_while(self) -> None:
        with Marker("a") as outer, Marker("b"):
            with block_messengers(lambda frame: frame is outer) as muted:
                assert muted == [outer]
                assert ping() == "pingb"
            assert ping() == "pingab"

    def test_handlers_come_back_after_an_error(self) -> None:
        def fail() -> Any:
            with block_messengers(lambda frame: True):
                assert ping() == "ping"
                raise KeyError

        with Marker("a"):
            with pytest.raises(KeyError):
                fail()
            assert ping() == "pinga"


def test_a_hook_may_be_a_class_method() -> None:
    class Counting(Messenger):
        seen = 0

        @classmethod
        def _pyro_sample(cls, msg: Message) -> None:
            cls.seen += 1

    with Counting():
        apply_stack(Message(type="sample", name="x", fn=lambda: 1))
    assert Counting.seen == 1
