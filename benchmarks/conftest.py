"""Settings of every benchmark: one thread, and the same program for each library.

    make bench

A benchmark's group is what is measured; its rows are the libraries, timed in the same run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # times compare libraries, not thread pools
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fresh_random_state() -> None:
    torch.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    # What a peer warns about is not measured here.
    config.addinivalue_line("filterwarnings", "ignore")
