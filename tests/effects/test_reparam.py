"""The handler alone, with reparameterizers written here; those of the library are tested in tests/infer/reparam."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from forms import forms
from sumout.effects import Message
from sumout.effects.handlers import (
    ReparamMessenger,
    block,
    condition,
    do,
    equalize,
    mask,
    reparam,
    replay,
    scale,
    trace,
    uncondition,
)
from sumout.effects.primitives import deterministic, factor, plate, sample, validation_enabled
from sumout.errors import ModelError


class Decenter:
    """Standard noise, shifted and scaled; of a given value, the noise that leads to it."""

    def apply(self, msg: dict[str, Any]) -> dict[str, Any]:
        fn, value = msg["fn"], msg["value"]
        noise = None if value is None else (value - fn.loc) / fn.scale
        noise = sample(
            f"{msg['name']}_noise",
            dist.Normal(torch.zeros_like(fn.loc), 1.0),
            obs=noise,
            infer={"is_observed": msg["is_observed"]},
        )
        value = fn.loc + fn.scale * noise if value is None else value
        return {"fn": dist.Delta(value).mask(False), "value": value, "is_observed": True}


class Mixed:
    """Student's t as a normal with a random scale: the site itself stays random."""

    def apply(self, msg: dict[str, Any]) -> dict[str, Any]:
        fn = msg["fn"]
        gamma = sample(f"{msg['name']}_gamma", dist.Gamma(fn.df / 2, fn.df / 2))
        normal = dist.Normal(fn.loc, fn.scale * gamma.rsqrt())
        return {"fn": normal, "value": msg["value"], "is_observed": msg["is_observed"]}


