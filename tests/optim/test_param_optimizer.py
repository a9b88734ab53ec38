"""Optimizers per named parameter do what the torch optimizer does to each parameter alone."""

from __future__ import annotations

import pytest
import torch

from sumout import optim
from sumout.optim import ParamOptimizer

# SparseAdam takes sparse gradients only, Muon matrices only.
PLAIN = sorted(
    name
    for name in dir(optim)
    if isinstance(vars(torch.optim).get(name), type) and name not in ("SparseAdam", "Muon")
)


def leaves(**values: list[float]) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in values.items()
    }


def set_gradients(params: dict[str, torch.Tensor], step: int) -> None:
    for number, param in enumerate(params.values()):
        param.grad = torch.cos(param.detach() * (1 + number) + step)


def fit(optimizer: ParamOptimizer, params: dict[str, torch.Tensor], steps: range) -> None:
    for step in steps:
        set_gradients(params, step)
        optimizer(params)


def test_every_torch_optimizer_is_there() -> None:
    assert {"Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "NAdam", "Rprop", "Adadelta"} <= set(PLAIN)


@pytest.mark.parametrize("name", PLAIN)
def test_each_parameter_is_stepped_like_torch_does(name: str) -> None:
    ours, theirs = leaves(a=[1.0, -2.0], b=[0.5]), leaves(a=[1.0, -2.0], b=[0.5])
    fit(getattr(optim, name)({"lr": 0.01}), ours, range(4))

    optimizers = [getattr(torch.optim, name)([param], lr=0.01) for param in theirs.values()]
    for step in range(4):
        set_gradients(theirs, step)
        for each in optimizers:
            each.step()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=0)


def test_options_by_name() -> None:
    params = leaves(slow=[1.0], fast=[1.0])
    for param in params.values():
        param.grad = torch.ones_like(param)
    optim.SGD(lambda name: {"lr": 0.5 if name == "fast" else 0.125})(params)
    assert params["slow"].item() == 0.875
    assert params["fast"].item() == 0.5


def test_clipping() -> None:
    params = leaves(w=[0.0, 0.0])
    params["w"].grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
    optim.SGD({"lr": 1.0}, {"clip_norm": 2.5})(params)
    torch.testing.assert_close(params["w"].detach(), torch.tensor([-1.5, -2.0]).double(), rtol=1e-6, atol=0)

    params = leaves(w=[0.0, 0.0], free=[0.0])
    params["w"].grad = torch.tensor([3.0, -0.5], dtype=torch.float64)
    params["free"].grad = torch.tensor([3.0], dtype=torch.float64)
    optim.SGD({"lr": 1.0}, lambda name: {"clip_value": 1.0} if name == "w" else {})(params)
    assert params["w"].tolist() == [-1.0, 0.5]
    assert params["free"].tolist() == [-3.0]


def test_a_parameter_without_gradient_stays() -> None:
    params = leaves(a=[1.0], b=[1.0])
    optimizer = optim.Adam({"lr": 0.1})
    fit(optimizer, params, range(3))
    before = params["a"].item()
    params["a"].grad = None
    optimizer(params)
    assert params["a"].item() == before  # momentum alone would have moved it


def test_a_replaced_tensor_starts_anew() -> None:
    optimizer = optim.Adam({"lr": 0.1})
    fit(optimizer, leaves(a=[5.0]), range(3))
    again, fresh = leaves(a=[1.0]), leaves(a=[1.0])
    fit(optimizer, again, range(2))
    fit(optim.Adam({"lr": 0.1}), fresh, range(2))
    assert again["a"].item() == fresh["a"].item()


def test_tensors_without_names() -> None:
    named, bare = leaves(a=[1.0], b=[2.0]), leaves(a=[1.0], b=[2.0])
    optimizer = optim.Adam({"lr": 0.1})
    fit(optim.Adam({"lr": 0.1}), named, range(3))
    for step in range(3):
        set_gradients(bare, step)
        optimizer(bare.values())
    assert bare["a"].item() == named["a"].item()
    assert bare["b"].item() == named["b"].item()
    assert set(optimizer.get_state()) == {"0", "1"}


