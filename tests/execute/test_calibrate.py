"""Measured rates are rates; how large they are is the machine's affair."""

from __future__ import annotations

import math

import torch

from sumout.execute.calibrate import calibrate
from sumout.plan import FactorShape, Structure, make_plan


def test_rates_are_finite_and_above_zero() -> None:
    for dtype in (torch.float32, torch.float64):
        machine = calibrate(dtype=dtype, repeats=2)
        for rate in (machine.flops_per_second, machine.entries_per_second, machine.seconds_per_launch):
            assert 0 < rate < math.inf


def test_a_plan_can_be_made_by_them() -> None:
    pair = Structure((FactorShape(("x",)), FactorShape(("x",))), (("x", 2),), (("x", frozenset()),))
    machine = calibrate(repeats=1)
    assert make_plan(pair, machine=machine).machine == machine
