"""The switches: in force in a block, put back after it, apart for each thread."""

from __future__ import annotations

import threading

import pytest
import torch

from sumout.factors import FactorGraph
from sumout.infer.solving import solve
from sumout.settings import Settings, settings


def test_override_is_undone_after_errors() -> None:
    before = settings.validation, settings.memory_limit
    with pytest.raises(KeyError), settings.override(validation=not before[0], memory_limit=7):
        assert (settings.validation, settings.memory_limit) == (not before[0], 7)
        raise KeyError
    assert settings.validation == before[0]
    assert settings.memory_limit > 7


def test_the_default_limit_is_a_share_of_free_memory() -> None:
    assert 2**20 < settings.memory_limit < 2**50
    settings.memory_limit = 5
    assert settings.memory_limit == 5
    settings.memory_limit = None
    assert settings.memory_limit > 5


def test_each_thread_has_its_own() -> None:
    seen = []
    with settings.override(memory_limit=7):
        thread = threading.Thread(target=lambda: seen.append(settings.memory_limit))
        thread.start()
        thread.join()
    assert seen[0] > 7


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """What is free on two GPUs that are not there; a third raises an error."""
    free = {0: 1000, 1: 5000}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device.index], 10**6))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    return free


def test_the_limit_of_a_gpu_is_a_share_of_what_is_free_there(two_devices: dict[int, int]) -> None:
    found = Settings()
    assert found.memory_limit_on(torch.device("cuda", 0)) == int(0.8 * 1200)
    assert found.memory_limit_on(torch.device("cuda", 1)) == int(0.8 * 5200)
    two_devices[1] = 9000
    assert found.memory_limit_on(torch.device("cuda", 1)) == int(
        0.8 * 5200
    )  # A reading is used for a second.
    with found.override(memory_limit=7):
        assert found.memory_limit_on(torch.device("cuda", 0)) == 7


def test_no_gpu_is_touched_where_no_table_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: pytest.fail("A GPU was asked."))
    assert settings.memory_limit_on(torch.device("cpu")) == settings.memory_limit
    graph = FactorGraph.from_tables({"f": (["x"], torch.ones(2))})
    assert solve.solve(graph).value.exp() == pytest.approx(2.0)


def test_queries_ask_for_the_limit_where_their_tables_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Settings, "memory_limit_on", lambda self, device: asked.append(device) or 10**9)
    graph = FactorGraph.from_tables({"f": (["x"], torch.ones(2))})
    solve.solve(graph)
    solve.sample(graph, 3)
    assert asked
    assert set(asked) == {torch.device("cpu")}