class Inputs:
    """Leaves the site as it is and notes what it was told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.args_kwargs: Any = "before"

    def apply(self, msg: dict[str, Any]) -> dict[str, Any]:
        self.seen.append((self.args_kwargs, dict(msg)))
        return msg


def model(shift: float = 0.0) -> Any:
    x = sample("x", dist.Normal(torch.tensor(3.0 + shift), 2.0))
    sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.5))
    return x


def recorded(program: Any, *args: Any, **kwargs: Any) -> Any:
    return trace(program).get_trace(*args, **kwargs)


# ------------------------------------------------------------------------------------------- what becomes of a site


def test_the_site_follows_from_the_auxiliary_ones() -> None:
    seen = recorded(reparam(model, {"x": Decenter()}))
    assert list(seen) == ["_INPUT", "x_noise", "x", "y", "_RETURN"]
    assert seen.stochastic_nodes == ["x_noise"]
    noise, x = seen.nodes["x_noise"], seen.nodes["x"]
    assert x["value"] == 3.0 + 2.0 * noise["value"]
    assert x["is_observed"]
    assert x["infer"]["_deterministic"]
    assert x["log_prob"] == 0.0
    assert seen.nodes["_RETURN"]["value"] is x["value"]
    assert noise["log_prob"] == dist.Normal(0.0, 1.0).log_prob(noise["value"])


def test_a_site_may_stay_random() -> None:
    def student() -> Any:
        return sample("x", dist.StudentT(torch.tensor(3.0), 1.0, 2.0))

    seen = recorded(reparam(student, {"x": Mixed()}))
    assert seen.stochastic_nodes == ["x_gamma", "x"]
    assert isinstance(seen.nodes["x"]["fn"], dist.Normal)
    assert "_deterministic" not in seen.nodes["x"]["infer"]


def test_an_observed_site_hands_its_value_on() -> None:
    x = torch.tensor(4.0)
    seen = recorded(reparam(condition(model, data={"x": x}), {"x": Decenter()}))
    assert seen.observation_nodes == ["x_noise", "x", "y"]
    assert seen.nodes["x_noise"]["value"] == 0.5
    assert seen.nodes["x"]["value"] is x


def test_a_number_is_handed_on_as_a_tensor() -> None:
    seen = recorded(reparam(condition(model, data={"x": 4.0}), {"x": Decenter()}))
    assert seen.nodes["x_noise"]["value"] == 0.5


def test_a_replayed_value_stays_latent() -> None:
    before = recorded(model)
    seen = recorded(reparam(replay(model, trace=before), {"x": Decenter()}))
    assert seen.stochastic_nodes == ["x_noise"]
    assert seen.nodes["x"]["value"] is before.nodes["x"]["value"]
    assert seen.nodes["x_noise"]["value"] == (before.nodes["x"]["value"] - 3.0) / 2.0


def test_all_forms_of_the_handler_do_the_same() -> None:
    for name, form in forms(reparam, model, config={"x": Decenter()}).items():
        assert recorded(form).stochastic_nodes == ["x_noise"], name


def test_a_method_stays_a_method() -> None:
    class Thing:
        @reparam(config={"x": Decenter()})
        def model(self) -> Any:
            return model()

    assert recorded(Thing().model).stochastic_nodes == ["x_noise"]


def test_a_handled_program_can_be_pickled() -> None:
    program = pickle.loads(pickle.dumps(reparam(model, {"x": Decenter()})))
    seen = recorded(program)
    assert seen.stochastic_nodes == ["x_noise"]
    assert pickle.loads(pickle.dumps(seen)).stochastic_nodes == ["x_noise"]


# --------------------------------------------------------------------------------------------------- choosing sites


def test_a_function_chooses() -> None:
    asked: list[str] = []

    def choose(site: Message) -> Any:
        asked.append(site["name"])
        return Decenter() if site.name == "x" else None

    def program() -> None:
        model()
        deterministic("d", torch.tensor(1.0))
        factor("f", torch.tensor(1.0))
        with plate("p", 10, subsample_size=2):
            pass

    assert recorded(reparam(program, choose)).stochastic_nodes == ["x_noise", "p"]
    assert asked == ["x", "x_noise", "y", "f"]  # neither deterministic sites nor subsamples


def test_a_strategy_is_asked_once() -> None:
    class Strategy:
        def __init__(self) -> None:
            self.config: dict[str, Any] = {}
            self.asked: list[str] = []

        def configure(self, site: Any) -> Any:
            self.asked.append(site["name"])
            return Decenter() if site["name"] == "x" else None

    strategy = Strategy()
    program = reparam(model, config=strategy)
    assert recorded(program).stochastic_nodes == ["x_noise"]
    assert recorded(program).stochastic_nodes == ["x_noise"]
    assert strategy.asked == ["x", "x_noise", "y"]
    assert list(strategy.config) == ["x", "x_noise", "y"]
    assert recorded(reparam(model, config=strategy.config)).stochastic_nodes == ["x_noise"]


def test_none_leaves_a_site() -> None:
    assert recorded(reparam(model, {"x": None, "zzz": None})).stochastic_nodes == ["x"]
    assert recorded(reparam(model, lambda site: None)).stochastic_nodes == ["x"]


def test_several_sites_and_auxiliary_ones() -> None:
    config = {"x": Decenter(), "x_noise": Decenter(), "y": Decenter()}
    seen = recorded(reparam(model, config))
    assert list(seen)[1:-1] == ["x_noise_noise", "x_noise", "x", "y_noise", "y"]
    assert seen.stochastic_nodes == ["x_noise_noise"]


def test_nested_handlers() -> None:
    def student() -> Any:
        return sample("x", dist.StudentT(torch.tensor(3.0), 1.0, 2.0))

    inner = reparam(student, {"x": Mixed()})
    assert recorded(reparam(inner, {"x": Decenter()})).stochastic_nodes == ["x_gamma", "x_noise"]
    once = reparam(model, {"x": Decenter()})
    assert recorded(reparam(once, {"x": Inputs()})).stochastic_nodes == ["x_noise"]  # the inner one holds
    assert recorded(reparam(reparam(model, {"x": Decenter()}), {"x_noise": Decenter()})).stochastic_nodes == [
        "x_noise_noise"
    ]


def test_a_name_without_a_site_is_reported() -> None:
    with pytest.warns(UserWarning, match="reparam found no sample site named 'xx'. Did you mean 'x'"):
        reparam(model, {"xx": Decenter(), "y": Inputs()})()
    with validation_enabled(False):
        reparam(model, {"xx": Decenter()})()


# ------------------------------------------------------------------------------------------- the program's arguments


def test_a_reparameterizer_sees_the_programs_arguments() -> None:
    inputs = Inputs()
    program = reparam(model, {"x": inputs})
    program(1.0)
    program(shift=2.0)
    with reparam(config={"x": inputs}):
        model(3.0)
    assert [seen for seen, _ in inputs.seen] == [((1.0,), {}), ((), {"shift": 2.0}), None]
    assert inputs.args_kwargs == "before"
    assert list(inputs.seen[0][1]) == ["name", "fn", "value", "is_observed"]


def test_arguments_come_back_after_a_program_inside() -> None:
    inputs = Inputs()
    messenger = ReparamMessenger({"x": inputs, "z": inputs})

    def outer(number: int) -> None:
        sample("z", dist.Normal(0.0, 1.0))

    def other(number: int) -> None:
        with pytest.raises(ValueError):
            messenger(outer)(number + 1)  # already active
        outer(number)
        model()

    messenger(other)(7)
    assert [seen for seen, _ in inputs.seen] == [((7,), {}), ((7,), {})]


def test_the_state_comes_back_after_an_error() -> None:
    class Broken(Inputs):
        def apply(self, msg: dict[str, Any]) -> dict[str, Any]:
            raise KeyError("broken")

    broken = Broken()
    program = reparam(model, {"x": broken})
    for _ in range(2):
        with pytest.raises(KeyError, match="broken"):
            program(1.0)
    assert broken.args_kwargs == "before"
    assert program.msngr._inputs.args_kwargs is None
    assert program.msngr._inputs.names == ()


# -------------------------------------------------------------------------------------------- with other handlers


@pytest.mark.parametrize("plate_inside", [True, False])
def test_plates(plate_inside: bool) -> None:
    def in_plate() -> None:
        with plate("data", 4):
            sample("x", dist.Normal(torch.tensor(3.0), 2.0))

    def around() -> None:
        with plate("data", 4), reparam(config={"x": Decenter()}):
            sample("x", dist.Normal(torch.tensor(3.0), 2.0))

    seen = recorded(reparam(in_plate, {"x": Decenter()}) if plate_inside else around)
    for name in ("x_noise", "x"):
        assert seen.nodes[name]["value"].shape == (4,)
        assert [frame.name for frame in seen.nodes[name]["cond_indep_stack"]] == ["data"]
    assert len(set(seen.nodes["x_noise"]["value"].tolist())) == 4
    torch.testing.assert_close(seen.nodes["x"]["value"], 3.0 + 2.0 * seen.nodes["x_noise"]["value"])


@pytest.mark.parametrize("inside", [True, False])
def test_scale_and_mask_hold_of_auxiliary_sites(inside: bool) -> None:
    config = {"x": Decenter()}
    for handler, arguments, factor_of in ((scale, {"scale": 3.0}, 3.0), (mask, {"mask": False}, 0.0)):
        handled = (
            reparam(handler(model, **arguments), config)
            if inside
            else handler(reparam(model, config), **arguments)
        )
        noise = recorded(handled).nodes["x_noise"]
        torch.testing.assert_close(noise["log_prob"], factor_of * noise["fn"].log_prob(noise["value"]))


def test_a_masked_distribution_masks_its_auxiliary_sites() -> None:
    present = torch.tensor([True, False])

    def masked(data: Any = None) -> None:
        sample("x", dist.Normal(torch.zeros(2), 2.0).mask(present), obs=data)

    seen = recorded(reparam(masked, {"x": Decenter()}))
    assert seen.nodes["x_noise"]["log_prob"][0] != 0.0
    assert seen.nodes["x_noise"]["log_prob"][1] == 0.0

    def student() -> None:
        sample("x", dist.StudentT(torch.full((2,), 3.0)).mask(False), obs=torch.ones(2))

    seen = recorded(reparam(student, {"x": Mixed()}))
    assert seen.log_prob_sum() == 0.0
    assert "_deterministic" not in seen.nodes["x"]["infer"]


def test_condition_and_replay_outside_see_auxiliary_sites() -> None:
    program = reparam(model, {"x": Decenter()})
    seen = recorded(condition(program, data={"x_noise": torch.tensor(0.5)}))
    assert seen.nodes["x"]["value"] == 4.0
    assert seen.stochastic_nodes == []
    again = recorded(replay(program, trace=recorded(program)))
    assert again.stochastic_nodes == ["x_noise"]


def test_a_value_of_its_own_from_outside_is_refused() -> None:
    program = reparam(model, {"x": Decenter()})
    with pytest.raises(ModelError, match="Site 'x' is reparameterized, so its value follows"):
        condition(program, data={"x": torch.tensor(1.0)})()
    with pytest.raises(ModelError, match="handler outside"):
        condition(program, data={"x": torch.zeros(3)})()


def test_the_value_that_it_has_may_be_given_from_outside() -> None:
    program = reparam(model, {"x": Decenter()})
    data = {"x_noise": torch.tensor(0.5), "x": torch.tensor(4.0)}
    assert condition(program, data=data)() == 4.0
    uncondition(program)()


def test_interventions_and_equal_values_outside() -> None:
    program = reparam(model, {"x": Decenter()})
    seen = recorded(do(program, data={"x": torch.tensor(7.0)}))
    assert seen.nodes["_RETURN"]["value"] == 7.0
    assert seen.nodes["x"]["value"] == 3.0 + 2.0 * seen.nodes["x_noise"]["value"]

    def twins() -> Any:
        return [sample(name, dist.Normal(torch.tensor(3.0), 2.0)) for name in ("x", "z")]

    equal = equalize(reparam(twins, {"x": Decenter(), "z": Decenter()}), ["x", "z"])
    x, z = recorded(equal).nodes["_RETURN"]["value"]
    assert x == z


def test_a_hidden_site_is_left_alone() -> None:
    assert (
        recorded(
            reparam(block(model, hide=["x"]), lambda site: Decenter() if site.name == "x" else None)
        ).stochastic_nodes
        == []
    )
    seen = recorded(block(reparam(model, {"x": Decenter()}), hide=["x_noise"]))
    assert list(seen)[1:-1] == ["x", "y"]


def test_a_site_sent_twice_is_treated_once() -> None:
    from sumout.effects.messenger import Messenger
    from sumout.effects.stack import apply_stack

    class Twice(Messenger):
        def _pyro_sample(self, msg: Message) -> None:
            if msg.name == "x" and "twice" not in msg.infer:
                msg.infer["twice"] = True
                apply_stack(msg.copy())

    def program() -> None:
        with Twice(), reparam(config={"x": Decenter()}):
            sample("x", dist.Normal(torch.tensor(3.0), 2.0))

    program()


# ------------------------------------------------------------------------------------------------------------ errors


def test_a_config_that_is_none() -> None:
    with pytest.raises(ModelError, match="reparam has config=3"):
        reparam(model, 3)


def test_a_class_in_the_place_of_an_instance() -> None:
    with pytest.raises(ModelError, match=r"site 'x'.*Make an instance: Decenter\(\)"):
        reparam(model, {"x": Decenter})
    with pytest.raises(ModelError, match="site 'x'"):
        reparam(model, lambda site: 3)()


def test_a_result_that_is_none() -> None:
    class Tuple:
        def apply(self, msg: Any) -> Any:
            return msg["fn"], msg["value"]

    with pytest.raises(ModelError, match=r"Tuple.apply gave .* for site 'x'"):
        reparam(model, {"x": Tuple()})()


def test_a_site_without_a_distribution() -> None:
    with pytest.raises(ModelError, match="which is no distribution"):
        reparam(lambda: sample("x", lambda: torch.ones(())), {"x": Decenter()})()


def test_a_value_of_another_shape() -> None:
    class Wider(Decenter):
        def apply(self, msg: dict[str, Any]) -> dict[str, Any]:
            result = super().apply(msg)
            return {**result, "value": result["value"].expand(2)}

    with pytest.raises(ModelError, match=r"from shape \(\) to \(2,\)"):
        reparam(condition(model, data={"x": torch.tensor(1.0)}), {"x": Wider()})()


def test_a_lost_value_is_told() -> None:
    class Forgetful(Decenter):
        def apply(self, msg: dict[str, Any]) -> dict[str, Any]:
            return super().apply({**msg, "value": None})

    before = recorded(model)
    with pytest.warns(RuntimeWarning, match="set the value of site 'x', which Forgetful cannot keep"):
        reparam(replay(model, trace=before), {"x": Forgetful()})()


def test_a_config_that_never_ends() -> None:
    with pytest.raises(
        ModelError, match="goes on reparameterizing auxiliary sites: x, x_noise, x_noise_noise"
    ):
        reparam(model, lambda site: Decenter())()


def test_a_copy_is_independent() -> None:
    messenger = ReparamMessenger({"x": Decenter()})
    with messenger:
        other = copy.deepcopy(messenger)
        with other:
            assert recorded(model).stochastic_nodes == ["x_noise"]
        model()
    assert other.config["x"] is not messenger.config["x"]
