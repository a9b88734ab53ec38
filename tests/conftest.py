"""Settings of every test: one thread a process, for xdist runs two of them; Hypothesis without a deadline."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two pools of threads would fight
os.environ.setdefault("MPLBACKEND", "Agg")  # pictures are saved, never shown

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# The first example of a run pays for imports and caches. Under CI the examples are the same each time.
settings.register_profile(
    "sumout",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("sumout")


@pytest.fixture(autouse=True)
def _fresh_random_state() -> None:
    """Each test draws the same numbers, whatever ran before it."""
    torch.manual_seed(0)
