"""The switches: in force in a block, put back after it, apart for each thread."""

from __future__ import annotations

import threading

import pytest

from sumout.settings import settings


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
