"""Learning rates by parameter follow torch's own schedulers."""

from __future__ import annotations

import pytest
import torch

import sumout
import sumout.distributions as dist
from sumout import infer, optim
from sumout.optim import ParamOptimizer, ScheduledOptimizer

OPTIONS = {
    "ConstantLR": {"factor": 0.5, "total_iters": 2},
    "CosineAnnealingLR": {"T_max": 5},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False},
    "ExponentialLR": {"gamma": 0.7},
    "LambdaLR": {"lr_lambda": lambda epoch: 0.9**epoch},
    "LinearLR": {"total_iters": 4},
    "MultiStepLR": {"milestones": [2, 4]},
    "MultiplicativeLR": {"lr_lambda": lambda epoch: 0.9},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 12, "cycle_momentum": False},
    "PolynomialLR": {"total_iters": 4},
    "ReduceLROnPlateau": {"patience": 1},
    "StepLR": {"step_size": 2},
}


def leaf() -> torch.Tensor:
    return torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)


def move(optimizer: ParamOptimizer, param: torch.Tensor, steps: range) -> list[float]:
    rates = []
    for step in steps:
        param.grad = torch.cos(param.detach() + step)
        optimizer({"w": param})
        if isinstance(optimizer, ScheduledOptimizer):
            optimizer.step(*([float(step // 2)] if "Plateau" in optimizer.schedule.__name__ else []))
        rates.append(optimizer.learning_rates()["w"])
    return rates


def test_every_scheduler_of_one_optimizer_is_there() -> None:
    names = {name for name in dir(optim) if name.endswith("LR") or "LROn" in name or "Warm" in name}
    assert names == {*OPTIONS}


@pytest.mark.parametrize("name", OPTIONS)
def test_rates_and_steps_are_those_of_torch(name: str) -> None:
    expected = leaf()
    inner = torch.optim.SGD([expected], lr=0.1)
    scheduler = getattr(torch.optim.lr_scheduler, name)(inner, **OPTIONS[name])
    rates = []
    for step in range(6):
        expected.grad = torch.cos(expected.detach() + step)
        inner.step()
        scheduler.step(*([float(step // 2)] if name == "ReduceLROnPlateau" else []))
        rates.append(inner.param_groups[0]["lr"])

    plain = leaf()
    assert move(getattr(optim, name)(optim.SGD(lr=0.1), **OPTIONS[name]), plain, range(6)) == rates
    assert torch.equal(plain, expected)
    as_pyro = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, **OPTIONS[name]}
    other = leaf()
    assert move(getattr(optim, name)(as_pyro), other, range(6)) == rates
    assert torch.equal(other, expected)


@pytest.mark.parametrize(
    "name", [name for name in OPTIONS if "Lambda" not in name and "Multiplicative" not in name]
)
def test_state_survives_a_file(name: str, tmp_path) -> None:
    def make() -> ParamOptimizer:
        return getattr(optim, name)(optim.Adam(lr=0.1, betas=(0.8, 0.9)), **OPTIONS[name])

    whole = leaf()
    rates = move(make(), whole, range(8))
    first, part = make(), leaf()
    assert move(first, part, range(5)) == rates[:5]
    first.save(str(tmp_path / "state"))
    second = make()
    second.load(str(tmp_path / "state"))
    assert second.get_state().keys() == {"w"}  # also before any step
    assert move(second, part, range(5, 8)) == rates[5:]
    assert torch.equal(part, whole)


def test_a_function_makes_schedulers_of_schedulers() -> None:
    def warm_up(optimizer: torch.optim.Optimizer):
        first = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2)
        then = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [first, then], milestones=[2])

    rates = move(ScheduledOptimizer(warm_up, optim.SGD(lr=0.1), {}), leaf(), range(4))
    assert rates == pytest.approx([0.055, 0.1, 0.05, 0.025])


def test_options_and_parameters_one_by_one() -> None:
    optimizer = optim.ExponentialLR(
        {"optimizer": optim.SGD, "optim_args": lambda name: {"lr": 1.0 if name == "a" else 2.0}, "gamma": 0.5}
    )
    a, b = leaf(), leaf()
    for params in ({"a": a}, {"a": a, "b": b}):
        for param in params.values():
            param.grad = torch.ones(2, dtype=torch.float64)
        optimizer(params)
        optimizer.step()
    assert optimizer.learning_rates() == {"a": 0.25, "b": 1.0}  # b was met one epoch later


def test_clipping_is_kept() -> None:
    for optimizer in (
        optim.StepLR(
            {"optimizer": torch.optim.SGD, "optim_args": {"lr": 1.0}, "step_size": 1}, {"clip_value": 0.5}
        ),
        optim.StepLR(optim.SGD({"lr": 1.0}, {"clip_value": 0.5}), step_size=1),
    ):
        param = leaf()
        param.grad = torch.tensor([100.0, -0.25], dtype=torch.float64)
        optimizer({"w": param})
        assert param.tolist() == [0.5, -1.75]


def test_svi_takes_a_scheduled_optimizer() -> None:
    def model(x: torch.Tensor) -> None:
        loc = sumout.param("loc", torch.zeros(()))
        with sumout.plate("data", len(x)):
            sumout.sample("x", dist.Normal(loc, 1.0), obs=x)

    with sumout.get_param_store().scope():
        optimizer = optim.ExponentialLR(optim.SGD(lr=0.1), gamma=0.5)
        svi = infer.SVI(model, lambda x: None, optimizer, infer.Trace_ELBO())
        for _ in range(3):
            svi.step(torch.tensor([1.0, 3.0]))
            optimizer.step()
        # Each step of rate r leaves (1 - 2 r) of the distance to the mean, 2.
        assert sumout.get_param_store()["loc"].item() == pytest.approx(2 - 2 * 0.8 * 0.9 * 0.95, abs=1e-6)


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="Did you mean 'gamma'"):
        optim.ExponentialLR(optim.Adam(lr=0.1), gama=0.9)
    with pytest.raises(ValueError, match="'optim_args'"):
        optim.ExponentialLR({"optimizer": torch.optim.Adam, "gamma": 0.9})
    with pytest.raises(ValueError, match="made from an optimizer"):
        optim.ExponentialLR(gamma=0.9)
    with pytest.raises(ValueError, match="optim.Adam"):
        ScheduledOptimizer(torch.optim.lr_scheduler.StepLR, torch.optim.Adam, {"step_size": 1})
    with pytest.raises(ValueError, match="given both"):
        optim.Adam({"lr": 0.1}, lr=0.2)