@pytest.mark.parametrize("name", ["Adam", "SGD", "ClippedAdam", "Rprop"])
def test_state_survives_a_file(name: str, tmp_path) -> None:
    options = {"lr": 0.01} | ({"momentum": 0.9} if name == "SGD" else {})
    params = leaves(a=[1.0, -2.0], b=[0.5])
    optimizer = getattr(optim, name)(options)
    fit(optimizer, params, range(3))
    optimizer.save(str(tmp_path / "state.pt"))
    copies = {key: param.detach().clone().requires_grad_() for key, param in params.items()}
    fit(optimizer, params, range(3, 6))

    resumed = getattr(optim, name)(options)
    resumed.load(str(tmp_path / "state.pt"))
    assert set(resumed.get_state()) == {"a", "b"}  # not lost before the parameters are met
    fit(resumed, copies, range(3, 6))
    for key in params:
        torch.testing.assert_close(params[key], copies[key], rtol=0, atol=0)


def test_state_is_a_copy_and_goes_back_into_a_running_optimizer() -> None:
    params = leaves(a=[1.0])
    optimizer = optim.Adam({"lr": 0.1})
    fit(optimizer, params, range(3))
    state, value = optimizer.get_state(), params["a"].item()
    fit(optimizer, params, range(3, 6))
    reached = params["a"].item()

    optimizer.set_state(state)
    again = leaves(a=[value])  # as after loading the store, the tensor is another one
    fit(optimizer, again, range(3, 6))
    assert again["a"].item() == reached


def test_clipped_adam_is_adam_on_clamped_gradients_with_a_decaying_rate() -> None:
    ours, theirs = leaves(a=[1.0, -2.0]), leaves(a=[1.0, -2.0])
    clipped = optim.ClippedAdam({"lr": 0.1, "clip_norm": 0.3, "lrd": 0.5})
    adam = torch.optim.Adam(theirs.values(), lr=0.1)
    for step in range(4):
        set_gradients(ours, step)
        clipped(ours)
        set_gradients(theirs, step)
        theirs["a"].grad.clamp_(-0.3, 0.3)
        adam.param_groups[0]["lr"] = 0.1 * 0.5 ** (step + 1)
        adam.step()
    torch.testing.assert_close(ours["a"], theirs["a"], rtol=0, atol=0)


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="'lrr'.*Did you mean 'lr'"):
        optim.Adam({"lrr": 0.1})
    with pytest.raises(ValueError, match="'norm'.*clip_norm"):
        optim.Adam({"lr": 0.1}, {"norm": 1.0})
    with pytest.raises(ValueError, match="optim_args is 0.1"):
        optim.Adam(0.1)
    with pytest.raises(AttributeError, match="Did you mean 'Adam'"):
        optim.Adamm  # noqa: B018
    with pytest.raises(AttributeError, match="LBFGS evaluates the loss several times"):
        optim.LBFGS  # noqa: B018
    params = leaves(a=[1.0])
    set_gradients(params, 0)
    with pytest.raises(ValueError, match="gave 0.1 for parameter 'a'"):
        optim.SGD(lambda name: 0.1)(params)


def test_parameters_of_modules_have_the_names_that_they_have_there() -> None:
    params = leaves(**{"net$$$0.weight": [1.0], "scale": [1.0]})
    set_gradients(params, 0)
    asked = []
    optim.SGD(lambda name: asked.append(name) or {"lr": 0.1}, lambda name: asked.append(name) or {})(params)
    assert sorted(set(asked)) == ["net.0.weight", "scale"]
    with pytest.raises(ValueError, match=r"called with one name.*net\.0\.weight"):
        optim.Adam(lambda module, name: {"lr": 0.1})


def test_a_parameter_that_has_two_names_is_stepped_once() -> None:
    shared = torch.tensor([1.0], requires_grad=True)
    shared.grad = torch.ones(1)
    optim.SGD(lr=0.125)({"one": shared, "two": shared})
    assert shared.item() == 0.875
